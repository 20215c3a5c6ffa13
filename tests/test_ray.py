"""Batch files and evaluations on a Ray cluster of three nodes, one of which is killed."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from test_batch import Result, comparable, count, read, request, requests, start, write
from test_cli import run
from test_evaluation import HUMAN_EVAL, write_lines

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(find_spec("ray") is None or find_spec("fastapi") is None, reason="needs the extra ray"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray_cluster import three_nodes

    with three_nodes() as found:
        yield found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """600 requests, and what one machine makes of them."""
    folder = tmp_path_factory.mktemp("batch")
    source, output = write(folder / "in.jsonl", requests(600)), folder / "out.jsonl"
    assert start(source, output).wait(timeout=300) == 0
    return source, output


def test_without_an_address_a_cluster_lives_as_long_as_the_command(whole: Any, tmp_path: Path) -> None:
    """The first of the tests: a cluster that runs would be joined."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # short: sockets have their names in it
    done = start(whole[0], tmp_path / "out.jsonl", "--limit", "20", "--ray", environment={"RAY_TMPDIR": folder})
    assert done.wait(timeout=120) == 0
    results: list[Result] = read(tmp_path / "out.jsonl")
    assert {result["custom_id"] for result in results} == {f"é{i}" for i in range(20)}
    time.sleep(2)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            assert folder.encode() not in (process / "cmdline").read_bytes()  # others' are of any encoding
    shutil.rmtree(folder)


def test_nothing_listens_beyond_loopback(cluster: Any) -> None:
    import psutil

    ours = {
        info.process.pid for node in cluster.list_all_nodes() for kind in node.all_processes.values() for info in kind
    }
    children = {child.pid for pid in ours for child in psutil.Process(pid).children(recursive=True)}
    listening = [c for c in psutil.net_connections("inet") if c.status == "LISTEN" and c.pid in ours | children]
    assert listening
    assert {c.laddr.ip.removeprefix("::ffff:") for c in listening} <= {"127.0.0.1", "::1"}


def test_results_come_in_order_and_errors_in_their_own_file(cluster: Any, whole: Any, tmp_path: Path) -> None:
    source, output, errors = whole[0], tmp_path / "out.jsonl", tmp_path / "errors.jsonl"
    command = ("--ray", cluster.address, "--keep-order", "--error-file", errors, "--limit", "150")
    assert start(source, output, *command).wait(timeout=120) == 0
    for path, succeeded in ((output, True), (errors, False)):
        expected = [line["custom_id"] for line in requests(150) if (line["body"]["max_tokens"] >= 0) == succeeded]
        assert [result["custom_id"] for result in read(path)] == expected
    assert set(comparable(output) + comparable(errors)) <= set(comparable(whole[1]))


def test_an_evaluation_makes_the_same_samples(cluster: Any, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "data", HUMAN_EVAL)
    common = ["evaluate", "humaneval", "--data", str(data), "--generate-only", "--max-new-tokens", "12", "-n", "5",
              "--temperature", "0.8"]  # fmt: skip
    here = run(*common, "--output", str(tmp_path / "here"))
    there = run(*common, "--output", str(tmp_path / "there"), "--ray", cluster.address)
    assert (here.returncode, there.returncode) == (0, 0), there.stderr
    made = [sorted((tmp_path / where / "samples.jsonl").read_text().splitlines()) for where in ("here", "there")]
    assert made[0] == made[1]
    assert len(made[0]) == 15


def test_a_node_is_killed_and_the_command_interrupted(cluster: Any, whole: Any, tmp_path: Path) -> None:
    """Last of those that need three nodes. The command itself is killed first, and goes on."""
    from ray_cluster import kill_node

    source, output = whole[0], tmp_path / "out.jsonl"
    first = start(source, output, "--ray", cluster.address)
    wait_for(output, 100, first)
    first.kill()
    first.wait()
    second = start(source, output, "--ray", cluster.address)
    wait_for(output, 300, second)
    kill_node(cluster)
    assert second.wait(timeout=150) == 0
    assert comparable(output) == comparable(whole[1])


def wait_for(output: Path, lines: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 90
    while count(output) < lines:
        assert process.poll() is None, f"ended with {process.returncode}"
        assert time.monotonic() < end, f"{count(output)} lines"
        time.sleep(0.02)


def test_what_no_copy_can_load_is_one_line(cluster: Any, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [request("a", prompt="x")])
    process = start(source, tmp_path / "out", "--ray", cluster.address, "--threads", "64", stderr=subprocess.PIPE)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "no node of the Ray cluster has room for the model: it takes 64 processors" in told.decode()
    process = start(source, tmp_path / "out", "--ray", "127.0.0.1:1", stderr=subprocess.PIPE)
    _, told = process.communicate(timeout=60)  # Ray itself tries for two minutes
    assert (process.returncode, told) == (
        1,
        b"replit: no Ray cluster answers at 127.0.0.1:1; expected the address of its head node\n",
    )
    options = ("--serialized-model-path", str(tmp_path / "none"))
    process = start(source, tmp_path / "out", "--ray", cluster.address, *options, stderr=subprocess.PIPE)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 1
    last = told.decode().splitlines()[-1]
    assert last.startswith(f"replit: cannot read the serialized model {tmp_path}/none: No such file"), told.decode()

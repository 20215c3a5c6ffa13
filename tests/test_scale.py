"""What can be known of Ray without Ray: its absence, addresses, which requests meet."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from test_batch import needs_serve, request, start, write

from pipelines.pipeline import Pipeline
from pipelines.scale.affinity import affinity_key, by_affinity, text_key
from pipelines.scale.batch import LineCopy
from pipelines.scale.cluster import Room, check_address, check_installed, identity, open_copy
from pipelines.server.offline.line import Line
from pipelines.server.options import ServeOptions
from weights.errors import UserError


def test_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec

    def found(name: str, *more: Any) -> Any:
        return None if name == "ray" else find_spec(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    with pytest.raises(UserError, match=r'package ray is missing; expected Ray\'s packages: pip install "\.\[ray\]"'):
        check_installed()


@pytest.mark.parametrize("address", ["auto", "local", "10.0.0.1:6379", "head.local:1", "[::1]:6379"])
def test_an_address_of_a_cluster(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize(
    ("address", "told"),
    [("in.jsonl", "expected a cluster's address such as"), ("", "expected a cluster's"), ("10.0.0.1", "expected a"),
     ("ray://10.0.0.1:10001", "a Ray client's; expected the address of the cluster itself")],
)  # fmt: skip
def test_what_is_no_address(address: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_address(address)


def test_the_environment_names_a_cluster_as_the_option_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert (check_address("auto"), check_address("10.0.0.2:1")) == ("10.0.0.1:6379", "10.0.0.2:1")
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert check_address("auto") == "local"
    monkeypatch.setenv("RAY_ADDRESS", "ray://10.0.0.1:10001")
    with pytest.raises(UserError, match="RAY_ADDRESS is ray://10.0.0.1:10001, a Ray client's; expected the address"):
        check_address("auto")


@needs_serve
@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [request("a", prompt="x")])
    process = start(source, tmp_path / "out", "--ray", stderr=subprocess.PIPE)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told[:40]) == (1, b"replit: the Python package ray is missin")
    assert not (tmp_path / "out").exists()


def test_a_copy_takes_what_its_room_says() -> None:
    room = Room(copies=3, cpus=4, gpus=1, memory=1 << 30)
    assert room.reserved == {"num_cpus": 4, "num_gpus": 1, "memory": 1 << 30}
    placed = room.placed(ServeOptions(device="gpu:2"))
    assert (placed.threads, placed.device) == (4, "gpu:0")  # the second one of the node, the first that it sees
    assert (placed.name, placed.model, placed.draft) == ("nano", "nano", "auto")
    assert [room.at_most(count).copies for count in (0, 2, 9)] == [1, 2, 3]


def test_a_copy_finds_files_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.gguf").touch()
    monkeypatch.chdir(tmp_path)
    placed = Room(1, 1, 0, 1).placed(ServeOptions(weight_path="m.gguf", draft="m.gguf", config_path="hf://a/b/c"))
    paths = (placed.weight_path, placed.draft, placed.config_path, placed.name)
    assert paths == (str(tmp_path / "m.gguf"), str(tmp_path / "m.gguf"), "hf://a/b/c", "m.gguf")


@needs_serve
def test_a_copy_of_other_files_is_refused(nano: Pipeline) -> None:
    options = ServeOptions(max_length=1024, max_batch_size=4)
    assert open_copy(options, identity(nano.files)).name == "nano"
    with pytest.raises(UserError, match="has other files of the model 'nano', or another version of this package"):
        open_copy(options, identity(nano.files)[:-1])


@needs_serve
def test_where_a_line_fails_on_a_copy_the_others_end_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []

    async def answered(app: Any, line: Line) -> None:
        await asyncio.sleep(0)
        if line.index == 1:
            raise BrokenPipeError
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(line.index)

    async def answer() -> None:
        copy = object.__new__(LineCopy)
        copy._app, copy._running = Mock(), asyncio.ensure_future(asyncio.Event().wait())  # type: ignore[assignment]
        with pytest.raises(BrokenPipeError):
            await copy.answer((0, [(place, Line(place, None)) for place in range(3)]))
        assert ended == [0, 2]

    monkeypatch.setattr("pipelines.server.offline.answer.answered", answered)
    asyncio.run(answer())


def editor(step: int, lines: int = 24) -> str:
    """What an editor sends that has so many lines before the cursor, of a file in which all lines differ."""
    text = "\n".join(f"    x{i} = work_{i * i}(a)" for i in range(lines + step)) + "\n    retu"
    return "\n".join(text.split("\n")[-lines:])


def test_what_begins_alike_has_one_key() -> None:
    head = "# how to write it\nimport os\n" * 12
    assert text_key(head + "def f(") == text_key(head + "class A:\n    def g(")
    assert text_key("import os\n" + "x" * 300) == text_key("import os\n" + "x" * 200)
    assert text_key("import os\nx") != text_key("import re\nx")
    assert text_key("def fibonacci(n):\n    if n < 2:\n        return") != text_key("def parse(text):\n    for")
    assert text_key("x") != text_key("y")


def test_windows_on_a_file_mostly_have_one_key() -> None:
    keys = [text_key(editor(step)) for step in range(200)]
    changes = sum(one != other for one, other in pairwise(keys))
    assert changes < 200 * 0.15  # each line that comes or goes changes it by chance: 2 in 24
    assert len({text_key(editor(0) + letters) for letters in ("", "r", "rn x", "rn x + y")}) == 1  # within a line


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ({"prompt": "a = 1\nb"}, {"prompt": ["a = 1\nc"], "n": 2}, True),
        ({"prompt": "a = 1\nb"}, {"input_prefix": "a = 1\nb", "input_suffix": "x"}, True),
        ({"prompt": "a = 1\nb"}, {"messages": [{"role": "user", "content": "a = 1\nb"}]}, True),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a\nb\n"}]}]},
            {"prompt": "a\nb\nc"},
            True,
        ),
        ({"prompt": [5, 6, 7]}, {"prompt": [5, 6, 7], "seed": 1}, True),
        ({"prompt": [5, 6, 7]}, {"prompt": [5, 6, 8]}, False),
    ],
)
def test_the_text_is_found_in_every_api(one: Any, other: Any, alike: bool) -> None:
    keys = [affinity_key(json.dumps(body).encode()) for body in (one, other)]
    assert None not in keys
    assert (keys[0] == keys[1]) == alike


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"{}", b'{"prompt": {}}', b'{"prompt": ""}', b"[" * 100000])
def test_where_there_is_no_text_there_is_no_key(body: bytes) -> None:
    assert affinity_key(body) is None


def test_a_replica_more_takes_its_share_and_changes_nothing_else() -> None:
    three, four = ["a", "b", "c"], ["a", "b", "c", "d"]
    first = [by_affinity(key, three)[0] for key in range(3000)]
    assert all(900 < first.count(name) < 1100 for name in three)
    for key, before in enumerate(first):
        assert by_affinity(key, four)[0] in (before, "d")
        assert [name for name in by_affinity(key, four) if name != "d"] == by_affinity(key, three)


@needs_serve
def test_metrics_of_replicas_are_one_text() -> None:
    from prometheus_client.parser import text_string_to_metric_families

    from pipelines.scale.merged_metrics import merged
    from pipelines.server.metrics import Metrics
    from pipelines.server.process.messages import Load

    texts = {}
    for name, running in (("a", 2), ("b", 3)):
        metrics = Metrics()
        metrics.requests.labels("/v1/completions", "200").inc(running)
        metrics.queue_time.observe(0.1)
        texts[name] = metrics.render(Load(running, 0, 30, 40, 0), running).decode()
    families = {family.name: family for family in text_string_to_metric_families(merged(texts))}
    assert {s.labels["replica"]: s.value for s in families["replit_running"].samples} == {"a": 2, "b": 3}
    assert {s.labels["replica"]: s.value for s in families["replit_cache_usage_ratio"].samples} == {
        "a": 0.75,
        "b": 0.75,
    }
    assert families["replit_queue_seconds"].type == "histogram"
    counted = [s for s in families["replit_requests"].samples if s.name == "replit_requests_total"]
    assert [(s.labels["replica"], s.labels["status"], s.value) for s in counted] == [("a", "200", 2), ("b", "200", 3)]


@needs_serve
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            {"port": 80},
            "'port' is no argument of the application; expected one of allow_longer, allowed_hosts",
        ),
        ({"max_length": "many"}, "the argument max_length is 'many'"),
        ({"api_key": ""}, "is empty; expected a key"),
        ({"cache_dir": "/tmp"}, "'cache_dir' is no argument"),
        ({"max_length": -1}, "the argument max_length is -1; expected a number from 0 up"),
        ({"max_batch_size": 0}, "max_batch_size is 0; expected a number from 1 up"),
        ({"max_queue_size": 0}, "max_queue_size is 0; expected a number from 1 up"),
        ({"shutdown_timeout": "nan"}, "shutdown_timeout is nan; expected a number from 0 up"),
        ({"device": "gpu:1"}, "the argument device is 'gpu:1'; expected cpu or gpu"),
        ({"token_healing": "yes"}, "token_healing is 'yes'; expected auto or on or off"),
    ],
)
def test_what_is_no_argument_of_the_application(arguments: dict[str, Any], told: str) -> None:
    from pipelines.scale.arguments import options_of

    with pytest.raises(UserError, match=told):
        options_of(arguments)


@needs_serve
def test_arguments_of_the_application_may_be_texts() -> None:
    from pipelines.scale.arguments import options_of

    options = options_of({"max_length": "2048", "page": "false", "cors_origins": ["https://a.example"]})
    assert (options.max_length, options.page, options.cors_origins) == (2048, False, ("https://a.example",))

"""Names of models to local files, against a hub on a local port that is really downloaded from."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import fake_hub
import pytest
from tiny_model import write_model

from weights.errors import UserError
from weights.hub import encoding_in_name, resolve

ROOT = Path(__file__).parent.parent
REPLIT = [sys.executable, "-c", "from pipelines.commands.cli import main; main()"]
BIG = bytes(range(256)) * 4096 * 12  # 12 MiB: more than one chunk of the client

# Resolves each set of arguments in turn, in a process of its own: the library reads its
# environment at import. One JSON line an answer: [path, content] or the error.
CLIENT = """
import importlib.util as util
import json, sys
from contextlib import suppress
from pathlib import Path
find = util.find_spec
util.find_spec = lambda name, *rest: None if name == "torch" else find(name, *rest)
from weights.errors import UserError
from weights.hub import resolve
for arguments in json.loads(sys.argv[1]):
    if "headers" in arguments:
        arguments["headers"] = Path(arguments["headers"])
    try:
        path = resolve(**arguments)
        if path.is_dir():
            held = sorted(file.name for file in path.iterdir())
        else:
            held = path.read_bytes()[:20].decode()
        print(json.dumps([str(path), held]))
    except UserError as error:
        print(json.dumps(str(error)))
"""

REPOSITORIES = {
    "modularai/replit-code-1.5": {
        "main": {
            "config.json": b"{}",
            "replit-code-v1_5-3b-f32.gguf": b"GGUF f32",
            "replit-code-v1_5-3b-bf16.gguf": b"GGUF bf16",
        }
    },
    "some/tensors": {
        "main": {
            "config.json": b"{}",
            "tokenizer.json": b"{}",
            "model.safetensors": b"new",
            "pytorch_model.bin": b"x" * 100,
        },
        "v1": {"config.json": b"{}", "model.safetensors": b"old"},
    },
    "some/shards": {
        "main": {
            "config.json": b"{}",
            "model.safetensors.index.json": json.dumps(
                {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
            ).encode(),
            "model-1.safetensors": b"1",
            "model-2.safetensors": b"2",
            "unrelated.safetensors": b"3",
        }
    },
    "some/split": {
        "main": {
            "model-00001-of-00002.gguf": b"GGUF 1",
            "model-00002-of-00002.gguf": b"GGUF 2",
        }
    },
    "some/moved": {  # no file has the same name in both
        "main": {"m-bf16.gguf": b"GGUF new"},
        "v1": {"config.json": b"{}", "model.safetensors": b"old"},
    },
    "some/ggufs": {"main": {"m-q4_0.gguf": b"GGUF q4", "m-q8_0.gguf": b"GGUF q8"}},
    "some/mixed": {"main": {"m-q4_0.gguf": b"GGUF q4", "m-bf16.gguf": b"GGUF bf16"}},
    "some/pickle": {"main": {"config.json": b"{}", "pytorch_model.bin": b"x"}},
    "some/numbered": {
        "main": {
            "config.json": b"{}",
            "model-00001-of-00002.safetensors": b"1",
            "model-00002-of-00002.safetensors": b"2",
            "adapter_model.safetensors": b"no model",
        }
    },
    "some/consolidated": {"main": {"consolidated.safetensors": b"1", "m.gguf": b"GGUF"}},
    "some/folders": {"main": {"q4/m-q4_0.gguf": b"GGUF q4", "q8/m-q8_0-00001-of-00001.gguf": b"GGUF q8"}},
    "some/imatrix": {"main": {"imatrix.gguf": b"GGUF no", "m.gguf": b"GGUF m"}},
    "some/cut": {"main": {"m-00001-of-00002.gguf": b"GGUF 1"}},
    "some/adapter": {"main": {"adapter_config.json": b"{}", "adapter_model.safetensors": b"1"}},
    "some/text": {"main": {"README.md": b"#"}},
    "some/revised": {
        "refs/pr/1": {"a.safetensors": b"proposed"},
        "try/x": {"a.safetensors": b"tried", "b.safetensors": b"too"},
    },
    "some/big": {"main": {"model.gguf": BIG}},
    "gated/model": {"main": {"model.gguf": b"GGUF"}},
}


@pytest.fixture
def hub() -> Iterator[fake_hub.FakeHub]:
    with fake_hub.serve(REPOSITORIES) as running:
        yield running


def client(
    url: str,
    home: Path,
    *calls: dict[str, Any],
    stderr: int = subprocess.PIPE,
    preexec_fn: Callable[[], None] | None = None,
    **environment: str,
) -> list[Any]:
    """What `resolve` answered to each call, standard error as the last item."""
    arguments = [{"encoding": None, **call} for call in calls]
    removed = ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "TRANSFORMERS_OFFLINE")
    inherited = {key: value for key, value in os.environ.items() if key not in removed}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, json.dumps(arguments)],
        cwd=ROOT,
        env={**inherited, "HF_ENDPOINT": url, "HF_HOME": str(home), **environment},
        stdout=subprocess.PIPE,
        stderr=stderr,
        preexec_fn=preexec_fn,
        text=True,
        timeout=120,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(calls), done.stderr
    return [*answers, done.stderr]


def test_default_files_of_the_published_model(hub: fake_hub.FakeHub, tmp_path: Path) -> None:
    model = "replit/replit-code-v1_5-3b"
    default, f32, repo, q4, _ = client(
        hub.url,
        tmp_path,
        {"model": model},
        {"model": model, "encoding": "float32"},
        {"model": "modularai/replit-code-1.5", "encoding": "bfloat16"},
        {"model": model, "encoding": "q4_0"},
    )
    assert default[1] == repo[1] == "GGUF bf16"
    assert f32[1] == "GGUF f32"
    assert q4[1] == "GGUF bf16"  # quantized when it is loaded


def test_a_file_by_address_and_revision(hub: fake_hub.FakeHub, tmp_path: Path) -> None:
    commit = hub.commit("some/tensors", "v1")
    answers = client(
        hub.url,
        tmp_path,
        {"model": "hf://some/tensors/model.safetensors"},
        {"model": "nano", "weight_path": "hf://some/tensors/model.safetensors", "revision": "v1"},
        {"model": "hf://some/tensors@v1/model.safetensors"},
        {"model": "hf://some/tensors/model.safetensors", "revision": commit},
        {"model": "some/tensors@v1"},
    )
    assert [answer[1] for answer in answers[:4]] == ["new", "old", "old", "old"]
    assert Path(answers[4][0], "model.safetensors").read_text() == "old"


def test_the_files_of_a_revision_are_those_that_it_lists(hub: fake_hub.FakeHub, tmp_path: Path) -> None:
    """Online, and from the cache when the hub cannot be reached."""
    calls = [{"model": "some/moved"}, {"model": "some/moved", "revision": "v1"}, {"model": "some/moved@v1"}]
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
        new, old, pinned, _ = client(hub.url, tmp_path, *calls, **environment)
        assert new[1] == "GGUF new"
        assert old[1] == pinned[1] == ["config.json", "model.safetensors"]


def test_repositories_of_each_kind(hub: fake_hub.FakeHub, tmp_path: Path) -> None:
    tensors, old, shards, split, q8, converted, _ = client(
        hub.url,
        tmp_path,
        {"model": "some/tensors"},
        {"model": "some/tensors", "revision": "v1"},
        {"model": "some/shards"},
        {"model": "some/split"},
        {"model": "some/ggufs", "encoding": "q8_0"},
        {"model": "some/mixed", "encoding": "q6_k"},
    )
    assert converted[1] == "GGUF bf16"
    assert tensors[1] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert Path(old[0], "model.safetensors").read_text() == "old"
    assert shards[1] == [
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "model.safetensors.index.json",
    ]
    assert split[1] == "GGUF 1"
    assert Path(split[0]).with_name("model-00002-of-00002.gguf").read_text() == "GGUF 2"
    assert q8[1] == "GGUF q8"


def test_what_was_downloaded_is_found_without_the_hub(tmp_path: Path) -> None:
    calls = [
        {"model": "some/tensors"},
        {"model": "replit/replit-code-v1_5-3b"},
        {"model": "some/ggufs", "encoding": "q8_0"},
        {"model": "some/shards"},
    ]
    with fake_hub.serve(REPOSITORIES) as hub:
        online = client(hub.url, tmp_path, *calls)[:-1]
    offline = client(hub.url, tmp_path, *calls, HF_HUB_OFFLINE="1")[:-1]
    gone = client(hub.url, tmp_path, *calls)[:-1]
    assert online == offline == gone
    assert all(isinstance(answer, list) for answer in online)


def test_offline_and_not_in_the_cache(tmp_path: Path) -> None:
    calls = [{"model": "replit/replit-code-v1_5-3b"}, {"model": "some/tensors"}]
    offline = client("http://127.0.0.1:9", tmp_path, *calls, HF_HUB_OFFLINE="1")[:-1]
    assert offline[0] == (
        "the hub repository modularai/replit-code-1.5 is not in the cache and HF_HUB_OFFLINE is "
        "set; expected its files there: unset HF_HUB_OFFLINE, or give a local file"
    )
    assert offline[1].startswith("the hub repository some/tensors is not in the cache and HF_HUB")
    unreachable = client("http://127.0.0.1:9", tmp_path, *calls)[:-1]
    for answer, name in zip(unreachable, ("modularai/replit-code-1.5", "some/tensors"), strict=True):
        assert answer.startswith(f"cannot download the hub repository {name} (")
        assert "refused" in answer
        assert answer.endswith("check the connection, or give a local file")


def test_offline_and_half_in_the_cache(hub: fake_hub.FakeHub, tmp_path: Path) -> None:
    """What a download that was broken off leaves says nothing of what the repository holds."""
    calls = [{"model": "some/tensors"}, {"model": "some/shards"}]
    tensors, shards, _ = client(hub.url, tmp_path, *calls)
    Path(tensors[0], "model.safetensors").unlink()
    Path(shards[0], "model-2.safetensors").unlink()
    for url, environment, message in (
        (hub.url, {"HF_HUB_OFFLINE": "1"}, " is not in the cache and HF_HUB_OFFLINE is set; expected its files there"),
        ("http://127.0.0.1:9", {}, "refused); expected the hub to answer or the files in its cache"),
    ):
        for answer in client(url, tmp_path, *calls, **environment)[:-1]:
            assert message in answer


def test_an_interrupted_download_resumes(hub: fake_hub.FakeHub, tmp_path: Path) -> None:
    hub.cut_after, hub.cuts = len(BIG) - 1000, 1
    answer, _ = client(hub.url, tmp_path, {"model": "some/big"})
    assert Path(answer[0]).read_bytes() == BIG
    ranges = [wanted for method, path, wanted in hub.requests if method == "GET" and wanted]
    assert len(ranges) == 1
    assert int(ranges[0].removeprefix("bytes=").removesuffix("-")) > 0


def test_a_terminal_shows_a_progress_bar(hub: fake_hub.FakeHub, tmp_path: Path) -> None:
    terminal, end = os.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    try:
        client(hub.url, tmp_path, {"model": "some/big"}, stderr=end)
        os.set_blocking(terminal, False)
        shown = ""
        with suppress(BlockingIOError):
            while piece := os.read(terminal, 1 << 16):
                shown += piece.decode()
    finally:
        os.close(end)
        os.close(terminal)
    assert "model.gguf" in shown
    assert "12.6M/12.6M" in shown


def test_what_the_hub_does_not_have(hub: fake_hub.FakeHub, tmp_path: Path) -> None:
    answers = client(
        hub.url,
        tmp_path,
        {"model": "some/nothing"},
        {"model": "some/tensors", "revision": "v9"},
        {"model": "hf://some/tensors/other.gguf"},
        {"model": "gated/model"},
        {"model": "some/pickle"},
        {"model": "some/ggufs"},
        {"model": "some/ggufs", "encoding": "float32"},
    )[:-1]
    assert answers == [
        "the hub repository some/nothing does not exist or is private; expected a public one: "
        "check its name, or set HF_TOKEN",
        "the hub repository some/tensors has no revision 'v9'; expected a branch, tag or commit: check it",
        "the hub repository some/tensors has no file 'other.gguf'; expected one that it holds: check the name",
        "the hub repository gated/model is gated; expected access to it: accept its terms, set HF_TOKEN",
        "some/pickle holds PyTorch files only and torch is not installed; type `pip install torch` and this again, or "
        "`replit convert some/pickle model.gguf` where torch is",
        "the hub repository some/ggufs holds m-q4_0.gguf, m-q8_0.gguf; expected one of them to be "
        "chosen: type --weight-path hf://some/ggufs/m-q4_0.gguf",
        "the hub repository some/ggufs holds m-q4_0.gguf, m-q8_0.gguf; expected one in float32 or "
        "in floats: type --weight-path hf://some/ggufs/m-q4_0.gguf",
    ]


def test_what_opens_from_a_folder_opens_from_the_hub(hub: fake_hub.FakeHub, tmp_path: Path) -> None:
    numbered, consolidated, imatrix, folder, _ = client(
        hub.url,
        tmp_path,
        {"model": "some/numbered"},
        {"model": "some/consolidated"},
        {"model": "some/imatrix@main"},
        {"model": "some/folders", "encoding": "q8_0"},
    )
    assert numbered[1] == ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert consolidated[1] == ["consolidated.safetensors"]
    assert imatrix[1] == "GGUF m"
    assert folder[1] == "GGUF q8"


@pytest.mark.parametrize("headers", [True, False])
def test_what_to_type_can_be_typed(headers: bool, hub: fake_hub.FakeHub, tmp_path: Path) -> None:
    """In the commands that name a model by an argument, as in those with options."""
    models = ("some/folders@main", "some/ggufs", "some/cut", "some/adapter", "some/text", "hf://some/text", "some")
    calls = [{"model": model, "argument": headers} for model in models]
    if headers:
        calls = [call | {"headers": str(tmp_path)} for call in calls]
    folders, ggufs, cut, adapter, text, address, name, _ = client(hub.url, tmp_path / "home", *calls)
    option, place = ("", " in its place") if headers else ("--weight-path ", "")
    assert folders == (
        "the hub repository some/folders holds q4/m-q4_0.gguf, q8/m-q8_0-00001-of-00001.gguf; expected one of them to "
        f"be chosen: type {option}hf://some/folders@main/q4/m-q4_0.gguf{place}"
    )
    assert ggufs.endswith(f"expected one of them to be chosen: type {option}hf://some/ggufs/m-q4_0.gguf{place}")
    assert cut == (
        "the hub repository some/cut has no file 'm-00002-of-00002.gguf'; expected all 2 parts of that model: give "
        "another file or repository"
    )
    assert "holds a LoRA adapter; expected a whole model: type `hf download some/adapter --local-dir DIR`, " in adapter
    assert text == (
        "the hub repository some/text holds README.md; expected model.safetensors, its shards, a .gguf file or "
        "pytorch_model.bin: check its name"
    )
    option = "" if headers else "--model "
    assert address.startswith(f"{option}'hf://some/text' names no file; expected hf://owner/repository/file")
    assert name.startswith(f"{option}'some' does not exist here; expected a file")


def test_revisions_with_slashes(hub: fake_hub.FakeHub, tmp_path: Path) -> None:
    """As huggingface_hub writes them, and as an error says that they can be typed."""
    proposed, tried, choice, _ = client(
        *(hub.url, tmp_path / "home", {"model": "hf://some/revised@refs/pr/1/a.safetensors"}),
        *({"model": "hf://some/revised@try%2Fx/a.safetensors"}, {"model": "some/revised@try/x"}),
    )
    assert (proposed[1], tried[1]) == ("proposed", "tried")
    assert choice.endswith("type --weight-path hf://some/revised@try%2Fx/a.safetensors")


def test_a_hub_that_never_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        calls = [{"model": "replit/replit-code-v1_5-3b"}, {"model": "some/tensors"}]
        answers = client(url, tmp_path, *calls, HF_HUB_ETAG_TIMEOUT="1")[:-1]
    for answer in answers:
        assert "timed out" in answer
        assert answer.endswith("check the connection, or give a local file")


def test_a_cache_that_cannot_be_written(hub: fake_hub.FakeHub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("a file where the cache's directory should be")
    for model in ("some/big", "some/tensors"):
        answer = client(hub.url, home, {"model": model})[0]
        assert answer.startswith(f"cannot store the hub repository {model} (")
        assert answer.endswith("expected room and permission there: free some space, or set HF_HOME")


def test_a_disk_without_room(hub: fake_hub.FakeHub, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    answer = client(hub.url, tmp_path, {"model": "some/big"}, preexec_fn=limit)[0]
    assert answer.startswith("cannot store the hub repository some/big (File too large")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"model": "missing.gguf"},
            "--model 'missing.gguf' does not exist here; expected a file, ",
        ),
        ({"model": "nonsense"}, "--model 'nonsense' does not exist here; expected a file, "),
        ({"model": "./a/b"}, "--model './a/b' does not exist here; expected a file, "),
        (
            {"model": "a/b", "weight_path": "x.gguf"},
            "--weight-path 'x.gguf' does not exist here; expected a file, ",
        ),
        ({"model": "hf://a/b"}, "--model 'hf://a/b' names no file; expected hf://owner/repo"),
        ({"model": "hf://a/b/"}, "--model 'hf://a/b/' names no file; expected hf://owner/repo"),
    ],
)
def test_names_that_cannot_be_models(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as raised:
        resolve(**{"encoding": None, **arguments})
    assert str(raised.value).startswith(message)


def test_local_paths_stay(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.touch()
    assert resolve(str(file), encoding=None) == file
    assert resolve(str(tmp_path), encoding="q4_0") == tmp_path
    assert resolve("some/tensors", encoding=None, weight_path=str(file)) == file


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("replit-code-v1_5-3b-bf16.gguf", "bfloat16"),
        ("replit-code-v1_5-3b-f32.gguf", "float32"),
        ("Replit-Code-3.3B-v1.5-Q4_K_M.gguf", "q4_k"),
        ("model.Q4_0.gguf", "q4_0"),
        ("model-Q3_K_XL.gguf", "q3_k"),
        ("model-Q6_K_L-imat.gguf", "q6_k"),
        ("model-Q4_0_S.gguf", None),
        ("model-f16.gguf", "float16"),
        ("model-f16x.gguf", None),
        ("model.gguf", None),
    ],
)
def test_encoding_in_file_names(name: str, encoding: str | None) -> None:
    assert encoding_in_name(name) == encoding


def inspected(source: str, home: Path, url: str) -> dict[str, Any]:
    """`replit inspect SOURCE --json` in a process of its own."""
    done = subprocess.run(
        [*REPLIT, "inspect", source, "--json"],
        cwd=ROOT,
        env={**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_inspect_downloads_headers_only(tmp_path: Path) -> None:
    gguf = tmp_path / "nano.gguf"
    subprocess.run(
        [*REPLIT, "convert", "nano", str(gguf), "--quantization-encoding", "float32"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    tensors = write_model(tmp_path / "tiny")
    repositories = {
        "some/gguf": {"main": {"nano.gguf": gguf.read_bytes()}},
        "some/tensors": {"main": {file.name: file.read_bytes() for file in tensors.iterdir()}},
    }
    with fake_hub.serve(repositories) as hub:
        for repository, local in (("some/gguf", gguf), ("some/tensors", tensors)):
            found = inspected(repository, tmp_path / "home", hub.url)
            assert found["file"].pop("path") == repository
            assert inspected(f"{repository}@main", tmp_path / "home", hub.url)["config"] == found["config"]
            expected = inspected(str(local), tmp_path / "home", hub.url)
            assert found.pop("values").startswith("not read: only the headers were downloaded")
            assert expected.pop("values") == "norms and embeddings were searched for NaN and infinity"
            del expected["file"]["path"], found["run"]["memory"]["available"], expected["run"]["memory"]["available"]
            assert found == expected
        weights = [
            wanted
            for method, path, wanted in hub.requests
            if method == "GET" and path.endswith((".gguf", "model.safetensors"))
        ]
        assert weights == ["bytes=0-16777215"] * 4  # twice each
        hub.knows_ranges, hub.sent = False, 0
        found = inspected("some/gguf", tmp_path / "home", hub.url)
        assert found["config"] == inspected(str(gguf), tmp_path / "home", hub.url)["config"]
        assert 16 << 20 <= hub.sent < gguf.stat().st_size  # more than was read lies in the system's buffers


def test_a_converted_revision_is_named_without_it(tmp_path: Path) -> None:
    files = {file.name: file.read_bytes() for file in write_model(tmp_path / "tiny").iterdir()}
    with fake_hub.serve({"some/tiny-v1_5": {"v7": files}}) as hub:
        done = subprocess.run(
            [*REPLIT, "convert", "some/tiny-v1_5@v7", str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.glob("*.gguf")] == ["tiny-1.6M-v1.5-BF16.gguf"]


def test_inspect_of_a_missing_file(hub: fake_hub.FakeHub, tmp_path: Path) -> None:
    done = subprocess.run(
        [*REPLIT, "inspect", "hf://some/tensors/none.gguf"],
        cwd=ROOT,
        env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.endswith("has no file 'none.gguf'; expected one that it holds: check the name\n")

"""The serialized model file: nothing that does not fit reaches the engine."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_imports import ROOT, imported_modules, modules

from models import RandomModel, random_model
from pipelines.terminal.progress import Quiet
from replit.architecture import REPLIT
from replit.runtime.compile import CompileOptions, compile_model
from replit.runtime.compile_key import CompileKey, cache_path, cpu_features, host_level
from replit.runtime.compiled_cache import kept_models
from replit.runtime.compiled_file import check_key, read_compiled, write_compiled
from replit.runtime.target import parse_target
from replit.runtime.weight_memory import weight_types
from weights.convert import write_gguf
from weights.errors import UserError
from weights.tensor import Encoding, Tensor


@pytest.fixture(scope="module")
def model() -> RandomModel:
    return random_model(6, 2)


# As MAX's compiled models begin.
BODY = b"\xee\xf0\x03" + bytes(range(256)) * 40


@pytest.fixture
def key(model: RandomModel) -> CompileKey:
    return CompileKey.of(REPLIT, model.config, weight_types(model.tensors(Encoding.FLOAT32), None))


@pytest.fixture
def file(tmp_path: Path, key: CompileKey) -> Path:
    body = tmp_path / "body"
    body.write_bytes(BODY)
    path = tmp_path / "made" / "model.replit"
    write_compiled(path, key, body)
    return path


def test_what_was_written_is_read(file: Path, key: CompileKey) -> None:
    content = read_compiled(file)
    assert content.body == BODY
    check_key(content, key)
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_version": "1.0"}, "was compiled for MAX 26.7.0; expected 1.0"),
        ({"device": "cuda:sm_90"}, "was compiled for the device cpu; expected cuda:sm_90"),
        ({"processor": "x86_64 sse9"}, "was compiled for the processor with or without"),
        ({"package": "0.0.1"}, "; expected 0.0.1"),
        ({"graph": "0" * 64}, "was compiled for the graph"),
        ({"kernels": "0" * 64}, "was compiled for the kernels"),
        ({"layout": "rows"}, "was compiled for weights that lie in panels; expected rows"),
        ({"cache": "bfloat16"}, "was compiled for a key-value cache in float32; expected bfloat16"),
        ({"architecture": "refact"}, "was compiled for the architecture mpt; expected refact"),
    ],
)
def test_a_difference_is_named(file: Path, key: CompileKey, change: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as error:
        check_key(read_compiled(file), replace(key, **change))
    assert message in str(error.value)
    assert "--save-to-serialized-model-path" in str(error.value)


def test_another_model_is_named_by_what_differs(file: Path, model: RandomModel) -> None:
    other = random_model(4)
    wanted = CompileKey.of(REPLIT, other.config, weight_types(other.tensors(Encoding.FLOAT32), None))
    with pytest.raises(UserError, match="a model with d_model 96; expected 64"):
        check_key(read_compiled(file), wanted)
    half = CompileKey.of(REPLIT, model.config, weight_types(model.tensors(Encoding.BFLOAT16), None))
    with pytest.raises(UserError, match=r"weights with token_embd\.weight float32 .*; expected bfloat16"):
        check_key(read_compiled(file), half)


def test_every_changed_byte_and_every_truncation_is_refused(file: Path) -> None:
    content = file.read_bytes()
    generator = random.Random(0)
    for _ in range(300):
        damaged = bytearray(content)
        damaged[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        file.write_bytes(damaged)
        with pytest.raises(UserError):
            read_compiled(file)
    for size in [0, 1, 7, 8, 47, 48, 60, len(content) // 2, len(content) - 1]:
        file.write_bytes(content[:size])
        with pytest.raises(UserError):
            read_compiled(file)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(UserError, match="is not a serialized model; expected a file made with"):
        read_compiled(path)
    with pytest.raises(UserError, match="cannot read the serialized model .*No such file"):
        read_compiled(tmp_path / "absent")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, key: CompileKey, monkeypatch: pytest.MonkeyPatch) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"x" * 1000)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    target = tmp_path / "out"
    with pytest.raises(UserError, match="cannot write the serialized model .*No space left"):
        write_compiled(target / "m.replit", key, body)
    assert list(target.iterdir()) == []


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_get_the_permissions_of_any_new_file(tmp_path: Path, key: CompileKey, mask: int, mode: int) -> None:
    """Compiled files and converted ones."""
    body = tmp_path / "body"
    body.write_bytes(b"x")
    before = os.umask(mask)
    try:
        write_compiled(tmp_path / "m.replit", key, body)
        tensors = {"x": Tensor("x", (4,), Encoding.FLOAT32, np.zeros(16, np.uint8))}
        write_gguf(tmp_path / "m.gguf", "mpt", lambda writer: None, tensors, {"x": Encoding.FLOAT32})
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("m.replit", "m.gguf")] == [mode, mode]


def test_an_unwritable_place_is_one_line(tmp_path: Path, key: CompileKey) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"x")
    with pytest.raises(UserError, match=r"cannot write the serialized model .*; expected a writable"):
        write_compiled(body / "below-a-file" / "m.replit", key, body)


def test_a_saved_model_is_loaded_without_compiling(
    model: RandomModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = weight_types(model.tensors(Encoding.FLOAT32), None)
    path = tmp_path / "model.replit"
    compile_model(model.config, types, CompileOptions(save_to=path), Quiet(), REPLIT)
    kept = cache_path(CompileKey.of(REPLIT, model.config, types))
    monkeypatch.setenv("REPLIT_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    kept = Path(shutil.copy(kept, tmp_path / "cache"))  # in the users' cache nothing is damaged

    def forbidden(*_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr("replit.runtime.compile._compile", forbidden)
    compile_model(model.config, types, CompileOptions(load_from=path), Quiet(), REPLIT)
    compile_model(model.config, types, CompileOptions(), Quiet(), REPLIT)  # from the cache
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(AssertionError, match="compiled again"):  # a damaged one is not trusted
        compile_model(model.config, types, CompileOptions(), Quiet(), REPLIT)


def test_a_cache_that_cannot_be_used_stops_nothing(model: RandomModel, monkeypatch: pytest.MonkeyPatch) -> None:
    types = weight_types(model.tensors(Encoding.FLOAT32), None)
    usual = compile_model(model.config, types, CompileOptions(), Quiet(), REPLIT)
    monkeypatch.setattr("replit.runtime.compile._compile", lambda *_: usual)
    notes: list[str] = []

    class Notes(Quiet):
        def note(self, message: str) -> None:
            notes.append(message)

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for folder, message in (("x" * 5000, "File name too long; expected a folder: set REPLIT_CACHE_DIR"),
                            ("", "no home directory; expected REPLIT_CACHE_DIR")):  # fmt: skip
        monkeypatch.setenv("REPLIT_CACHE_DIR", folder)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(Path, "home", no_home)
        assert compile_model(model.config, types, CompileOptions(), Notes(), REPLIT) is usual
        assert message in notes.pop()
        with pytest.raises(UserError, match=message):
            kept_models()


@pytest.mark.parametrize(
    ("n_heads", "message"),
    [(96, None), (97, "^97 heads of the model share one head of keys and values; expected at most 96 on the CPU$"),
     (4, "^the model's heads have 388 dimensions; expected a multiple of 16 on the CPU$")],
)  # fmt: skip
def test_heads_that_the_kernels_do_not_have(
    model: RandomModel, monkeypatch: pytest.MonkeyPatch, n_heads: int, message: str | None
) -> None:
    """Said before half a minute of compiling, not by each pass."""
    width = 1552 if message else 1536
    config = replace(model.config, d_model=width, n_heads=n_heads, n_kv_heads=1)
    monkeypatch.setattr("replit.runtime.compile._read_cached", lambda key: key)
    with pytest.raises(UserError, match=message) if message else nullcontext():
        compile_model(config, {}, CompileOptions(), Quiet(), REPLIT)


def test_a_full_disk_after_compiling_stops_nothing(
    model: RandomModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def export_mef(self, path: Path) -> None:
            raise ValueError("File too large")  # what MAX says under `ulimit -f`

    monkeypatch.setenv("REPLIT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("replit.runtime.compile._compile", lambda *_: Full())
    notes: list[str] = []
    monkeypatch.setattr(Quiet, "note", lambda self, message: notes.append(message))
    types = weight_types(model.tensors(Encoding.FLOAT32), None)
    assert isinstance(compile_model(model.config, types, CompileOptions(), Quiet(), REPLIT), Full)
    assert "cannot write the compiled model to a temporary file: File too large; expected a writable" in notes[0]
    with pytest.raises(UserError, match="File too large"):
        compile_model(model.config, types, CompileOptions(save_to=tmp_path / "x"), Quiet(), REPLIT)


@pytest.mark.parametrize("words", ["LLVM ERROR: IO failure on output stream: No space left on device", "a bug"])
def test_a_full_disk_while_compiling_is_said(model: RandomModel, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    class OfMojo(Exception):
        """As the class that it raises: of no other's kind."""

    def build(*_: object) -> Any:
        raise OfMojo(f"Error compiling Mojo at kernels\n{words}\n")

    monkeypatch.setattr("replit.runtime.compile._read_cached", lambda key: None)
    full = "No space" in words
    with pytest.raises(UserError if full else OfMojo, match="^the disk is full while compiling" if full else words):
        compile_model(model.config, {}, CompileOptions(), Quiet(), replace(REPLIT, build_graph=build))


# What a graph is built from, by the targets on whose graphs it bears.
SHARED = [
    "replit/decoder/graph.py",
    "replit/decoder/alibi.py",
    "replit/cpu/layers.py",
    "replit/cpu/panels.py",
    "replit/runtime/kv_cache.py",
    "replit/runtime/target.py",
    "weights/tensor.py",
]
SOURCES = {
    **{name: {"mpt cpu", "mpt cuda:sm_90", "refact cpu", "refact cuda:sm_90"} for name in SHARED},
    "replit/gpu/layers.py": {"mpt cuda:sm_90", "refact cuda:sm_90"},
    "replit/graph.py": {"mpt cpu", "mpt cuda:sm_90"},
    "refact/graph.py": {"refact cpu", "refact cuda:sm_90"},
    "replit/cpu/kernels/attention.mojo": {"mpt cpu", "refact cpu"},
    "replit/cpu/kernels/linear.mojo": {"mpt cpu", "refact cpu"},
    "replit/gpu/kernels/alibi_mask.mojo": {"mpt cuda:sm_90", "refact cuda:sm_90"},
    "replit/runtime/passes.py": set(),  # runs a graph, whatever it is
}
_KEYS = """
import functools, gc, json, sys
from pathlib import Path
from refact.architecture import REFACT
from replit.architecture import REPLIT
from replit.runtime.compile_key import CompileKey, cache_path, cpu_features, host_level
from replit.runtime.target import parse_target
from replit.config import ReplitConfig

config = ReplitConfig(**json.loads(sys.argv[1]))

def keys():
    for cached in gc.get_objects():
        if isinstance(cached, functools._lru_cache_wrapper) and cached.__module__ == CompileKey.__module__:
            cached.cache_clear()
    pairs = [(a, parse_target(t)) for a in (REPLIT, REFACT) for t in ("cpu", "cuda:sm_90")]
    return {f"{a.gguf_name} {t.name}": CompileKey.of(a, config, {}, t).digest for a, t in pairs}

before, changed = keys(), {}
for name in sys.argv[2:]:
    content = Path(name).read_bytes()
    Path(name).write_bytes(content + b"\\n")
    changed[name] = sorted(key for key, digest in keys().items() if digest != before[key])
    Path(name).write_bytes(content)
print(json.dumps(changed))
"""


def test_a_change_of_any_source_of_a_graph_changes_its_key(model: RandomModel, tmp_path: Path) -> None:
    """Otherwise a graph from the cache would run with the arithmetic that it had before."""
    for package in ("replit", "refact", "weights"):
        kept = shutil.ignore_patterns("__pycache__", "embedded")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=kept)
    command = [sys.executable, "-c", _KEYS, json.dumps(asdict(model.config)), *SOURCES]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {name: set(keys) for name, keys in json.loads(done.stdout).items()} == SOURCES


# Modules that a graph's sources import, and why their change cannot change what a given key compiles to.
WITHOUT_EFFECT = {
    "replit.config": "its values are in the key",
    "refact.config": "its values are in the key",
    "replit.decoder.config": "its values are in the key",
    "replit.decoder.architecture": "declares what the others have",
    "replit.runtime.weight_memory": "encodings and shapes are in the key",
    "weights.errors": "messages",
}


@pytest.mark.parametrize("architecture", ["replit", "refact"])
def test_no_source_of_a_graph_is_missing_from_the_key(architecture: str) -> None:
    known = modules()
    found: set[str] = set()
    ahead = {f"{architecture}.graph"}
    while ahead:
        found |= ahead
        ahead = {new for name in ahead for new in imported_modules(known[name].read_text(), known)}
        ahead -= found | set(WITHOUT_EFFECT)
    sources = {name.removesuffix(".py").replace("/", ".") for name in SOURCES if name.endswith(".py")}
    other = {"replit": "refact.graph", "refact": "replit.graph"}[architecture]
    assert found == sources - {other, "replit.runtime.passes"}


@pytest.mark.parametrize(
    "feature",
    ["sse4_2", "ssse3", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "fma", "f16c", "bmi2", "amx_tile", "amx_int8"],
)
def test_each_instruction_set_that_compiled_code_may_use_is_in_the_key(feature: str) -> None:
    without = "processor\t: 0\nflags\t\t: fpu sse2 ibrs\nbugs\t\t: spectre_v1\n"
    with_it = without.replace("ibrs", f"{feature} ibrs")
    assert cpu_features(without) == "sse2"
    assert set(cpu_features(with_it).split()) == {"sse2", feature}


def test_a_key_in_a_header_is_the_key(key: CompileKey) -> None:
    assert json.loads(json.dumps(key.to_json())) == key.to_json()
    names = {"architecture", "config", "weights", "device", "processor", "max_version", "package", "graph", "kernels"}
    names |= {"layout", "cache"}
    assert set(key.to_json()) == names
    for name in names:
        assert replace(key, **{name: "another"}).digest != key.digest


def test_host_code_of_a_gpus_model_is_for_every_processor_with_avx2(model: RandomModel) -> None:
    flags = "fpu sse2 avx avx2 bmi1 bmi2 f16c fma abm movbe avx512f"
    assert host_level("x86_64", f"processor\t: 0\nflags\t\t: {flags}\n") == "x86-64-v3"
    assert host_level("x86_64", f"flags\t\t: {flags.replace('avx2 ', '')}\n") == "generic"
    assert host_level("aarch64", "Features\t: fp asimd\n") == "generic"
    gpu = CompileKey.of(REPLIT, model.config, {}, parse_target("cuda:sm_90"))
    assert gpu.processor in ("x86-64-v3", "generic")

"""The serialized model file: nothing that does not fit reaches the engine."""

from __future__ import annotations

import hashlib
import json
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from models import RandomModel, random_model
from pipelines.terminal.progress import Quiet
from replit.architecture import REPLIT
from replit.runtime import compiled_file
from replit.runtime.compile import CompileOptions, compile_model
from replit.runtime.compiled_file import CompileKey, check_key, read_compiled, write_compiled
from replit.runtime.target import CPU
from replit.runtime.weight_memory import weight_types
from weights.errors import UserError
from weights.tensor import Encoding


@pytest.fixture(scope="module")
def model() -> RandomModel:
    return random_model(6, 2)


@pytest.fixture
def key(model: RandomModel) -> CompileKey:
    return CompileKey.of(model.config, weight_types(model.tensors(Encoding.FLOAT32), None))


@pytest.fixture
def file(tmp_path: Path, key: CompileKey) -> Path:
    body = tmp_path / "body"
    body.write_bytes(bytes(range(256)) * 40)
    path = tmp_path / "made" / "model.replit"
    write_compiled(path, key, body)
    return path


def test_what_was_written_is_read(file: Path, key: CompileKey) -> None:
    content = read_compiled(file)
    assert content.body == bytes(range(256)) * 40
    check_key(content, key)
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_version": "1.0"}, "was compiled for MAX 26.7.0; expected 1.0"),
        ({"device": "cuda:sm_90"}, "was compiled for the device cpu; expected cuda:sm_90"),
        ({"processor": "x86_64 sse9"}, "was compiled for the processor with or without"),
        ({"kernels": "0" * 64}, "was compiled for the kernels"),
    ],
)
def test_a_difference_is_named(file: Path, key: CompileKey, change: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as error:
        check_key(read_compiled(file), replace(key, **change))
    assert message in str(error.value)
    assert "--save-to-serialized-model-path" in str(error.value)


def test_another_model_is_named_by_what_differs(file: Path, model: RandomModel) -> None:
    other = random_model(4)
    wanted = CompileKey.of(other.config, weight_types(other.tensors(Encoding.FLOAT32), None))
    with pytest.raises(UserError, match="a model with d_model 96; expected 64"):
        check_key(read_compiled(file), wanted)
    half = CompileKey.of(model.config, weight_types(model.tensors(Encoding.BFLOAT16), None))
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

    monkeypatch.setattr(compiled_file.os, "fsync", full)
    target = tmp_path / "out"
    with pytest.raises(UserError, match="cannot write the serialized model .*No space left"):
        write_compiled(target / "m.replit", key, body)
    assert list(target.iterdir()) == []


def test_an_unwritable_place_is_one_line(tmp_path: Path, key: CompileKey) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"x")
    with pytest.raises(UserError, match=r"cannot write the serialized model .*; expected a writable"):
        write_compiled(body / "below-a-file" / "m.replit", key, body)


def test_a_saved_model_is_loaded_without_compiling(
    model: RandomModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLIT_CACHE_DIR", str(tmp_path / "cache"))
    types = weight_types(model.tensors(Encoding.FLOAT32), None)
    path = tmp_path / "model.replit"
    compile_model(model.config, types, CompileOptions(save_to=path), Quiet(), REPLIT)
    (kept,) = (tmp_path / "cache").iterdir()

    def forbidden(*_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr("replit.runtime.compile._compile", forbidden)
    compile_model(model.config, types, CompileOptions(load_from=path), Quiet(), REPLIT)
    compile_model(model.config, types, CompileOptions(), Quiet(), REPLIT)  # from the cache
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(AssertionError, match="compiled again"):  # a damaged one is not trusted
        compile_model(model.config, types, CompileOptions(), Quiet(), REPLIT)


def test_the_digest_follows_the_kernels(key: CompileKey) -> None:
    sources = sorted(CPU.kernels.glob("*.mojo"))
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    assert key.kernels == digest.hexdigest()
    assert json.loads(json.dumps(key.to_json())) == key.to_json()

"""Opening models by path: split GGUF files, directories, and what is no model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from model_files import ModelFile, write_gguf

from weights.errors import UserError
from weights.files.checkpoint import open_checkpoint
from weights.quantization import to_float32


def write_split(directory: Path, parts: list[dict[str, Any]], **keys: int) -> Path:
    """A split model as llama.cpp's gguf-split writes it; returns the first part."""
    total = sum(len(part) for part in parts)
    for number, tensors in enumerate(parts):
        writer = gguf.GGUFWriter(directory / f"m-{number + 1:05}-of-{len(parts):05}.gguf", "mpt")
        writer.add_uint16("split.no", keys.get("no", number))
        writer.add_uint16("split.count", keys.get("count", len(parts)))
        writer.add_int32("split.tensors.count", keys.get("tensors", total))
        for name, array in tensors.items():
            writer.add_tensor(name, array)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return directory / f"m-00001-of-{len(parts):05}.gguf"


PARTS = [{"a": np.ones(8, np.float32)}, {"b": np.full(8, 2, np.float32)}]


@pytest.mark.parametrize("part", [1, 2])
def test_a_split_model_is_loaded_whole(tmp_path: Path, part: int) -> None:
    write_split(tmp_path, PARTS)
    for path in (tmp_path / f"m-{part:05}-of-00002.gguf", tmp_path):
        tensors = open_checkpoint(path).tensors
        assert {name: to_float32(tensor)[0] for name, tensor in tensors.items()} == {
            "a": 1,
            "b": 2,
        }


def test_a_split_model_with_a_part_missing(tmp_path: Path) -> None:
    first = write_split(tmp_path, PARTS)
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(UserError, match=r"is one of 2 parts and m-00002-of-00002.gguf is not beside it"):
        open_checkpoint(first)


@pytest.mark.parametrize(
    ("parts", "keys", "message"),
    [
        (PARTS, {"no": 1}, r"says it is part 1 of 2 \(counted from 0\); expected 0 of 2"),
        (PARTS, {"tensors": 3}, "the parts hold 2 tensors; expected 3"),
        ([PARTS[0], PARTS[0]], {}, "tensor 'a' is in two parts; expected it in one"),
        (PARTS, {"count": 3}, "is one of 3 parts .* expected the name to end in -00001-of-00003"),
    ],
)
def test_a_split_model_that_disagrees(
    tmp_path: Path, parts: list[dict[str, Any]], keys: dict[str, int], message: str
) -> None:
    first = write_split(tmp_path, parts, **keys)
    with pytest.raises(UserError, match=message):
        open_checkpoint(first)


def test_paths_that_are_no_model(tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(UserError) as raised:
            open_checkpoint(path)
        return str(raised.value).replace(str(tmp_path), "DIR")

    assert message(tmp_path / "none.gguf") == (
        "cannot read DIR/none.gguf (No such file or directory); expected a GGUF or safetensors file: check the path"
    )
    assert message(tmp_path) == (
        "DIR holds nothing; expected model.safetensors, its index, a .gguf file or pytorch_model.bin: check the path"
    )
    os.mkfifo(tmp_path / "pipe.gguf")
    assert "pipe.gguf is no regular file; expected" in message(tmp_path / "pipe.gguf")
    for content, found in (
        (b"version https://git-lfs", "is a Git LFS pointer, not the file itself; expected"),
        (b"hello world", "is of an unknown kind (it starts with b'hello wor'); expected"),
        (b"v", "is of an unknown kind (it starts with b'v'); expected"),
    ):
        (tmp_path / "file").write_bytes(content)
        assert found in message(tmp_path / "file")


def test_an_unreadable_file(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", ModelFile())
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("runs as root, whom permissions do not stop")
    with pytest.raises(UserError, match="Permission denied"):
        open_checkpoint(path)


def test_a_choice_of_files_is_refused(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        write_gguf(tmp_path / name, ModelFile())
    with pytest.raises(UserError, match=r"holds a.gguf, b.gguf; expected one model: give the file"):
        open_checkpoint(tmp_path)


def test_what_macos_writes_beside_a_model_is_none(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", ModelFile())
    (tmp_path / "._a.gguf").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X")
    assert open_checkpoint(tmp_path).path == tmp_path / "a.gguf"

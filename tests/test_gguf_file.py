"""GGUF reading, against gguf-py's writer and reader and against files damaged by hand."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from model_files import ModelFile, vocabulary, write_gguf

from weights.errors import UserError
from weights.files.checkpoint import open_checkpoint
from weights.files.gguf_file import read_gguf
from weights.quantization import to_float32
from weights.tensor import Encoding


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor_info(name: str = "a", shape: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0) -> bytes:
    sizes = struct.pack(f"<{len(shape)}Q", *shape)
    return text(name) + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", kind, offset)


def gguf_bytes(
    infos: list[bytes] | None = None,
    pairs: list[bytes] | None = None,
    data: bytes = bytes(32),
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    infos = [tensor_info()] if infos is None else infos
    pairs = pairs or []
    header = b"GGUF" + struct.pack("<IQQ", version, *(counts or (len(infos), len(pairs))))
    header += b"".join(pairs) + b"".join(infos)
    return header + bytes(-len(header) % 32) + data


def error_of(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        read_gguf(path)
    message = str(raised.value)
    assert "\n" not in message
    assert str(path) in message
    assert "expected" in message
    return message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


@pytest.mark.parametrize("bfloat16", [False, True])
def test_reads_what_gguf_py_writes(path: Path, bfloat16: bool) -> None:
    write_gguf(path, ModelFile(bfloat16=bfloat16))
    ours, theirs = read_gguf(path), gguf.GGUFReader(path)
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        mine = ours.tensors[tensor.name]
        assert mine.shape == tuple(reversed(tensor.shape.tolist()))
        assert mine.data.tobytes() == tensor.data.tobytes()
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(mine.shape)
        np.testing.assert_array_equal(to_float32(mine), values)
    stored = {key: field.contents() for key, field in theirs.fields.items() if key[:5] != "GGUF."}
    assert ours.metadata == stored


VALUES: list[tuple[str, Any]] = [
    ("uint8", 200), ("int8", -100), ("uint16", 60000), ("int16", -30000), ("uint32", 1 << 31),
    ("int32", -(1 << 31)), ("float32", 0.5), ("uint64", 1 << 63), ("int64", -(1 << 62)),
    ("float64", 0.1), ("bool", True), ("string", "déjà vu"), ("array", [1, -2]),
    ("array", [0.5, 2.0]), ("array", ["a", "", "é"]), ("array", [True, False]),
]  # fmt: skip


def test_reads_every_kind_of_value(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "any")
    for index, (kind, value) in enumerate(VALUES):
        getattr(writer, f"add_{kind}")(f"key.{index}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    metadata = read_gguf(path).metadata
    for index, (_, value) in enumerate(VALUES):
        read = metadata[f"key.{index}"]
        assert read == value
        assert type(read) is type(value)


def test_version_two_is_read_alike(path: Path) -> None:
    path.write_bytes(gguf_bytes(version=2, data=np.arange(8, dtype="<f4").tobytes()))
    np.testing.assert_array_equal(to_float32(read_gguf(path).tensors["a"]), np.arange(8))


def test_alignment_key_moves_the_data(path: Path) -> None:
    pairs = [pair("general.alignment", 4, struct.pack("<I", 256))]
    header = gguf_bytes(pairs=pairs, data=b"")
    path.write_bytes(header + bytes(256 - len(header)) + np.arange(8, dtype="<f4").tobytes())
    np.testing.assert_array_equal(to_float32(read_gguf(path).tensors["a"]), np.arange(8))


def test_data_is_a_view_of_the_mapped_file(path: Path) -> None:
    write_gguf(path, ModelFile())
    tensor = read_gguf(path).tensors["blk.1.ffn_up.weight"]
    view = tensor.as_array()
    assert np.shares_memory(view, tensor.data)
    assert not view.flags.writeable
    before = view[0, 0]
    content = path.read_bytes()
    position = content.index(tensor.data.tobytes())
    with path.open("r+b") as file:  # what is mapped shows what is in the file
        file.seek(position)
        file.write(struct.pack("<f", 42.0))
    assert before != view[0, 0] == 42.0


def test_opening_reads_no_tensor_data(path: Path) -> None:
    with path.open("wb") as file:  # a sparse file of 8 GiB
        file.write(gguf_bytes([tensor_info(shape=(1 << 16, 1 << 15))], data=b""))
        file.truncate(file.tell() + (1 << 33))
    tensor = read_gguf(path).tensors["a"]
    assert tensor.nbytes == 1 << 33
    assert tensor.shape == (1 << 15, 1 << 16)


def test_truncated_at_any_byte(path: Path, tmp_path: Path) -> None:
    write_gguf(path, ModelFile(n_layers=1))
    content = path.read_bytes()
    ends = [*range(3000), *range(3000, len(content) - 1, 97), len(content) - 32]
    cut = tmp_path / "cut.gguf"
    for end in ends:
        message = error_of(cut, content[:end])
        assert "is empty" in message if end == 0 else "GGUF" in message


DAMAGED = {
    "zero bytes": (b"", "is empty; expected a GGUF or safetensors file: download it again"),
    "another kind": (b"PK\x03\x04" * 9, "is not a GGUF file: it starts with b'PK\\x03\\x04'"),
    "version 1": (
        gguf_bytes(version=1),
        "is GGUF version 1; expected little-endian version 2 or 3",
    ),
    "version 4": (
        gguf_bytes(version=4),
        "is GGUF version 4; expected little-endian version 2 or 3",
    ),
    "big-endian": (
        b"GGUF" + struct.pack(">IQQ", 3, 1, 0) + bytes(99),
        "is big-endian GGUF (version 3); expected little-endian version 2 or 3",
    ),
    "tensor count": (
        gguf_bytes(counts=(1 << 60, 0)),
        f"the tensor count says {1 << 60}, more than",
    ),
    "key count": (gguf_bytes(counts=(1, 1 << 40)), f"the key count says {1 << 40}, more than"),
    "string length": (
        gguf_bytes(pairs=[struct.pack("<Q", 1 << 62)]),
        f"a key has the absurd length {1 << 62}",
    ),
    "array length": (
        gguf_bytes(pairs=[pair("k", 9, struct.pack("<IQ", 5, 1 << 50))]),
        f"the length of 'k' says {1 << 50}, more than",
    ),
    "string array length": (
        gguf_bytes(pairs=[pair("k", 9, struct.pack("<IQ", 8, 1 << 50))]),
        f"the length of 'k' says {1 << 50}, more than",
    ),
    "string in an array": (
        gguf_bytes(pairs=[pair("k", 9, struct.pack("<IQQ", 8, 1, 1 << 50))]),
        "a string of 'k' reaches beyond the end",
    ),
    "key not UTF-8": (
        gguf_bytes(pairs=[struct.pack("<Q", 2) + b"\xff\xfe" + struct.pack("<IB", 0, 1)]),
        "a key is not UTF-8 text",
    ),
    "token not UTF-8": (
        gguf_bytes(pairs=[pair("k", 9, struct.pack("<IQQ", 8, 1, 1) + b"\xff")]),
        "a string of 'k' is not UTF-8 text",
    ),
    "value type": (
        gguf_bytes(pairs=[pair("k", 13, bytes(8))]),
        "'k' has the unknown value type 13",
    ),
    "nested array": (
        gguf_bytes(pairs=[pair("k", 9, struct.pack("<IQ", 9, 1))]),
        "'k' is an array of the unsupported item type 9",
    ),
    "boolean": (gguf_bytes(pairs=[pair("k", 7, b"\x02")]), "'k' is a boolean of value 2"),
    "duplicate key": (gguf_bytes(pairs=[pair("k", 0, b"\1")] * 2), "the key 'k' occurs twice"),
    "alignment zero": (
        gguf_bytes(pairs=[pair("general.alignment", 4, bytes(4))]),
        "general.alignment is 0, not a power of two",
    ),
    "alignment text": (
        gguf_bytes(pairs=[pair("general.alignment", 8, text("32"))]),
        "general.alignment is '32', not a power of two",
    ),
    "no dimensions": (gguf_bytes([tensor_info(shape=())]), "'a' has 0 dimensions"),
    "dimensions": (gguf_bytes([tensor_info(shape=(1,) * 5)]), "'a' has 5 dimensions"),
    "empty shape": (gguf_bytes([tensor_info(shape=(8, 0))]), "'a' has the empty shape [0, 8]"),
    "huge shape": (
        gguf_bytes([tensor_info(shape=(1 << 62, 1 << 62))]),
        "is cut off: 'a' ends at byte",
    ),
    "known type": (
        gguf_bytes([tensor_info(kind=33)]),
        "tensor 'a' is stored as Q4_0_8_8; expected a type that llama-quantize gives to weights",
    ),
    "integer type": (gguf_bytes([tensor_info(kind=26)]), "tensor 'a' is stored as I32; expected"),
    "removed type": (gguf_bytes([tensor_info(kind=4)]), "'a' has the unknown tensor type 4"),
    "unknown type": (gguf_bytes([tensor_info(kind=999)]), "'a' has the unknown tensor type 999"),
    "block": (
        gguf_bytes([tensor_info(shape=(33,), kind=8)]),
        "'a': 33 elements are no whole number of q8_0 blocks",
    ),
    "offset unaligned": (
        gguf_bytes([tensor_info(offset=4)], data=bytes(64)),
        "the offset 4 of 'a' is not a multiple of 32",
    ),
    "offset outside": (
        gguf_bytes([tensor_info(offset=1 << 62)]),
        "is cut off: 'a' ends at byte 4611686018427388000, the file has",
    ),
    "overlap": (
        gguf_bytes([tensor_info(), tensor_info("b", (16,), offset=0)], data=bytes(96)),
        "the data of 'b' overlaps that of 'a'",
    ),
    "duplicate tensor": (
        gguf_bytes([tensor_info(), tensor_info(offset=32)], data=bytes(64)),
        "the tensor 'a' occurs twice",
    ),
}


@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damage_is_named(path: Path, content: bytes, message: str) -> None:
    assert message in error_of(path, content)


FLOATS = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
READ = {FLOATS.get(encoding.value, encoding.name): encoding for encoding in Encoding}


@pytest.mark.parametrize("kind", gguf.GGMLQuantizationType, ids=lambda kind: kind.name)
def test_every_type_of_gguf_py_is_read_or_named(path: Path, kind: gguf.GGMLQuantizationType) -> None:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    content = gguf_bytes([tensor_info(shape=(block,), kind=kind)], data=bytes(size))
    if kind.name in READ:
        path.write_bytes(content)
        assert read_gguf(path).tensors["a"].encoding is READ[kind.name]
    else:
        assert f"tensor 'a' is stored as {kind.name};" in error_of(path, content)


def test_what_can_be_shown_of_a_file_that_cannot_run(path: Path) -> None:
    infos = [tensor_info(), tensor_info("b", kind=26, offset=32), tensor_info("c", offset=64)]
    path.write_bytes(gguf_bytes(infos, data=bytes(70)))
    problems: list[str] = []
    assert list(read_gguf(path, problems).tensors) == ["a", "c"]
    assert len(problems) == 2
    assert "tensor 'b' is stored as I32; expected" in problems[0]
    assert "is cut off: 'c' ends at byte" in problems[1]


def test_block_sizes_are_those_of_gguf_py() -> None:
    for name, encoding in READ.items():
        if not hasattr(gguf.GGMLQuantizationType, name):  # newer than gguf-py
            continue
        kind = gguf.GGMLQuantizationType[name]
        assert (encoding.block_size, encoding.block_bytes) == gguf.GGML_QUANT_SIZES[kind]


def test_the_vocabulary_is_in_the_metadata(path: Path) -> None:
    write_gguf(path, ModelFile())
    assert open_checkpoint(path).metadata["tokenizer.ggml.tokens"] == vocabulary()[0]

"""Reader of GGUF files (versions 2 and 3, little-endian), by memory map.

Everything in the header is checked against the size of the file before anything is allocated,
so a damaged file ends in a UserError. Deliberately not here: writing (gguf-py does it) and the
meaning of keys.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weights.errors import UserError
from weights.files.mapped_file import map_file
from weights.tensor import Encoding, Tensor, stored_bytes

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4  # GGML_MAX_DIMS
# Far above real headers (the largest vocabularies have 500 000 merges, the longest texts 10 MB):
# what a damaged count inside a file of many gigabytes may make us allocate.
MAX_ITEMS = 1 << 22
MAX_STRING = 1 << 25

# Value types of the GGUF specification: struct format of the fixed-size ones.
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_BOOL, _STRING, _ARRAY = 7, 8, 9
# Converters of 2023 wrote a vocabulary's raw bytes here; they come as Python's lone surrogates.
_RAW_STRINGS = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges")
_UINT32 = 4

# ggml's type numbers; those without an encoding (no model's weights, or gone from ggml) are refused by name.
_ENCODINGS = {
    0: Encoding.FLOAT32,
    1: Encoding.FLOAT16,
    2: Encoding.Q4_0,
    3: Encoding.Q4_1,
    6: Encoding.Q5_0,
    7: Encoding.Q5_1,
    8: Encoding.Q8_0,
    10: Encoding.Q2_K,
    11: Encoding.Q3_K,
    12: Encoding.Q4_K,
    13: Encoding.Q5_K,
    14: Encoding.Q6_K,
    16: Encoding.IQ2_XXS,
    17: Encoding.IQ2_XS,
    18: Encoding.IQ3_XXS,
    19: Encoding.IQ1_S,
    20: Encoding.IQ4_NL,
    21: Encoding.IQ3_S,
    22: Encoding.IQ2_S,
    23: Encoding.IQ4_XS,
    28: Encoding.FLOAT64,
    29: Encoding.IQ1_M,
    30: Encoding.BFLOAT16,
    34: Encoding.TQ1_0,
    35: Encoding.TQ2_0,
    39: Encoding.MXFP4,
    40: Encoding.NVFP4,
    41: Encoding.Q1_0,
    42: Encoding.Q2_0,
}
_OTHER_TYPES = {
    9: "Q8_1", 15: "Q8_K", 24: "I8", 25: "I16", 26: "I32", 27: "I64",
    31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8", 36: "IQ4_NL_4_4", 37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8",
}  # fmt: skip


@dataclass(frozen=True)
class GgufFile:
    """A parsed header: key-values as Python values, tensors by name in file order."""

    version: int
    metadata: dict[str, Any]
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class _TensorInfo:
    name: str
    shape: tuple[int, ...]
    encoding: Encoding
    offset: int  # from the start of the data section
    nbytes: int


class _Header:
    """Bounds-checked little-endian reads that walk through the header."""

    def __init__(self, buffer: mmap.mmap, path: Path, problems: list[str] | None) -> None:
        self.buffer = buffer
        self.path = path
        self.problems = problems
        self.size = len(buffer)
        self.position = 0

    def error(self, found: str) -> UserError:
        return UserError(
            f"{self.path} is damaged: {found} at byte {self.position} of {self.size}; "
            "expected a whole GGUF file: download or convert it again"
        )

    def report(self, error: UserError) -> None:
        """Raise what keeps the model from running but not from being shown, or note it where that is asked for."""
        if self.problems is None:
            raise error
        self.problems.append(str(error))

    def need(self, size: int, what: str) -> None:
        """Raise unless `size` more bytes exist; called before any allocation of that size."""
        if size > self.size - self.position:
            raise self.error(f"{what} needs {size} bytes, {self.size - self.position} are left")

    def scalar(self, form: str, what: str) -> Any:
        size = struct.calcsize("<" + form)
        self.need(size, what)
        value = struct.unpack_from("<" + form, self.buffer, self.position)[0]
        self.position += size
        return value

    def u32(self, what: str) -> int:
        return int(self.scalar("I", what))

    def u64(self, what: str) -> int:
        return int(self.scalar("Q", what))

    def string(self, what: str) -> str:
        size = self.u64(what)
        if size > MAX_STRING:
            raise self.error(f"{what} has the absurd length {size}")
        self.need(size, what)
        raw = self.buffer[self.position : self.position + size]
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.error(f"{what} is not UTF-8 text") from None
        self.position += size
        return text

    def count(self, minimum_size: int, what: str) -> int:
        """A count of items that take at least `minimum_size` bytes each."""
        count = self.u64(what)
        if count > MAX_ITEMS or count * minimum_size > self.size - self.position:
            raise self.error(f"{what} says {count}, more than such a file can hold,")
        return count


def read_gguf(path: Path, problems: list[str] | None = None) -> GgufFile:
    """Map and parse `path`; tensor data is not touched.

    Raises UserError for everything that is not a sound GGUF file of a supported version. With `problems`, data that
    is cut off and tensors of types without an encoding end up there, and the rest is read.
    """
    header = _Header(map_file(path), path, problems)
    version = _read_version(header)
    tensor_count = header.count(8 + 4 + 8 + 4 + 8, "the tensor count")
    pair_count = header.count(8 + 4 + 1, "the key count")
    metadata: dict[str, Any] = {}
    for _ in range(pair_count):
        key, value = _read_pair(header)
        if key in metadata:
            raise header.error(f"the key {key!r} occurs twice, again")
        metadata[key] = value
    alignment = _alignment(header, metadata)
    infos = [info for _ in range(tensor_count) if (info := _read_tensor_info(header, alignment))]
    return GgufFile(version, metadata, _map_tensors(header, infos, alignment))


def _read_version(header: _Header) -> int:
    if header.buffer[: len(MAGIC)] != MAGIC:
        raise UserError(
            f"{header.path} is not a GGUF file: it starts with {header.buffer[:4]!r}, expected "
            f"{MAGIC!r}; give a .gguf file"
        )
    header.position = len(MAGIC)
    version = header.u32("the version")
    if version in (2, 3):
        return version
    swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
    found = f"big-endian GGUF (version {swapped})" if swapped in (1, 2, 3) else f"GGUF version {version}"
    raise UserError(
        f"{header.path} is {found}; expected little-endian version 2 or 3: "
        "convert the model again with a current converter"
    )


def _read_pair(header: _Header) -> tuple[str, Any]:
    key = header.string("a key")
    kind = header.u32(f"the type of {key!r}")
    if kind != _ARRAY:
        return key, _read_value(header, kind, key)
    item_kind = header.u32(f"the item type of {key!r}")
    return key, _read_array(header, item_kind, key)


def _read_value(header: _Header, kind: int, key: str) -> Any:
    if kind == _STRING:
        return header.string(f"the value of {key!r}")
    if kind not in _SCALARS:
        raise header.error(f"{key!r} has the unknown value type {kind}")
    if kind == _BOOL:
        return _boolean(header, header.scalar("B", f"the value of {key!r}"), key)
    return header.scalar(_SCALARS[kind], f"the value of {key!r}")


def _boolean(header: _Header, byte: int, key: str) -> bool:
    if byte > 1:
        raise header.error(f"{key!r} is a boolean of value {byte}")
    return bool(byte)


def _read_array(header: _Header, kind: int, key: str) -> list[Any]:
    if kind == _STRING:
        return _read_strings(header, key)
    if kind not in _SCALARS:
        raise header.error(f"{key!r} is an array of the unsupported item type {kind}")
    form = "B" if kind == _BOOL else _SCALARS[kind]
    size = struct.calcsize("<" + form)
    count = header.count(size, f"the length of {key!r}")
    values = np.frombuffer(header.buffer, "<" + form, count, header.position).tolist()
    header.position += count * size
    return [_boolean(header, value, key) for value in values] if kind == _BOOL else values


def _read_strings(header: _Header, key: str) -> list[str]:
    """Vocabularies have 100 000 strings, so this loop is flat: 10 times `Header.string`'s speed."""
    count = header.count(8, f"the length of {key!r}")
    buffer, position, end = header.buffer, header.position, header.size
    length_at = struct.Struct("<Q").unpack_from
    strings = []
    errors = "surrogateescape" if key in _RAW_STRINGS else "strict"
    try:
        for _ in range(count):
            start = position + 8
            position = start + length_at(buffer, position)[0]
            if position > end:
                raise header.error(f"a string of {key!r} reaches beyond the end")
            strings.append(buffer[start:position].decode("utf-8", errors))
    except struct.error:
        raise header.error(f"the strings of {key!r} reach beyond the end") from None
    except UnicodeDecodeError:
        raise header.error(f"a string of {key!r} is not UTF-8 text") from None
    header.position = position
    return strings


def _alignment(header: _Header, metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise header.error(f"general.alignment is {alignment!r}, not a power of two,")
    return alignment


def _read_tensor_info(header: _Header, alignment: int) -> _TensorInfo | None:
    """None for a type without an encoding that was reported."""
    name = header.string("a tensor name")
    dimensions = header.u32(f"the dimension count of {name!r}")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise header.error(f"{name!r} has {dimensions} dimensions")
    # GGUF stores the fastest-varying dimension first, NumPy's shape is the reverse.
    shape = tuple(header.u64(f"the shape of {name!r}") for _ in range(dimensions))[::-1]
    if 0 in shape:
        raise header.error(f"{name!r} has the empty shape {list(shape)}")
    number = header.u32(f"the type of {name!r}")
    offset = header.u64(f"the offset of {name!r}")
    if offset % alignment:
        raise header.error(f"the offset {offset} of {name!r} is not a multiple of {alignment},")
    encoding = _encoding(header, number, name)
    if encoding is None:
        return None
    try:
        return _TensorInfo(name, shape, encoding, offset, stored_bytes(shape, encoding))
    except ValueError as error:
        raise header.error(f"{name!r}: {error},") from None


def _encoding(header: _Header, number: int, name: str) -> Encoding | None:
    if number in _ENCODINGS:
        return _ENCODINGS[number]
    if number not in _OTHER_TYPES:
        raise header.error(f"{name!r} has the unknown tensor type {number}")
    error = UserError(
        f"{header.path}: tensor {name!r} is stored as {_OTHER_TYPES[number]}; expected a type "
        "that llama-quantize gives to weights: quantize the original again, for example to Q4_K_M"
    )
    header.report(error)
    return None


def _map_tensors(header: _Header, infos: list[_TensorInfo], alignment: int) -> dict[str, Tensor]:
    """Views of the data section, each inside the file and none overlapping another."""
    start = -(-header.position // alignment) * alignment
    everything = np.frombuffer(header.buffer, np.uint8)
    end_of_last, last = 0, ""
    for info in sorted(infos, key=lambda info: info.offset):
        if info.offset < end_of_last:
            raise header.error(f"the data of {info.name!r} overlaps that of {last!r}; header ends")
        end_of_last, last = info.offset + info.nbytes, info.name
        if start + end_of_last > header.size:
            error = f"{header.path} is cut off: {last!r} ends at byte {start + end_of_last}, the file has {header.size}"
            header.report(UserError(f"{error}; expected a whole GGUF file: download it again"))
            break
    tensors: dict[str, Tensor] = {}
    for info in infos:
        if info.name in tensors:
            raise header.error(f"the tensor {info.name!r} occurs twice; header ends")
        data = everything[start + info.offset : start + info.offset + info.nbytes]
        tensors[info.name] = Tensor(info.name, info.shape, info.encoding, data)
    return tensors

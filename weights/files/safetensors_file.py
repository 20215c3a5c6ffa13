"""Reader of safetensors files and of their shard index, by memory map.

The `safetensors` library copies what it hands to NumPy and cannot say bfloat16 there, hence our own
reader of a header that is one JSON object; it checks what the library checks.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from weights.errors import UserError
from weights.files.directory import SAFETENSORS_INDEX, add_tensors, split_parts
from weights.files.mapped_file import LARGEST_JSON, map_file, parse_json, read_json
from weights.files.paths import exists, listed
from weights.tensor import Encoding, Tensor, stored_bytes

LARGEST_HEADER = LARGEST_JSON
MAX_DIMENSIONS = 8
LARGEST_SIZE = 1 << 63

_ENCODINGS = {"F64": Encoding.FLOAT64, "F32": Encoding.FLOAT32, "F16": Encoding.FLOAT16, "BF16": Encoding.BFLOAT16}
_LENGTH = struct.Struct("<Q")


def _damaged(path: Path, found: str) -> UserError:
    return UserError(f"{path} is damaged: {found}; expected a whole safetensors file: download it again")


def looks_like_safetensors(start: bytes) -> bool:
    """Whether nine bytes can begin a safetensors file: a header length, then an opening brace."""
    return len(start) > _LENGTH.size and start[_LENGTH.size] == ord("{")


def read_safetensors(path: Path, problems: list[str] | None = None) -> dict[str, Tensor]:
    """Map and parse `path`; tensors by name in file order, their data untouched.

    Raises UserError for everything that is not a sound safetensors file of float tensors. With `problems`, tensors
    of other types end up there, and the rest is read.
    """
    buffer = map_file(path)
    header, start = _read_header(path, buffer)
    data = np.frombuffer(buffer, np.uint8)[start:]
    header.pop("__metadata__", None)
    end = 0
    tensors: dict[str, Tensor] = {}
    spans = {name: _span(path, name, entry) for name, entry in header.items()}
    for name in sorted(spans, key=lambda name: spans[name]):
        begin, stop = spans[name]
        if begin != end:
            raise _damaged(path, f"tensor {name!r} starts at byte {begin} of the data, not at {end}")
        if stop > data.nbytes:
            raise _damaged(path, f"tensor {name!r} ends at byte {stop} of {data.nbytes} of data")
        end = stop
        if (wrong := _other_type(path, name, header[name])) is None:
            tensors[name] = _tensor(path, name, header[name], data[begin:stop])
        elif problems is None:
            raise wrong
        else:
            problems.append(str(wrong))
    if end != data.nbytes:
        raise _damaged(path, f"{data.nbytes - end} bytes at the end belong to no tensor")
    return tensors


def _read_header(path: Path, buffer: mmap.mmap) -> tuple[dict[str, Any], int]:
    """The header's JSON object, and where the data starts."""
    if not looks_like_safetensors(buffer[: _LENGTH.size + 1]):
        raise UserError(
            f"{path} is not a safetensors file (it starts with {buffer[:9]!r}); expected one: "
            "give a .safetensors or .gguf file"
        )
    (length,) = _LENGTH.unpack_from(buffer)
    start = _LENGTH.size + length
    if length > LARGEST_HEADER or start > len(buffer):
        raise _damaged(path, f"its header says it has {length} bytes, the file has {len(buffer)}")
    return parse_json(buffer[_LENGTH.size : start], f"the header of {path}"), start


def _span(path: Path, name: str, entry: Any) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if _are_sizes(offsets) and len(offsets) == 2 and offsets[0] <= offsets[1]:
        return offsets[0], offsets[1]
    raise _damaged(path, f"tensor {name!r} has the data_offsets {offsets!r}")


def _other_type(path: Path, name: str, entry: dict[str, Any]) -> UserError | None:
    kind = entry.get("dtype")
    if isinstance(kind, str) and kind in _ENCODINGS:
        return None
    return UserError(
        f"{path}: tensor {name!r} is stored as {kind!r}; expected one of "
        f"{', '.join(_ENCODINGS)}: save the model again in one of these"
    )


def _tensor(path: Path, name: str, entry: dict[str, Any], data: Any) -> Tensor:
    kind, shape = entry["dtype"], entry.get("shape")
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise _damaged(path, f"tensor {name!r} has the shape {str(shape)[:80]}")
    encoding = _ENCODINGS[kind]
    expected = stored_bytes(tuple(shape), encoding)
    if data.nbytes != expected:
        raise _damaged(path, f"tensor {name!r} has {data.nbytes} bytes, its shape needs {expected}")
    return Tensor(name, tuple(shape), encoding, data)


def _are_sizes(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < LARGEST_SIZE for value in values)


def read_sharded(index: Path, problems: list[str] | None = None) -> dict[str, Tensor]:
    """All tensors of the shards that a `*.safetensors.index.json` lists; `problems` as for `read_safetensors`.

    Raises UserError for a damaged index or shard, and where the two disagree.
    """
    shards = index_shards(index)
    missing = [shard for shard in shards if not exists(index.parent / shard)]
    if missing:
        raise UserError(
            f"{index} names {len(shards)} shards and {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not "
            f"beside it; expected all of them: download {missing[0]} too"
        )
    shard_of = _weight_map(index)
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        found = read_safetensors(index.parent / shard, problems)
        listed = {name for name, file in shard_of.items() if file == shard}
        if listed != set(found) and shard_of and not problems:
            name = min(listed ^ set(found))
            raise UserError(
                f"{index} and {shard} disagree about tensor {name!r}; expected every tensor of a "
                f"shard in the index and the reverse: download both again, or remove {index.name}"
            )
        add_tensors(index, tensors, found)
    return tensors


def index_shards(index: Path) -> list[str]:
    """The file names of the shards that an index lists; those beside it, for an index that lists none."""
    return sorted(set(_weight_map(index).values())) or _numbered_shards(index)


def _numbered_shards(index: Path) -> list[str]:
    """The files beside an index that are numbered as shards are, where they are all of one model."""
    stem = index.name.removesuffix(SAFETENSORS_INDEX)
    for path in listed(index.parent):
        parts = split_parts(path.name)
        if len(parts) > 1 and path.name.startswith(f"{stem}-") and path.suffix == ".safetensors":
            return parts
    raise UserError(
        f"{index} has no weight_map; expected one that names the shard of each tensor: download it again, or the "
        "shards that it is for"
    )


def _weight_map(index: Path) -> dict[str, str]:
    """The shard of each tensor; {} for an index of another layout, which names none."""
    content = read_json(index)
    names = content.get("weight_map", content)
    if not isinstance(names, dict) or not any(str(shard).endswith(".safetensors") for shard in names.values()):
        return {}
    for shard in names.values():
        # A plain name only: an index must not make us open files elsewhere.
        if not isinstance(shard, str) or Path(shard).name != shard or not shard:
            raise UserError(f"{index} names the shard {shard!r}; expected a file beside the index: download it again")
    return names

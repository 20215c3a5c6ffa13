"""Read-only memory maps of model files and small JSON files, and the errors of opening them."""

from __future__ import annotations

import json
import mmap
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from weights.errors import UserError, reason

EXPECTED = "a GGUF or safetensors file"
LARGEST_JSON = 100 << 20  # the limit of the safetensors library; real ones take up to 20 MB


def map_file(path: Path, expected: str = EXPECTED) -> mmap.mmap:
    """Map a whole file read-only; the map lives as long as an array views it.

    Raises UserError if the file cannot be opened, is no regular file or is empty.
    """
    check_regular(path, expected)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise _unreadable(path, error, expected) from None
    raise UserError(f"{path} is empty; expected {expected}: download it again")


def release_pages(data: npt.NDArray[np.uint8]) -> bool:
    """Stop counting the pages under `data` as this process's, if it is part of a read-only map; says whether it is.

    They stay in the system's cache. Pages that were read add up to the whole file beside what was made of it.
    """
    file = _memory_of(data)
    if not isinstance(file, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED") or not memoryview(file).readonly:
        return False
    offset = data.ctypes.data - np.frombuffer(file, np.uint8).ctypes.data
    start = offset // mmap.PAGESIZE * mmap.PAGESIZE
    file.madvise(mmap.MADV_DONTNEED, start, offset + data.nbytes - start)
    return True


def _memory_of(data: Any) -> Any:
    """What an array's memory belongs to, through views of views; a view of other memory names its `owner`."""
    while True:
        if isinstance(data, np.ndarray):
            data = data.base
        elif isinstance(data, memoryview):
            data = data.obj
        elif hasattr(data, "owner"):
            data = data.owner
        else:
            return data


def check_regular(path: Path, expected: str = EXPECTED) -> None:
    """Raise UserError for what does not exist and for what opening would wait on forever."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise _unreadable(path, error, expected) from None
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "no regular file"
        raise UserError(f"{path} is {kind}; expected {expected}: check the path")


def _unreadable(path: Path, error: Exception, expected: str) -> UserError:
    return UserError(f"cannot read {path} ({reason(error)}); expected {expected}: check the path")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; UserError for anything else."""
    expected = "a JSON object"
    check_regular(path, expected)
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise UserError(f"{path} is larger than {LARGEST_JSON} bytes; expected {expected}")
        return parse_json(path.read_bytes(), str(path))
    except OSError as error:
        raise _unreadable(path, error, expected) from None


def parse_json(raw: bytes, source: str) -> dict[str, Any]:
    """A JSON object whose keys occur once each; UserError for anything else."""
    try:
        value = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source} holds no valid JSON ({error}); expected a JSON object: download it again") from None
    if not isinstance(value, dict):
        raise UserError(f"{source} holds {type(value).__name__}; expected a JSON object")
    return value


def json_object(raw: bytes) -> dict[str, Any] | None:
    """The JSON object in a line of JSON lines; None for anything else."""
    try:
        value = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON lets a key occur twice; which one counts differs between readers, so none does."""
    result = dict(pairs)
    if len(result) != len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {name!r} occurs twice")
    return result

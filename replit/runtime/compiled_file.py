"""The serialized model: our header and MAX's compiled body in one file.

The engine trusts whatever it reads, so everything that could make it compute something else is checked here first:
the file's own digests, and everything that the body was compiled from (`CompileKey`).
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replit.runtime.compile_key import CompileKey
from weights.atomic_write import written_whole
from weights.errors import UserError

FORMAT_VERSION = 2
_MAGIC = b"RPLTMAX\x00"
# magic, format version, bytes of the header, sha256 of the header
_PREFIX = struct.Struct("<8sII32s")
_MAX_HEADER_BYTES = 16 << 20


@dataclass(frozen=True)
class CompiledFile:
    """A serialized model that was read whole and whose digests are right."""

    path: Path
    header: Mapping[str, Any]
    body: bytes


def read_compiled(path: Path) -> CompiledFile:
    """Reads a serialized model and checks its digests.

    Raises UserError for a file that cannot be read, is of another kind or format, or is damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read the serialized model {path}: {error.strerror}; expected a file made with "
            "--save-to-serialized-model-path"
        ) from None
    header, start = _parse_header(path, content)
    body = content[start:]
    if hashlib.sha256(body).hexdigest() != header.get("body_sha256"):
        raise _damaged(path, "its contents do not have the recorded checksum")
    return CompiledFile(path, header, body)


def read_header(path: Path) -> Mapping[str, Any]:
    """The header of a serialized model, for `replit inspect`. Raises UserError like `read_compiled`."""
    return read_compiled(path).header


def is_compiled_file(path: Path) -> bool:
    """Whether the file begins like a serialized model."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def check_key(file: CompiledFile, key: CompileKey) -> None:
    """Raises UserError naming the first thing in which `file` differs from what is to run."""
    found, wanted = file.header["key"], key.to_json()
    for name, what in _WHAT.items():
        if found.get(name) == wanted[name]:
            continue
        was, expected = _difference(found.get(name), wanted[name])
        raise UserError(
            f"{file.path} was compiled for {what} {was}; expected {expected}: leave out "
            "--serialized-model-path, or make the file again with --save-to-serialized-model-path"
        )


# In the order of how much they tell: a different configuration also has different weights.
_WHAT = {
    "device": "the device",
    "layout": "weights that lie in",
    "cache": "a key-value cache in",
    "max_version": "MAX",
    "processor": "the processor",
    "architecture": "the architecture",
    "config": "a model with",
    "weights": "weights with",
    "package": "version",
    "graph": "the graph",
    "kernels": "the kernels",
}


def _difference(found: Any, wanted: Any) -> tuple[str, str]:
    """The first differing entry of two mappings, or the features that differ, or the values."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in [*wanted, *found]:
            if found.get(name) != wanted.get(name):
                return f"{name} {_text(found.get(name))}", _text(wanted.get(name))
    if isinstance(found, str) and isinstance(wanted, str) and " " in found + wanted:
        extra = set(found.split()) ^ set(wanted.split())
        return f"with or without {', '.join(sorted(extra))}", "the features of this one"
    return _text(found)[:80], _text(wanted)[:80]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(str(v) for v in value)
    return "absent" if value is None else str(value)


def write_compiled(path: Path, key: CompileKey, body: Path) -> None:
    """Writes header and body to `path`, which appears only when complete.

    Raises UserError where it cannot be written; nothing is left behind then.
    """
    content = body.read_bytes()
    header = json.dumps({"key": key.to_json(), "body_sha256": hashlib.sha256(content).hexdigest()}).encode()
    prefix = _PREFIX.pack(_MAGIC, FORMAT_VERSION, len(header), hashlib.sha256(header).digest())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as temporary, temporary.open("wb") as file:
            file.writelines((prefix, header, content))
    except OSError as error:
        raise UserError(
            f"cannot write the serialized model {path}: {error.strerror}; expected a writable place "
            f"with {len(content) >> 20} MB free: give another path"
        ) from None


def _parse_header(path: Path, content: bytes) -> tuple[dict[str, Any], int]:
    if len(content) < _PREFIX.size or not content.startswith(_MAGIC):
        raise UserError(f"{path} is not a serialized model; expected a file made with --save-to-serialized-model-path")
    _, version, size, digest = _PREFIX.unpack_from(content)
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path} has the format version {version}; expected {FORMAT_VERSION}: make it again "
            "with --save-to-serialized-model-path"
        )
    header = content[_PREFIX.size : _PREFIX.size + size]
    if size > _MAX_HEADER_BYTES or hashlib.sha256(header).digest() != digest:
        raise _damaged(path, "its header does not have the recorded checksum")
    parsed: dict[str, Any] = json.loads(header)
    return parsed, _PREFIX.size + size


def _damaged(path: Path, how: str) -> UserError:
    return UserError(
        f"{path} is damaged: {how}; expected it as it was written: make it again with --save-to-serialized-model-path"
    )

"""The serialized model: our header and MAX's compiled body in one file.

The engine trusts whatever it reads, so everything that could make it compute something else is checked here first:
the file's own digests, and everything that the body was compiled from (`CompileKey`). None of it tells who made the
file: its body is native code, which loading runs. Where it comes from elsewhere, its sha256 can be asked for.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replit.runtime.compile_key import CompileKey
from weights.atomic_write import written_whole
from weights.errors import UserError, reason

FORMAT_VERSION = 2
_MAGIC = b"RPLTMAX\x00"
# magic, format version, bytes of the header, sha256 of the header
_PREFIX = struct.Struct("<8sII32s")
_MAX_HEADER_BYTES = 16 << 20
# How MAX's compiled models begin. What does not, MAX takes for a path, and opens it.
_BODY_MAGIC = b"\xee\xf0\x03"
_LEAST_BODY_BYTES = 64


@dataclass(frozen=True)
class CompiledFile:
    """A serialized model that was read whole and whose digests are right."""

    path: Path
    header: Mapping[str, Any]
    body: bytes


def read_compiled(path: Path, sha256: str | None = None) -> CompiledFile:
    """Reads a serialized model and checks its digests, and that of the whole file where `sha256` is given.

    Raises UserError for a file that cannot be read, is of another kind or format, or is damaged.
    """
    content = _read_whole(path)
    if sha256 is not None:
        _check_sha256(path, content, sha256)
    header, start = _parse_header(path, content)
    body = content[start:]
    if hashlib.sha256(body).hexdigest() != header["body_sha256"]:
        raise _damaged(path, "its contents do not have the recorded checksum")
    if len(body) < _LEAST_BODY_BYTES or not body.startswith(_BODY_MAGIC):
        raise _damaged(path, "what follows its header is no compiled model")
    return CompiledFile(path, header, body)


def _read_whole(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a FIFO or a terminal would be waited for, /dev/zero never ends
            raise UserError(
                f"{path} is no regular file; expected a serialized model, made with --save-to-serialized-model-path"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read the serialized model {path}: {reason(error)}; expected a file made with "
            "--save-to-serialized-model-path"
        ) from None


def _check_sha256(path: Path, content: bytes, wanted: str) -> None:
    if re.fullmatch(r"[0-9a-fA-F]{64}", wanted) is None:
        raise UserError(
            f"--serialized-model-sha256 is {wanted[:80]!r}; expected 64 hexadecimal digits, as sha256sum prints them"
        )
    found = hashlib.sha256(content).hexdigest()
    if found != wanted.lower():
        raise UserError(f"{path} has the sha256 {found}; expected {wanted.lower()}: it is another file, do not load it")


def read_header(path: Path) -> Mapping[str, Any]:
    """The header of a serialized model, for `replit inspect`. Raises UserError like `read_compiled`."""
    return read_compiled(path).header


def read_header_alone(path: Path) -> Mapping[str, Any]:
    """The header without the rest, which may be long. Raises UserError for a file that has none."""
    try:
        if not path.is_file():
            raise UserError(f"{path} is no regular file; expected a serialized model")
        with path.open("rb") as file:
            content = file.read(_PREFIX.size)
            if len(content) == _PREFIX.size:
                content += file.read(min(_PREFIX.unpack(content)[2], _MAX_HEADER_BYTES))
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}; expected a serialized model") from None
    return _parse_header(path, content)[0]


def is_compiled_file(path: Path) -> bool:
    """Whether the file begins like a serialized model."""
    try:
        if not path.is_file():  # a FIFO would be waited for
            return False
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
            f"cannot write the serialized model {path}: {reason(error)}; expected a writable place "
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
    try:
        parsed = json.loads(header)
    except (ValueError, RecursionError):
        parsed = None
    if not (isinstance(parsed, dict) and isinstance(parsed.get("key"), dict)):
        raise _damaged(path, "its header does not say what it was compiled from")
    if not isinstance(parsed.get("body_sha256"), str):
        raise _damaged(path, "its header has no checksum of the rest")
    return parsed, _PREFIX.size + size


def _damaged(path: Path, how: str) -> UserError:
    return UserError(
        f"{path} is damaged: {how}; expected it as it was written: make it again with --save-to-serialized-model-path"
    )

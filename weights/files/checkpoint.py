"""Opens a model by path: a GGUF or safetensors file, a shard index, or a hub-style directory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from weights.errors import UserError
from weights.files.gguf_file import MAGIC, read_gguf
from weights.files.mapped_file import EXPECTED, map_file, read_json
from weights.files.safetensors_file import (
    INDEX_SUFFIX,
    looks_like_safetensors,
    read_safetensors,
    read_sharded,
)
from weights.tensor import Tensor

# llama.cpp's naming of a split model, with the first part counted as 1.
_SPLIT_NAME = re.compile(r"(?P<stem>.*)-(?P<part>\d{5})-of-(?P<count>\d{5})\.gguf")
MAX_PARTS = 1000


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by the names in the file, and what the file says about the model.

    `metadata` holds GGUF's key-values, or the config.json beside safetensors files ({} if there
    is none).
    """

    path: Path
    format: Literal["gguf", "safetensors"]
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any]

    @property
    def directory(self) -> Path:
        """Where the files that accompany the weights lie."""
        return self.path if self.path.is_dir() else self.path.parent


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Map the model at `path`, checking all headers; tensor data is not read.

    Raises UserError for a missing, unreadable, unknown or damaged file.
    """
    path = Path(path)
    return open_file(weights_in(path) if path.is_dir() else path)


def open_file(path: Path) -> Checkpoint:
    """As `open_checkpoint`, for a file: which kind it is, its first bytes say, not its name."""
    if path.name.endswith(INDEX_SUFFIX):
        return Checkpoint(path, "safetensors", read_sharded(path), _config_beside(path))
    start = map_file(path)[:9]
    if start[:4] in (MAGIC, MAGIC[::-1]):
        return _open_gguf(path)
    if looks_like_safetensors(start):
        return Checkpoint(path, "safetensors", read_safetensors(path), _config_beside(path))
    raise UserError(f"{path} is {_guess(start)}; expected {EXPECTED}: {_remedy(start)}")


def _guess(start: bytes) -> str:
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return "a PyTorch file"
    if start == b"version h":
        return "a Git LFS pointer, not the file itself"
    return f"of an unknown kind (it starts with {start!r})"


def _remedy(start: bytes) -> str:
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return "save the model with safe_serialization=True, or convert it to GGUF"
    return "check the path or download it again"


def _config_beside(path: Path) -> Mapping[str, Any]:
    config = path.parent / "config.json"
    return read_json(config) if config.exists() else {}


def weights_in(directory: Path) -> Path:
    """The one file to open in a hub-style directory; UserError if there is none or a choice."""
    for name in ("model" + INDEX_SUFFIX, "model.safetensors"):
        if (directory / name).exists():
            return directory / name
    for pattern in ("*.safetensors", "*.gguf"):
        found = sorted(path for path in directory.glob(pattern) if _is_first_part(path))
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise UserError(f"{directory} holds {names}; expected one model: give the file itself")
        if found:
            return found[0]
    held = ", ".join(sorted(path.name for path in directory.iterdir())[:5]) or "nothing"
    raise UserError(f"{directory} holds {held}; expected model.safetensors, its index or a .gguf file: check the path")


def _is_first_part(path: Path) -> bool:
    return split_parts(path.name)[0] == path.name


def split_parts(name: str) -> list[str]:
    """The file names of all parts of a split GGUF, just `name` where it does not name a part."""
    split = _SPLIT_NAME.fullmatch(name)
    if split is None or not 1 <= int(split["count"]) <= MAX_PARTS:
        return [name]
    count = int(split["count"])
    return [f"{split['stem']}-{part:05}-of-{count:05}.gguf" for part in range(1, count + 1)]


def _open_gguf(path: Path) -> Checkpoint:
    file = read_gguf(path)
    parts = file.metadata.get("split.count", 0)
    if type(parts) is not int or parts <= 1:
        return Checkpoint(path, "gguf", file.tensors, file.metadata)
    return _open_split(path, parts)


def _open_split(path: Path, parts: int) -> Checkpoint:
    """All parts of a split model; the keys are those of the first."""
    names = split_parts(path.name)
    if len(names) != parts:
        raise UserError(
            f"{path} is one of {parts} parts of a split GGUF; expected the name to end in "
            f"-00001-of-{parts:05}.gguf: restore the parts' original names"
        )
    files = [read_gguf(path.parent / name) for name in names]
    tensors: dict[str, Tensor] = {}
    for number, (name, file) in enumerate(zip(names, files, strict=True)):
        if file.metadata.get("split.no") != number or file.metadata.get("split.count") != parts:
            raise UserError(
                f"{path.parent / name} says it is part {file.metadata.get('split.no')!r} of "
                f"{file.metadata.get('split.count')!r} (counted from 0); expected {number} of "
                f"{parts}: download the parts again"
            )
        if twice := tensors.keys() & file.tensors.keys():
            raise UserError(f"{path}: tensor {min(twice)!r} is in two parts; expected it in one")
        tensors |= file.tensors
    total = files[0].metadata.get("split.tensors.count", len(tensors))
    if total != len(tensors):
        raise UserError(f"{path}: the parts hold {len(tensors)} tensors; expected {total!r}")
    return Checkpoint(path, "gguf", tensors, files[0].metadata)

"""Opens a model by path: a GGUF or safetensors file, a safetensors index, or a hub-style directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from weights.errors import UserError
from weights.gguf_file import MAGIC, read_gguf
from weights.tensor import Tensor


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


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Map the model at `path`, checking all headers; tensor data is not read.

    Raises UserError for a missing, unreadable, unknown or damaged file.
    """
    path = Path(path)
    return _open_gguf(path)


def _open_gguf(path: Path) -> Checkpoint:
    file = read_gguf(path)
    return Checkpoint(path, "gguf", file.tensors, file.metadata)

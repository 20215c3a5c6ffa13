"""Read-only memory maps of model files, and the errors of opening one."""

from __future__ import annotations

import mmap
from pathlib import Path


def map_file(path: Path) -> mmap.mmap:
    """Map a whole file read-only; the map lives as long as an array views it.

    Raises UserError if the file cannot be opened or is empty.
    """
    from weights.errors import UserError

    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise UserError(
            f"{path} is empty; expected a GGUF or safetensors file: download it again"
        ) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"cannot read {path} ({reason}); expected a GGUF or safetensors file: check the path"
        ) from None

"""The folder of compiled models: what lies there, and which of it can still be loaded."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replit.runtime.compile_key import cache_folder, installed
from replit.runtime.compiled_file import read_header_alone
from replit.runtime.target import parse_target
from weights.errors import UserError

# A checkout beside another one, or a test, may use a file that this installation cannot.
KEPT_SECONDS = 7 * 24 * 3600.0


@dataclass(frozen=True)
class KeptModel:
    """A compiled model in the folder."""

    path: Path
    size: int
    what: str
    current: bool  # whether this installation can load it
    used: float  # when it was last read or written, in seconds since 1970


def kept_models() -> list[KeptModel]:
    """All of them, the last used first."""
    found = []
    for path in cache_folder().glob("*.replit"):
        with contextlib.suppress(OSError):
            state = path.stat()
            key = _key(path)
            current = key is not None and is_current(key)
            found.append(KeptModel(path, state.st_size, _what(key), current, max(state.st_atime, state.st_mtime)))
    return sorted(found, key=lambda model: -model.used)


def is_current(key: Mapping[str, Any]) -> bool:
    """Whether what a model was compiled with is what is installed here, MAX and the kernels; not which model it is."""
    try:
        wanted = installed(parse_target(str(key.get("device"))))
    except UserError:
        return False
    return all(key.get(name) == value for name, value in wanted.items())


def remove_old() -> None:
    """Removes what this installation cannot load, unless it was used in the last days."""
    for model in kept_models():
        if not model.current and time.time() - model.used > KEPT_SECONDS:
            with contextlib.suppress(OSError):
                model.path.unlink()


def _key(path: Path) -> Mapping[str, Any] | None:
    try:
        found: Mapping[str, Any] = read_header_alone(path)["key"]
    except UserError:
        return None
    return found


def _what(key: Mapping[str, Any] | None) -> str:
    if key is None:
        return "unreadable"
    config = key.get("config")
    layers = config.get("n_layers", "?") if isinstance(config, dict) else "?"
    width = config.get("d_model", "?") if isinstance(config, dict) else "?"
    return f"{key.get('architecture')} of {layers} layers, {width} wide, for {key.get('device')}"

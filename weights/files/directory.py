"""Which file of a directory is the model: as the hub's repositories, its cache and the converters lay them out."""

from __future__ import annotations

import re
from pathlib import Path

from weights.errors import UserError

SAFETENSORS_INDEX = ".safetensors.index.json"
PYTORCH_INDEX = ".bin.index.json"
#: How parts of a split model are named, by llama.cpp and by transformers; the first part is 1.
_SPLIT_NAME = re.compile(r"(?P<stem>.*)-(?P<part>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf|\.safetensors|\.bin)")
_MAX_PARTS = 1000
# What is looked for first. A whole file beside an index is newer than the shards that the index names.
_USUAL_NAMES = ("model.safetensors", "model" + SAFETENSORS_INDEX)
_PATTERNS = ("*.safetensors", "*.gguf")
_PYTORCH_NAMES = ("pytorch_model.bin", "pytorch_model" + PYTORCH_INDEX)
_PYTORCH_PATTERNS = ("*.bin", "*.pt", "*.pth")
# Files with such suffixes that are no model.
_NO_MODEL = re.compile(r"adapter_model\..*|training_args\.bin|optimizer.*|scheduler.*|rng_state.*|.*imatrix.*")


def split_parts(name: str) -> list[str]:
    """The file names of all parts of a split model, just `name` where it does not name a part."""
    split = _SPLIT_NAME.fullmatch(name)
    if split is None or not 1 <= int(split["count"]) <= _MAX_PARTS:
        return [name]
    count = int(split["count"])
    return [f"{split['stem']}-{part:05}-of-{count:05}{split['suffix']}" for part in range(1, count + 1)]


def all_parts(path: Path) -> list[Path]:
    """The files of the model that `path` is a part of. Raises UserError naming those that are missing."""
    parts = [path.parent / name for name in split_parts(path.name)]
    missing = [part.name for part in parts if not part.exists()]
    if missing:
        raise UserError(
            f"{path} is one of {len(parts)} parts and {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not "
            f"beside it; expected all of them: download {missing[0]} too"
        )
    return parts


def weights_in(directory: Path) -> Path:
    """The one file to open in a directory; UserError if there is none or a choice.

    In a folder of the hub's cache that is the snapshot of its main branch, or the newest one.
    """
    directory = _snapshot(directory)
    found = _usual(directory, _USUAL_NAMES) or _only(directory, _PATTERNS)
    found = found or _usual(directory, _PYTORCH_NAMES) or _only(directory, _PYTORCH_PATTERNS)
    if found is None:
        raise _nothing(directory)
    return found


def _usual(directory: Path, names: tuple[str, ...]) -> Path | None:
    return next((directory / name for name in names if (directory / name).exists()), None)


def _only(directory: Path, patterns: tuple[str, ...]) -> Path | None:
    for pattern in patterns:
        models = {
            directory / split_parts(path.name)[0]: path
            for path in sorted(directory.glob(pattern))
            if not _NO_MODEL.fullmatch(path.name)
        }
        if len(models) > 1:
            names = ", ".join(path.name for path in models)
            raise UserError(f"{directory} holds {names}; expected one model: give the file itself")
        for first, present in models.items():
            return first if first.exists() else present
    return None


def _snapshot(directory: Path) -> Path:
    """The directory itself, or the snapshot that a folder of the hub's cache holds."""
    if (directory / "hub").is_dir() and not (directory / "config.json").exists():
        directory = directory / "hub"
    repositories = sorted(directory.glob("models--*"))
    if len(repositories) > 1:
        names = ", ".join(path.name.removeprefix("models--").replace("--", "/") for path in repositories)
        raise UserError(f"{directory} is the hub's cache with {names}; expected one model: give one of these names")
    root = repositories[0] if repositories else directory
    snapshots = root if root.name == "snapshots" else root / "snapshots"
    if not snapshots.is_dir():
        return root
    main = root / "refs" / "main"
    named = snapshots / main.read_text().strip() if main.is_file() else snapshots
    if named != snapshots and named.is_dir():
        return named
    return max(snapshots.iterdir(), key=lambda path: path.stat().st_mtime, default=root)


def _nothing(directory: Path) -> UserError:
    if (directory / "adapter_config.json").exists():
        return UserError(
            f"{directory} holds a LoRA adapter; expected a whole model: type `replit convert BASE NEW.gguf "
            f"--adapter {directory}` with the model that it was trained on"
        )
    held = ", ".join(sorted(path.name for path in directory.iterdir())[:5]) or "nothing"
    return UserError(
        f"{directory} holds {held}; expected model.safetensors, its index, a .gguf file or pytorch_model.bin: "
        "check the path"
    )

"""Which file of a directory is the model: as the hub's repositories, its cache and the converters lay them out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from weights.errors import UserError
from weights.files.paths import checked, exists, is_dir, listed
from weights.tensor import Tensor

SAFETENSORS_INDEX = ".safetensors.index.json"
PYTORCH_INDEX = ".bin.index.json"
#: How parts of a split model are named, by llama.cpp and by transformers; the first part is 1.
_SPLIT_NAME = re.compile(r"(?P<stem>.*)-(?P<part>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf|\.safetensors|\.bin)")
_MAX_PARTS = 1000
# What is looked for first. A whole file beside an index is newer than the shards that the index names.
_USUAL_NAMES = ("model.safetensors", "model" + SAFETENSORS_INDEX)
_SUFFIXES = (".safetensors", ".gguf")
_PYTORCH_NAMES = ("pytorch_model.bin", "pytorch_model" + PYTORCH_INDEX)
_PYTORCH_SUFFIXES = (".bin", ".pt", ".pth")
# Files with such suffixes that are no model; a dot begins what macOS writes beside each file on other file systems.
_NO_MODEL = re.compile(r"\..*|adapter_model\..*|training_args\.bin|optimizer.*|scheduler.*|rng_state.*|.*imatrix.*")


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
    missing = [part.name for part in parts if not exists(part)]
    if missing:
        raise UserError(
            f"{path} is one of {len(parts)} parts and {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not "
            f"beside it; expected all of them: download {missing[0]} too"
        )
    return parts


def add_tensors(path: Path, tensors: dict[str, Tensor], part: Mapping[str, Tensor]) -> None:
    """Add those of one file to those of a model in `path`. Raises UserError for a name that is there already."""
    if twice := tensors.keys() & part.keys():
        raise UserError(f"{path}: tensor {min(twice)!r} is in two parts; expected it in one: download the parts again")
    tensors |= part


def weights_in(directory: Path) -> Path:
    """The one file to open in a directory; UserError if there is none or a choice.

    In a folder of the hub's cache that is the snapshot of its main branch, or the newest one.
    """
    directory = _snapshot(directory)
    found = _usual(directory, _USUAL_NAMES) or _only(directory, _SUFFIXES)
    found = found or _usual(directory, _PYTORCH_NAMES) or _only(directory, _PYTORCH_SUFFIXES)
    if found is None:
        raise _nothing(directory)
    return found


def _usual(directory: Path, names: tuple[str, ...]) -> Path | None:
    return next((directory / name for name in names if exists(directory / name)), None)


def _only(directory: Path, suffixes: tuple[str, ...]) -> Path | None:
    names = [path.name for path in listed(directory)]
    for suffix in suffixes:
        models = model_files(names, suffix)
        if len(models) > 1:
            raise UserError(f"{directory} holds {', '.join(models)}; expected one model: give the file itself")
        for first in models:
            return directory / next(name for name in (first, *split_parts(first)) if name in names)
    return None


def model_files(names: Iterable[str], suffix: str) -> list[str]:
    """Of file names those of models, of one in parts the first part's, whether it is there or not."""
    models = (name for name in names if name.endswith(suffix) and not _NO_MODEL.fullmatch(PurePosixPath(name).name))
    return sorted({split_parts(name)[0] for name in models})


def _snapshot(directory: Path) -> Path:
    """The directory itself, or the snapshot that a folder of the hub's cache holds."""
    held = {path.name for path in listed(directory)}
    if "hub" in held and "config.json" not in held and is_dir(directory / "hub"):
        directory = directory / "hub"
    repositories = [path for path in listed(directory) if path.name.startswith("models--")]
    if len(repositories) > 1:
        names = ", ".join(path.name.removeprefix("models--").replace("--", "/") for path in repositories)
        raise UserError(f"{directory} is the hub's cache with {names}; expected one model: give one of these names")
    root = repositories[0] if repositories else directory
    snapshots = root if root.name == "snapshots" else root / "snapshots"
    if not is_dir(snapshots):
        return root
    main = root / "refs" / "main"
    with checked(main):
        named = snapshots / main.read_text().strip() if exists(main) else snapshots
    if named != snapshots and is_dir(named):
        return named
    with checked(snapshots):
        return max(snapshots.iterdir(), key=lambda path: path.stat().st_mtime, default=root)


def _nothing(directory: Path) -> UserError:
    if exists(directory / "adapter_config.json"):
        return UserError(
            f"{directory} holds a LoRA adapter; expected a whole model: type `replit convert BASE NEW.gguf "
            f"--adapter {directory}` with the model that it was trained on"
        )
    held = ", ".join(path.name for path in listed(directory)[:5]) or "nothing"
    return UserError(
        f"{directory} holds {held}; expected model.safetensors, its index, a .gguf file or pytorch_model.bin: "
        "check the path"
    )

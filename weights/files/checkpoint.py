"""Opens a model by path: a GGUF, safetensors or PyTorch file, an index of shards, or a directory like the hub's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from weights.errors import UserError
from weights.files.directory import PYTORCH_INDEX, SAFETENSORS_INDEX, add_tensors, all_parts, split_parts, weights_in
from weights.files.gguf_file import MAGIC, read_gguf
from weights.files.mapped_file import EXPECTED, map_file, read_json
from weights.files.paths import exists, is_dir
from weights.files.safetensors_file import index_shards, looks_like_safetensors, read_safetensors, read_sharded
from weights.tensor import Tensor

Format = Literal["gguf", "safetensors", "pytorch"]
ARCHITECTURE_KEY = "general.architecture"


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by the names in the file, and what is known about the model.

    `metadata` holds GGUF's key-values, config.json's keys ({} if there is none), or both where a GGUF file says no
    architecture of its own. `files` are all that hold weights.
    """

    path: Path
    format: Format
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any]
    files: tuple[Path, ...] = ()

    @property
    def directory(self) -> Path:
        """Where the files that accompany the weights lie."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def has_gguf_keys(self) -> bool:
        """Whether GGUF's keys describe the model, and not config.json's."""
        return ARCHITECTURE_KEY in self.metadata

    @property
    def nbytes(self) -> int:
        """Bytes of all its files."""
        return sum(path.stat().st_size for path in self.files or (self.path,))


def open_checkpoint(path: str | Path, config: Path | None = None, problems: list[str] | None = None) -> Checkpoint:
    """Map the model at `path`, checking all headers; tensor data is not read.

    `config`, a config.json or its directory, stands for what lies beside the weights or in a GGUF file. Raises
    UserError for a missing, unreadable, unknown or damaged file; with `problems`, what keeps it from running but not
    from being shown ends up there instead.
    """
    path = Path(path)
    return open_file(weights_in(path) if is_dir(path) else path, config, problems)


def open_file(path: Path, config: Path | None = None, problems: list[str] | None = None) -> Checkpoint:
    """As `open_checkpoint`, for a file: which kind it is, its first bytes say, not its name."""
    tensors: dict[str, Tensor] = {}
    if path.name.endswith(SAFETENSORS_INDEX):
        shards = index_shards(path)
        tensors = read_sharded(path, problems)
        return Checkpoint(
            path, "safetensors", tensors, read_config(path, config), tuple(path.parent / s for s in shards)
        )
    if path.name.endswith(PYTORCH_INDEX):
        return _open_pytorch(path, config)
    start = map_file(path)[:9]
    if start[:4] in (MAGIC, MAGIC[::-1]):
        return _open_gguf(path, config, problems)
    if looks_like_safetensors(start):
        parts = all_parts(path)
        for part in parts:
            add_tensors(path, tensors, read_safetensors(part, problems))
        return Checkpoint(path, "safetensors", tensors, read_config(path, config), tuple(parts))
    if _is_pytorch(start):
        return _open_pytorch(path, config)
    raise UserError(f"{path} is {_guess(start)}; expected {EXPECTED}: check the path or download it again")


def _is_pytorch(start: bytes) -> bool:
    """The zip archive of today, or the pickle of before 2020."""
    return start[:2] == b"PK" or start[:1] == b"\x80"


def _open_pytorch(path: Path, config: Path | None) -> Checkpoint:
    from weights.files.pytorch_file import read_pytorch

    tensors, files = read_pytorch(path)
    return Checkpoint(path, "pytorch", tensors, read_config(path, config), tuple(files))


def _guess(start: bytes) -> str:
    if start == b"version h":
        return "a Git LFS pointer, not the file itself"
    return f"of an unknown kind (it starts with {start!r})"


def read_config(path: Path, config: Path | None) -> Mapping[str, Any]:
    """The config.json that was given, or that lies beside the weights at `path`; {} if there is none."""
    if config is not None:
        return read_json(config / "config.json" if is_dir(config) else config)
    beside = path.parent / "config.json"
    return read_json(beside) if exists(beside) else {}


def _open_gguf(path: Path, config: Path | None, problems: list[str] | None) -> Checkpoint:
    file = read_gguf(path, problems)
    parts = file.metadata.get("split.count", 0)
    if type(parts) is not int or parts <= 1:
        return _described(Checkpoint(path, "gguf", file.tensors, file.metadata, (path,)), config)
    return _described(_open_split(path, parts, problems), config)


def _described(checkpoint: Checkpoint, config: Path | None) -> Checkpoint:
    """With config.json's keys where they were asked for, and where the file says no architecture (as candle's do)."""
    keys = checkpoint.metadata
    if config is None and ARCHITECTURE_KEY in keys:
        return checkpoint
    kept = {key: value for key, value in keys.items() if key != ARCHITECTURE_KEY}
    metadata = kept | dict(read_config(checkpoint.path, config))
    return Checkpoint(checkpoint.path, "gguf", checkpoint.tensors, metadata, checkpoint.files)


def _open_split(path: Path, parts: int, problems: list[str] | None) -> Checkpoint:
    """All parts of a split model; the keys are those of the first."""
    if len(split_parts(path.name)) != parts:
        raise UserError(
            f"{path} is one of {parts} parts of a split GGUF; expected the name to end in "
            f"-00001-of-{parts:05}.gguf: restore the parts' original names"
        )
    paths = all_parts(path)
    files = [read_gguf(part, problems) for part in paths]
    tensors: dict[str, Tensor] = {}
    for number, (part, file) in enumerate(zip(paths, files, strict=True)):
        if file.metadata.get("split.no") != number or file.metadata.get("split.count") != parts:
            raise UserError(
                f"{part} says it is part {file.metadata.get('split.no')!r} of "
                f"{file.metadata.get('split.count')!r} (counted from 0); expected {number} of "
                f"{parts}: download the parts again"
            )
        add_tensors(path, tensors, file.tensors)
    total = files[0].metadata.get("split.tensors.count", len(tensors))
    if total != len(tensors) and not problems:
        raise UserError(f"{path}: the parts hold {len(tensors)} tensors; expected {total!r}")
    return Checkpoint(path, "gguf", tensors, files[0].metadata, tuple(paths))

"""What a section of benchmarks/gpu.py runs with, and the weights and ids that all of them use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

Figures = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Setup:
    """What a section runs with."""

    path: str  # the random weights
    device: str  # as for pipelines.load
    quick: bool

    @classmethod
    def from_json(cls, text: str) -> Setup:
        """As `to_json` wrote it."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """For the process of a section."""
        return json.dumps(asdict(self))

    @property
    def prompts(self) -> tuple[int, ...]:
        """Prefill sizes."""
        return (64,) if self.quick else (512, 2048)

    @property
    def batches(self) -> tuple[int, ...]:
        """Sequences at once."""
        return (1, 2) if self.quick else (1, 8, 32, 128)

    @property
    def serving(self) -> tuple[int, int, int]:
        """Clients, tokens of a prompt, tokens of a completion."""
        return (4, 16, 8) if self.quick else (64, 256, 128)

    @property
    def new_tokens(self) -> int:
        """Tokens of a decode measurement."""
        return 8 if self.quick else 128

    @property
    def repeats(self) -> int:
        """Counted runs; the median is told."""
        return 2 if self.quick else 5

    @property
    def checked(self) -> int:
        """Positions whose logits are compared."""
        return 48 if self.quick else 256

    def load(self, model: str | None = None, device: str | None = None, **options: Any) -> Any:
        """The model through the project's Python interface."""
        from pipelines.pipeline import load

        return load(model or self.path, device=device or self.device, **options)

    def checked_ids(self, tokenizer: Any) -> list[int]:
        """The text whose logits are compared, and a few tokens more to decode."""
        ids: list[int] = tokenizer.encode(Path(__file__).read_text())[: self.checked + 8]
        return ids

    def reference_path(self, name: str) -> Path:
        """Where the section `reference` leaves the logits of "random" or "nano"."""
        return Path(self.path).with_name(f"{name}-logits.npy")


def random_ids(count: int, seed: int = 0) -> list[int]:
    """Ids that every model of ours has."""
    ids: list[int] = np.random.default_rng(seed).integers(0, 1000, count).tolist()
    return ids


def tensors_of(path: str) -> Any:
    """The weights of a file, by canonical name."""
    from pipelines.registry import open_model

    return open_model(path, None, None).tensors


def config_of(path: str) -> Any:
    """The configuration of a file."""
    from pipelines.registry import open_model

    return open_model(path, None, None).config

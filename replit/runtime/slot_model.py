"""A bound graph with a cache of its own: sequences, each in a slot, and the logits after what is appended to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from replit.decoder.config import DecoderConfig
from replit.runtime.kv_cache import CacheSlots
from replit.runtime.passes import Passes, run_slots
from replit.runtime.target import Target
from weights.tensor import Encoding

Floats = npt.NDArray[np.float32]


class SlotModel(ABC):
    """What every model does, on the CPU (replit/cpu/model.py) or a GPU (replit/gpu/model.py)."""

    passes: Passes

    def __init__(self, config: DecoderConfig, cache: CacheSlots, target: Target) -> None:
        """`target` as the model was compiled for it."""
        self.config, self.cache, self.target = config, cache, target

    @property
    def slots(self) -> int:
        """Sequences at once."""
        return self.cache.slots

    @property
    def max_length(self) -> int:
        """Positions of a sequence."""
        return self.cache.max_length

    @property
    def cache_encoding(self) -> Encoding:
        """Of keys and values."""
        return self.target.cache

    @property
    def prompt_chunk(self) -> int:
        """Most ids of a pass over a prompt."""
        return self.target.prompt_chunk

    @abstractmethod
    def passes_over(self, blocks: Any) -> Passes:
        """Passes over the pages of another cache (MAX Serve's), for sequences of up to `max_length` positions."""

    @abstractmethod
    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Gives slot `target` the first `length` positions of `source`, and no others."""

    def truncate(self, slot: int, length: int) -> None:
        """Keeps the first `length` positions of a slot."""
        self.cache.truncate(slot, length)

    def extend(self, slots: Sequence[int], ids: Sequence[Sequence[int]], rows: Sequence[int]) -> Floats:
        """Appends `ids[i]` to `slots[i]`, in one pass; logits `[len(rows), vocab]` after those `rows` of all."""
        logits: Floats = self._run(slots, ids, rows)[0].to_numpy()
        return logits

    def prefill(self, slot: int, ids: Sequence[int]) -> Floats:
        """Starts a sequence in `slot`; the logits `[vocab]` after its last id."""
        self.truncate(slot, 0)
        for start in range(0, len(ids), self.prompt_chunk):
            part = ids[start : start + self.prompt_chunk]
            logits = self.extend([slot], [part], [len(part) - 1])
        last: Floats = logits[0]
        return last

    def decode(self, slots: Sequence[int], ids: Sequence[int]) -> Floats:
        """Appends one id to each sequence; the logits `[len(slots), vocab]` after them."""
        return self.extend(slots, [[i] for i in ids], range(len(slots)))

    def _run(self, slots: Sequence[int], ids: Sequence[Sequence[int]], rows: Sequence[int]) -> list[Any]:
        return run_slots(self.passes, self.cache, slots, ids, rows)

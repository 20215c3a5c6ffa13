"""A model on the CPU: its cache, and passes that bring its logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from replit.config import ReplitConfig
from replit.cpu.passes import CpuPasses
from replit.decoder.architecture import DecoderConfig
from replit.runtime.kv_cache import PagedKVCache, pages_for
from replit.runtime.passes import run_slots
from replit.runtime.target import CPU
from weights.tensor import Encoding

Floats = npt.NDArray[np.float32]


class CpuModel:
    """Logits of a batch of sequences, each in a slot of the cache."""

    def __init__(
        self, config: DecoderConfig, model: Any, slots: int, max_length: int, cache: Encoding = CPU.cache
    ) -> None:
        """`cache` is the encoding of keys and values that the model was compiled for."""
        self.config = config
        self.slots = slots
        self.max_length = max_length
        self.cache = PagedKVCache(config, slots, max_length, cache)
        self._model = model
        self.passes = self.passes_over(self.cache.buffer())

    @property
    def cache_encoding(self) -> Encoding:
        """Of keys and values."""
        return self.cache.encoding

    def passes_over(self, blocks: Any) -> CpuPasses:
        """Passes over the pages of another cache (MAX Serve's), for sequences of up to `max_length` positions."""
        layers = self.config.n_layers if isinstance(self.config, ReplitConfig) else 1  # Refact's are ops of their own
        return CpuPasses(self._model, blocks, pages_for(self.max_length), layers, self.config.d_model)

    @property
    def prompt_chunk(self) -> int:
        """Most ids of a pass over a prompt."""
        return CPU.prompt_chunk

    def truncate(self, slot: int, length: int) -> None:
        """Keeps the first `length` positions of a slot."""
        self.cache.truncate(slot, length)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Gives `target` the first `length` positions of `source`, and no others."""
        self.cache.copy_prefix(source, target, length)

    def extend(self, slots: Sequence[int], ids: Sequence[Sequence[int]], rows: Sequence[int]) -> Floats:
        """Appends `ids[i]` to `slots[i]`, in one pass; logits `[len(rows), vocab]` after those `rows` of all."""
        logits: Floats = run_slots(self.passes, self.cache, slots, ids, rows)[0].to_numpy()
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

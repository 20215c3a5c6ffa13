"""A model on the CPU: its cache, and passes that bring its logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from replit.cpu.passes import CpuPasses
from replit.decoder.architecture import DecoderConfig
from replit.runtime.kv_cache import PagedKVCache, pages_for
from replit.runtime.passes import run_slots
from replit.runtime.target import CPU

Floats = npt.NDArray[np.float32]


class CpuModel:
    """Logits of a batch of sequences, each in a slot of the cache."""

    def __init__(self, config: DecoderConfig, model: Any, slots: int, max_length: int) -> None:
        self.config = config
        self.slots = slots
        self.max_length = max_length
        self.cache = PagedKVCache(config, slots, max_length)
        self._model = model
        from max.driver import Buffer

        self._passes = self.passes_over(Buffer.from_numpy(self.cache.blocks))

    def passes_over(self, blocks: Any) -> CpuPasses:
        """Passes over the pages of another cache (MAX Serve's), for sequences of up to `max_length` positions."""
        return CpuPasses(self._model, blocks, pages_for(self.max_length))

    def prefill(self, slot: int, ids: Sequence[int]) -> Floats:
        """Starts a sequence in `slot`; the logits `[vocab]` after its last id."""
        self.cache.lengths[slot] = 0
        for start in range(0, len(ids), CPU.prompt_chunk):
            part = ids[start : start + CPU.prompt_chunk]
            logits = self._run([slot], [part], [len(part) - 1])
        last: Floats = logits[0]
        return last

    def decode(self, slots: Sequence[int], ids: Sequence[int]) -> Floats:
        """Appends one id to each sequence; the logits `[len(slots), vocab]` after them."""
        return self._run(slots, [[i] for i in ids], range(len(slots)))

    def score(self, ids: Sequence[int]) -> Floats:
        """Logits `[len(ids), vocab]` after every id of a sequence, computed in slot 0."""
        self.cache.lengths[0] = 0
        parts = [ids[i : i + CPU.prompt_chunk] for i in range(0, len(ids), CPU.prompt_chunk)]
        return np.concatenate([self._run([0], [part], range(len(part))) for part in parts])

    def _run(self, slots: Sequence[int], ids: Sequence[Sequence[int]], rows: Sequence[int]) -> Floats:
        logits: Floats = run_slots(self._passes, self.cache, slots, ids, rows)[0].to_numpy()
        return logits

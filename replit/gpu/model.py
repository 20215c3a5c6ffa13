"""A compiled model on a GPU: its cache in the GPU's memory, and what of the logits comes back.

A greedy step brings back one id a sequence. For other sampling the most probable ids and their logits come back
(replit/gpu/top_logits.py); all logits only where they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from replit.decoder.architecture import DecoderConfig
from replit.gpu.passes import GpuPasses
from replit.gpu.top_logits import TopK, TopLogits
from replit.runtime.kv_cache import CacheSlots, cache_shape, pages_for
from replit.runtime.passes import run_slots
from replit.runtime.target import Target
from weights.tensor import Encoding

Floats = npt.NDArray[np.float32]


class GpuModel:
    """Logits, or what is sampled from them, of a batch of sequences, each in a slot of the cache."""

    def __init__(
        self,
        config: DecoderConfig,
        model: Any,
        slots: int,
        max_length: int,
        device: Any,
        target: Target,
        note: Callable[[str], None] = lambda message: None,
    ) -> None:
        from max.driver import Buffer
        from max.dtype import DType

        self.config, self.slots, self.max_length = config, slots, max_length
        self.cache = CacheSlots(slots, max_length)
        self.device = device
        self._model, self._target, self._note = model, target, note
        dtype = DType.bfloat16 if target.cache is Encoding.BFLOAT16 else DType.float32
        self._blocks = Buffer.zeros(cache_shape(config, slots, max_length), dtype, device)
        self.passes = self.passes_over(self._blocks)
        self._top = TopK(device)

    def passes_over(self, blocks: Any) -> GpuPasses:
        """Passes over the pages of another cache (MAX Serve's), for sequences of up to `max_length` positions."""
        pages, kv_heads = pages_for(self.max_length), self.config.n_kv_heads
        return GpuPasses(self._model, blocks, pages, self.max_length, kv_heads, self.device, self._target, self._note)

    @property
    def cache_encoding(self) -> Encoding:
        """Of keys and values."""
        return self._target.cache

    @property
    def prompt_chunk(self) -> int:
        """Most ids of a pass over a prompt."""
        return self._target.prompt_chunk

    def truncate(self, slot: int, length: int) -> None:
        """Keeps the first `length` positions of a slot."""
        self.cache.truncate(slot, length)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Gives `target` the first `length` positions of `source`, and no others; copied inside the GPU."""
        tables = self.cache.page_table[target].tolist(), self.cache.page_table[source].tolist()
        for to, origin in list(zip(*tables, strict=True))[: pages_for(length)]:
            self._page(to).inplace_copy_from(self._page(origin))
        self.cache.lengths[target] = length

    def _page(self, number: int) -> Any:
        return self._blocks[number : number + 1, :, :, :, :, :]  # MAX's buffers want an index for every axis

    def extend(self, slots: Sequence[int], ids: Sequence[Sequence[int]], rows: Sequence[int]) -> Floats:
        """Appends `ids[i]` to `slots[i]`, in one pass; logits `[len(rows), vocab]` after those `rows` of all."""
        logits: Floats = self._run(slots, ids, rows)[0].to_numpy()
        return logits

    def extend_top(
        self, slots: Sequence[int], ids: Sequence[Sequence[int]], rows: Sequence[int], k: int
    ) -> list[TopLogits]:
        """`extend`, of which only the `k` highest logits of a row leave the GPU; k 1: the ids alone."""
        return self._top(self._run(slots, ids, rows), k)

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

    def decode_top(self, slots: Sequence[int], ids: Sequence[int], k: int) -> list[TopLogits]:
        """`decode`, of which only the `k` highest logits of a row leave the GPU; k 1: the ids alone."""
        return self.extend_top(slots, [[i] for i in ids], range(len(slots)), k)

    def _run(self, slots: Sequence[int], ids: Sequence[Sequence[int]], rows: Sequence[int]) -> list[Any]:
        return run_slots(self.passes, self.cache, slots, ids, rows)

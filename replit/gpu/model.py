"""A compiled model on a GPU: its cache in the GPU's memory, and what of the logits comes back.

A greedy step brings back one id a sequence. For other sampling the most probable ids and their logits come back
(replit/gpu/top_logits.py); all logits only where they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from replit.decoder.config import DecoderConfig
from replit.gpu.passes import GpuPasses
from replit.gpu.top_logits import TopK, TopLogits
from replit.runtime.kv_cache import CacheSlots, cache_shape, pages_for
from replit.runtime.slot_model import SlotModel
from replit.runtime.target import Target
from weights.tensor import Encoding


class GpuModel(SlotModel):
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

        super().__init__(config, CacheSlots(slots, max_length), target)
        self._model, self.device, self._note = model, device, note
        dtype = DType.bfloat16 if target.cache is Encoding.BFLOAT16 else DType.float32
        self._blocks = Buffer.zeros(cache_shape(config, slots, max_length), dtype, device)
        self.passes = self.passes_over(self._blocks)
        self._top = TopK(device)

    def passes_over(self, blocks: Any) -> GpuPasses:
        """See `SlotModel`."""
        pages, kv_heads = pages_for(self.max_length), self.config.n_kv_heads
        return GpuPasses(self._model, blocks, pages, self.max_length, kv_heads, self.device, self.target, self._note)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """See `SlotModel`; copied inside the GPU."""
        tables = self.cache.page_table[target].tolist(), self.cache.page_table[source].tolist()
        for to, origin in list(zip(*tables, strict=True))[: pages_for(length)]:
            self._page(to).inplace_copy_from(self._page(origin))
        self.cache.lengths[target] = length

    def _page(self, number: int) -> Any:
        return self._blocks[number : number + 1, :, :, :, :, :]  # MAX's buffers want an index for every axis

    def extend_top(
        self, slots: Sequence[int], ids: Sequence[Sequence[int]], rows: Sequence[int], k: int
    ) -> list[TopLogits]:
        """`extend`, of which only the `k` highest logits of a row leave the GPU; k 1: the ids alone."""
        return self._top(self._run(slots, ids, rows), k)

    def decode_top(self, slots: Sequence[int], ids: Sequence[int], k: int) -> list[TopLogits]:
        """`decode`, of which only the `k` highest logits of a row leave the GPU; k 1: the ids alone."""
        return self.extend_top(slots, [[i] for i in ids], range(len(slots)), k)

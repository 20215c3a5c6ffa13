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
        dtype = DType.bfloat16 if target.activations is Encoding.BFLOAT16 else DType.float32
        blocks = Buffer.zeros(cache_shape(config, slots, max_length), dtype, device)
        self.passes = self.passes_over(blocks)
        self._top = TopK(device)

    def passes_over(self, blocks: Any) -> GpuPasses:
        """Passes over the pages of another cache (MAX Serve's), for sequences of up to `max_length` positions."""
        pages, kv_heads = pages_for(self.max_length), self.config.n_kv_heads
        return GpuPasses(self._model, blocks, pages, self.max_length, kv_heads, self.device, self._target, self._note)

    def prefill(self, slot: int, ids: Sequence[int]) -> Floats:
        """Starts a sequence in `slot`; the logits `[vocab]` after its last id."""
        row: Floats = self._prefill(slot, ids)[0].to_numpy()[0]
        return row

    def decode(self, slots: Sequence[int], ids: Sequence[int]) -> Floats:
        """Appends one id to each sequence; the logits `[len(slots), vocab]` after them."""
        logits: Floats = self._decode(slots, ids)[0].to_numpy()
        return logits

    def prefill_top(self, slot: int, ids: Sequence[int], k: int) -> TopLogits:
        """`prefill`, of which only the `k` highest logits leave the GPU; k 1: the id alone."""
        return self._top(self._prefill(slot, ids), k)[0]

    def decode_top(self, slots: Sequence[int], ids: Sequence[int], k: int) -> list[TopLogits]:
        """`decode`, of which only the `k` highest logits of a row leave the GPU; k 1: the ids alone."""
        return self._top(self._decode(slots, ids), k)

    def score(self, ids: Sequence[int]) -> Floats:
        """Logits `[len(ids), vocab]` after every id of a sequence, computed in slot 0."""
        self.cache.lengths[0] = 0
        chunk = self._target.prompt_chunk
        parts = [ids[i : i + chunk] for i in range(0, len(ids), chunk)]
        return np.concatenate([self._run([0], [part], range(len(part)))[0].to_numpy() for part in parts])

    def _prefill(self, slot: int, ids: Sequence[int]) -> list[Any]:
        self.cache.lengths[slot] = 0
        outputs: list[Any] = []
        chunk = self._target.prompt_chunk
        for start in range(0, len(ids), chunk):
            part = ids[start : start + chunk]
            outputs = self._run([slot], [part], [len(part) - 1])
        return outputs

    def _run(self, slots: Sequence[int], ids: Sequence[Sequence[int]], rows: Sequence[int]) -> list[Any]:
        return run_slots(self.passes, self.cache, slots, ids, rows)

    def _decode(self, slots: Sequence[int], ids: Sequence[int]) -> list[Any]:
        return self._run(slots, [[i] for i in ids], range(len(slots)))

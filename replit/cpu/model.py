"""A model on the CPU: its cache is in our memory, and all logits of a pass are."""

from __future__ import annotations

from typing import Any

from replit.config import ReplitConfig
from replit.cpu.passes import CpuPasses
from replit.decoder.config import DecoderConfig
from replit.runtime.kv_cache import PagedKVCache, pages_for
from replit.runtime.slot_model import SlotModel
from replit.runtime.target import CPU, Target


class CpuModel(SlotModel):
    """Logits of a batch of sequences, each in a slot of the cache."""

    cache: PagedKVCache

    def __init__(self, config: DecoderConfig, model: Any, slots: int, max_length: int, target: Target = CPU) -> None:
        super().__init__(config, PagedKVCache(config, slots, max_length, target.cache), target)
        self._model = model
        self.passes = self.passes_over(self.cache.buffer())

    def passes_over(self, blocks: Any) -> CpuPasses:
        """See `SlotModel`."""
        layers = self.config.n_layers if isinstance(self.config, ReplitConfig) else 1  # Refact's are ops of their own
        return CpuPasses(self._model, blocks, pages_for(self.max_length), layers, self.config.d_model)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """See `SlotModel`."""
        self.cache.copy_prefix(source, target, length)

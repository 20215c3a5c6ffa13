"""The graph's inputs for a batch on the CPU: arrays that the engine reads in place, those of decode steps reused.

MAX's cache stages page table and lengths by copies that are tasks of the engine. On the CPU they cost more than a pass
of a small model, and nothing orders them with the execution; a GPU needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from max.driver import Buffer
from max.pipelines.context import TextContext
from max.pipelines.kv_cache import PagedKVCacheManager

from replit.kv_cache import pages_for


class _Arrays:
    """The inputs of one shape: T tokens, B sequences, R rows that get logits, P pages of a sequence."""

    def __init__(self, blocks: Any, tokens: int, sequences: int, rows: int, pages: int) -> None:
        self.tokens = np.zeros(tokens, np.int64)
        self.row_offsets = np.arange(sequences + 1, dtype=np.uint32)
        self.rows = np.arange(rows, dtype=np.int64)
        self.cache_lengths = np.zeros(sequences, np.uint32)
        self.lookup_table = np.zeros((sequences, pages), np.uint32)
        self.longest_prompt = np.ones(1, np.uint32)
        self.longest_cache = np.zeros(1, np.uint32)
        packed, dispatch = np.array([-1], np.int64), np.zeros(4, np.int64)  # the second is for GPU kernels
        leading = (self.tokens, self.row_offsets, self.rows)
        others = (
            self.cache_lengths, self.lookup_table, self.longest_prompt, self.longest_cache, packed, dispatch,
        )  # fmt: skip
        self.buffers = [*map(Buffer.from_numpy, leading), blocks, *map(Buffer.from_numpy, others)]


class CpuInputs:
    """Makes the inputs of each pass over MAX's paged cache."""

    def __init__(self, cache: PagedKVCacheManager, max_length: int) -> None:
        self._cache = cache
        (self._blocks,) = cache.get_device_buffer(0).all_buffers
        self._pages = pages_for(max_length)
        self._decoding: dict[int, _Arrays] = {}  # by the number of sequences

    def __call__(self, batch: Sequence[TextContext], wanted: Sequence[range]) -> list[Any]:
        """The graph's inputs in order; `wanted` are the positions of each sequence's new tokens that get logits."""
        counts = [context.tokens.active_length for context in batch]
        if max(counts) == 1:
            arrays = self._decoding.get(len(batch)) or self._new_decoding(len(batch))
        else:
            arrays = _Arrays(self._blocks, sum(counts), len(batch), sum(map(len, wanted)), self._pages)
            np.cumsum(counts, out=arrays.row_offsets[1:])
            starts = arrays.row_offsets.tolist()
            arrays.rows[:] = [start + row for start, rows in zip(starts, wanted, strict=False) for row in rows]
            arrays.longest_prompt[0] = max(counts)
        self._fill(arrays, batch)
        return arrays.buffers

    def _new_decoding(self, sequences: int) -> _Arrays:
        arrays = _Arrays(self._blocks, sequences, sequences, sequences, self._pages)
        self._decoding[sequences] = arrays
        return arrays

    def _fill(self, arrays: _Arrays, batch: Sequence[TextContext]) -> None:
        start = 0
        longest = 0
        for index, context in enumerate(batch):
            tokens = context.tokens
            stop = start + tokens.active_length
            arrays.tokens[start:stop] = tokens.active
            length = tokens.processed_length
            arrays.cache_lengths[index] = length
            longest = max(longest, length + stop - start)
            (pages,) = self._cache.get_req_blocks_per_leaf(context).values()
            used = pages_for(length + stop - start)
            arrays.lookup_table[index, :used] = pages[:used]
            start = stop
        arrays.longest_cache[0] = longest  # as MAX counts: with the new positions

"""The graph's inputs for a batch on the CPU: arrays that the engine reads in place, those of decode steps reused.

MAX's cache stages page table and lengths by copies that are tasks of the engine. On the CPU they cost more than a pass
of a small model, and nothing orders them with the execution; a GPU needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from max.pipelines.context import TextContext
from max.pipelines.kv_cache import PagedKVCacheManager

from replit.kv_cache import pages_for
from replit.model import Inputs


class CpuInputs:
    """Makes the inputs of each pass over MAX's paged cache."""

    def __init__(self, cache: PagedKVCacheManager, max_length: int) -> None:
        self._cache = cache
        (self._blocks,) = cache.get_device_buffer(0).all_buffers
        self._pages = pages_for(max_length)
        self._decoding: dict[int, Inputs] = {}  # by the number of sequences

    def __call__(self, batch: Sequence[TextContext], wanted: Sequence[range]) -> list[Any]:
        """The graph's inputs in order; `wanted` are the positions of each sequence's new tokens that get logits."""
        counts = [context.tokens.active_length for context in batch]
        if max(counts) == 1:
            arrays = self._decoding.get(len(batch)) or self._new_decoding(len(batch))
        else:
            arrays = Inputs(self._blocks, sum(counts), len(batch), sum(map(len, wanted)), self._pages)
            np.cumsum(counts, out=arrays.row_offsets[1:])
            starts = arrays.row_offsets.tolist()
            arrays.rows[:] = [start + row for start, rows in zip(starts, wanted, strict=False) for row in rows]
            arrays.max_prompt_length[0] = max(counts)
        self._fill(arrays, batch)
        return arrays.buffers

    def _new_decoding(self, sequences: int) -> Inputs:
        arrays = Inputs(self._blocks, sequences, sequences, sequences, self._pages)
        arrays.row_offsets[:] = range(sequences + 1)
        arrays.rows[:] = range(sequences)
        arrays.max_prompt_length[0] = 1
        self._decoding[sequences] = arrays
        return arrays

    def _fill(self, arrays: Inputs, batch: Sequence[TextContext]) -> None:
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
        arrays.max_cache_length[0] = longest  # as MAX counts: with the new positions

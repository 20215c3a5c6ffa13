"""The graph's inputs for a batch that MAX's scheduler made, over the pages that MAX's cache chose.

MAX's cache would stage page table and lengths itself, by copies that are tasks of the engine. On the CPU they cost more
than a pass of a small model, and nothing orders them with the execution; on a GPU they would lie elsewhere each time,
where a captured decode step reads from where it was captured.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from max.pipelines.context import TextContext
from max.pipelines.kv_cache import PagedKVCacheManager

from replit.kv_cache import pages_for
from replit.passes import Inputs, Pass, Passes


class BatchInputs:
    """Fills the passes over MAX's paged cache."""

    def __init__(self, cache: PagedKVCacheManager, passes: Passes) -> None:
        self._cache, self._passes = cache, passes

    def __call__(self, batch: Sequence[TextContext], wanted: Sequence[range]) -> Pass:
        """The pass, ready to run; `wanted` are the positions of each sequence's new tokens that get logits."""
        counts = [context.tokens.active_length for context in batch]
        # As MAX counts: with the new positions.
        longest = max(context.tokens.processed_length + count for context, count in zip(batch, counts, strict=True))
        if max(counts) == 1:
            graph = self._passes.decode(len(batch), longest)
        else:
            graph = self._passes.prompt(sum(counts), len(batch), sum(map(len, wanted)))
            inputs = graph.inputs
            np.cumsum(counts, out=inputs.row_offsets[1:])
            starts = inputs.row_offsets.tolist()
            inputs.rows[:] = [start + row for start, rows in zip(starts, wanted, strict=False) for row in rows]
            inputs.max_prompt_length[0] = max(counts)
        graph.inputs.max_cache_length[0] = longest
        self._fill(graph.inputs, batch)
        return graph

    def _fill(self, inputs: Inputs, batch: Sequence[TextContext]) -> None:
        start = 0
        for index, context in enumerate(batch):
            tokens = context.tokens
            stop = start + tokens.active_length
            inputs.tokens[start:stop] = tokens.active
            length = tokens.processed_length
            inputs.cache_lengths[index] = length
            (pages,) = self._cache.get_req_blocks_per_leaf(context).values()
            used = pages_for(length + stop - start)
            inputs.lookup_table[index, :used] = pages[:used]
            start = stop

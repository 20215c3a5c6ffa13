"""The graph's inputs for a batch that MAX's scheduler made, over the pages that MAX's cache chose.

MAX's cache would stage page table and lengths itself, by copies that are tasks of the engine. On the CPU they cost more
than a pass of a small model, and nothing orders them with the execution; on a GPU they would lie elsewhere each time,
where a captured decode step reads from where it was captured.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from max.pipelines.context import TextContext
from max.pipelines.kv_cache import PagedKVCacheManager

from replit.cpu.passes import CpuPasses, SlicedPass
from replit.runtime.kv_cache import pages_for
from replit.runtime.passes import Inputs, Pass, Passes, begin_pass, describe_cache, describe_prompt


class BatchInputs:
    """Fills the passes over MAX's paged cache."""

    def __init__(self, cache: PagedKVCacheManager, passes: Passes) -> None:
        self._cache, self._passes = cache, passes

    def __call__(self, batch: Sequence[TextContext], wanted: Sequence[range]) -> Pass:
        """The pass, ready to run; `wanted` are the positions of each sequence's new tokens that get logits."""
        tokens = [new_tokens(context) for context in batch]
        counts = [len(part) for part in tokens]
        starts = list(accumulate(counts, initial=0))
        rows = [start + row for start, rows in zip(starts, wanted, strict=False) for row in rows]
        lengths = [context.tokens.processed_length for context in batch]
        graph = begin_pass(self._passes, counts, lengths, rows)
        self._fill(graph.inputs, batch, tokens, lengths)
        return graph

    def sliced(self, context: TextContext, wanted: range) -> SlicedPass:
        """A pass over one sequence's prompt, ready to run layer by layer."""
        count, length = context.tokens.active_length, context.tokens.processed_length
        assert isinstance(self._passes, CpuPasses)
        sliced, *graphs = self._passes.sliced(count, len(wanted))
        for graph, rows in zip(graphs, (wanted[-1:], wanted), strict=True):
            describe_prompt(graph.inputs, [count], rows)
            describe_cache(graph.inputs, [length], length + count)
            self._fill(graph.inputs, [context], [context.tokens.active], [length])
        return sliced

    def _fill(
        self, inputs: Inputs, batch: Sequence[TextContext], tokens: Sequence[Sequence[int]], lengths: Sequence[int]
    ) -> None:
        inputs.tokens[:] = np.concatenate(tokens)
        for index, (context, part, length) in enumerate(zip(batch, tokens, lengths, strict=True)):
            (pages,) = self._cache.get_req_blocks_per_leaf(context).values()
            used = pages_for(length + len(part))
            inputs.lookup_table[index, :used] = pages[:used]


def new_tokens(context: TextContext) -> Sequence[int]:
    """What a pass takes of a sequence: its next tokens, and the guesses that are to be checked."""
    guesses = context.spec_decoding_state.draft_tokens_to_verify
    active: Sequence[int] = context.tokens.active
    return active if not guesses else [*active, *guesses]

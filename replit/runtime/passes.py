"""Passes of a bound graph over a cache's pages: their inputs as arrays that the engine reads in place.

On the CPU see replit/cpu/passes.py, on a GPU replit/gpu/passes.py. Whose cache it is does not matter: our own loop's
(replit/runtime/slot_model.py) or MAX Serve's (pipelines/server/process/batch.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from replit.runtime.kv_cache import CacheSlots


class Inputs:
    """The graph's inputs as arrays that the engine reads in place; those of decode steps are reused.

    Of one shape: T tokens, B sequences, R rows that get logits, P pages of a sequence.
    """

    def __init__(self, blocks: Any, tokens: int, sequences: int, rows: int, pages: int) -> None:
        from max.driver import Buffer

        self.tokens = np.zeros(tokens, np.int64)
        self.row_offsets = np.zeros(sequences + 1, np.uint32)
        self.rows = np.zeros(rows, np.int64)
        self.cache_lengths = np.zeros(sequences, np.uint32)
        self.lookup_table = np.zeros((sequences, pages), np.uint32)
        self.max_prompt_length = np.zeros(1, np.uint32)
        self.max_cache_length = np.zeros(1, np.uint32)
        packed = np.array([-1], np.int64)
        self.dispatch = np.zeros(4, np.int64)  # see CacheInputs
        arrays = (
            self.cache_lengths, self.lookup_table, self.max_prompt_length, self.max_cache_length,
            packed, self.dispatch,
        )  # fmt: skip
        leading = (self.tokens, self.row_offsets, self.rows)
        self.buffers = [
            *map(Buffer.from_numpy, leading),
            blocks,
            *map(Buffer.from_numpy, arrays),
        ]

    @classmethod
    def of_decode_step(cls, blocks: Any, sequences: int, pages: int) -> Inputs:
        """For one token of each sequence, with logits for all of them."""
        inputs = cls(blocks, sequences, sequences, sequences, pages)
        inputs.row_offsets[:] = range(sequences + 1)
        inputs.rows[:] = range(sequences)
        inputs.max_prompt_length[0] = 1
        return inputs


class Pass(Protocol):
    """One pass: the caller fills `inputs`, all of them but `dispatch`, then runs it."""

    inputs: Inputs

    def run(self) -> list[Any]:
        """The graph's outputs. They hold until the same pass runs again."""
        ...


class Passes(Protocol):
    """Makes the passes over one cache."""

    def prompt(self, tokens: int, sequences: int, rows: int) -> Pass:
        """A pass in which some sequence has more than one new token."""
        ...

    def decode(self, sequences: int, length: int) -> Pass:
        """A pass with one new token for each sequence; the longest gets to `length` positions with it."""
        ...


def begin_pass(passes: Passes, counts: Sequence[int], lengths: Sequence[int], rows: Sequence[int]) -> Pass:
    """A pass of sequences with `counts` new tokens after `lengths` cached ones; `rows` of the new ones get logits.

    What is left for the caller to fill: the tokens and the page table.
    """
    longest = max(length + count for length, count in zip(lengths, counts, strict=True))
    if max(counts) == 1:
        graph = passes.decode(len(counts), longest)
    else:
        graph = passes.prompt(sum(counts), len(counts), len(rows))
        describe_prompt(graph.inputs, counts, rows)
    describe_cache(graph.inputs, lengths, longest)
    return graph


def describe_prompt(inputs: Inputs, counts: Sequence[int], rows: Sequence[int]) -> None:
    """Fills in which tokens of a pass over prompts are whose, and which get logits."""
    np.cumsum(counts, out=inputs.row_offsets[1:])
    inputs.rows[:] = rows
    inputs.max_prompt_length[0] = max(counts)


def describe_cache(inputs: Inputs, lengths: Sequence[int], longest: int) -> None:
    """Fills in what is cached of each sequence; `longest` as MAX counts: with the new positions."""
    inputs.cache_lengths[:] = lengths
    inputs.max_cache_length[0] = longest


def run_slots(
    passes: Passes,
    cache: CacheSlots,
    slots: Sequence[int],
    ids: Sequence[Sequence[int]],
    rows: Sequence[int],
) -> list[Any]:
    """The graph's outputs of a pass that appends `ids` to the sequences in `slots`; `rows` of them get logits.

    Raises ValueError where a sequence gets longer than its slot.
    """
    counts = [len(part) for part in ids]
    lengths = cache.lengths[list(slots)]
    if (lengths + counts).max() > cache.max_length:
        raise ValueError(
            f"slots hold {cache.max_length} positions; {lengths.tolist()} are filled, {counts} were to come"
        )
    graph = begin_pass(passes, counts, lengths.tolist(), rows)
    graph.inputs.tokens[:] = [i for part in ids for i in part]
    graph.inputs.lookup_table[:] = cache.page_table[list(slots)]
    outputs = graph.run()
    cache.lengths[list(slots)] = lengths + counts
    return outputs

"""Rows in which lines repeat without end, to teach that this does not go on: small models do it when asked greedily.

A row of real text is cut after a few lines and these lines repeated to its end. Each time, the first tokens of a line
should be at most half as probable as the time before, as Xu et al. 2022 ("Learning to break the loop") have it for
whole sentences; but what a line has begun it should finish. Their loss, the distance to half, hardly moves a
probability near 1; the unlikelihood of Welleck et al. 2020 does.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

Ids = npt.NDArray[np.integer]

ORDINARY, IGNORED = -1, -2  # what stands in place of a position
FADE = 0.5  # of its probability the time before should be left
FIRST_TOKENS = 4  # of a line, with the newline
LONGEST = 64  # tokens of the lines that repeat


def line_starts(tokenizer: Tokenizer) -> npt.NDArray[np.bool_]:
    """Whether each id of the vocabulary begins with a newline."""
    newline = "\u010a"  # as byte-level tokenizers write it
    pieces = (tokenizer.id_to_token(i) or "" for i in range(tokenizer.get_vocab_size()))
    return np.array([piece.startswith(newline) for piece in pieces])


def make_loop(
    row: Ids, starts_line: npt.NDArray[np.bool_], rng: np.random.Generator
) -> tuple[Ids, npt.NDArray[np.int64]]:
    """The row with lines of its first half repeated to the end, and `earlier` [len(row) - 1] of `Nano.loss`.

    A row without lines that could repeat comes back as it is.
    """
    earlier = np.full(len(row) - 1, ORDINARY)
    breaks = np.flatnonzero(starts_line[row[: len(row) // 2]])
    lines = int(rng.choice((1, 1, 1, 2, 2, 3, 4)))
    if len(breaks) <= lines:
        return row, earlier
    first = int(rng.integers(len(breaks) - lines))
    start, end = int(breaks[first]), int(breaks[first + lines])
    if end - start > LONGEST or end - start < FIRST_TOKENS:
        return row, earlier
    length = end - start
    looped = np.concatenate([row[:end], np.resize(row[start:end], len(row) - end)])
    # Targets are one token ahead: the target at position p is the token at p + 1.
    positions = np.arange(end, len(row))
    in_line = np.zeros(length, bool)
    for at in breaks[first : first + lines] - start:
        in_line[at : at + FIRST_TOKENS] = True
    earlier[end - 1 :] = np.where(in_line[(positions - start) % length], positions - 1 - length, IGNORED)
    return looped, earlier

"""Rows in which something repeats without end, to teach that it ends: asked greedily, small models fall into this.

A row of real text is cut after a few lines and these lines, or a few words, repeated to its end. Each time, the first
tokens of a line should be at most half as probable as the time before, as Xu et al. 2022 ("Learning to break the loop")
have it for whole sentences; but what a line has begun it should finish. Their loss, the distance to half, hardly moves
a probability near 1; the unlikelihood of Welleck et al. 2020 does.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

Ids = npt.NDArray[np.integer]

ORDINARY, IGNORED = -1, -2  # what stands in place of a position
FADE = 0.5  # of its probability the time before should be left
FIRST_TOKENS = 4  # of a line, with the newline
FEWEST, MOST = 3, 64  # tokens that repeat
WORDS_SHARE = 0.25  # of the loops; the others are of whole lines


def line_starts(tokenizer: Tokenizer) -> npt.NDArray[np.bool_]:
    """Whether each id of the vocabulary begins with a newline."""
    newline = "\u010a"  # as byte-level tokenizers write it
    pieces = (tokenizer.id_to_token(i) or "" for i in range(tokenizer.get_vocab_size()))
    return np.array([piece.startswith(newline) for piece in pieces])


def make_loop(
    row: Ids, starts_line: npt.NDArray[np.bool_], rng: np.random.Generator
) -> tuple[Ids, npt.NDArray[np.int64]]:
    """The row with lines or words of its first half repeated to the end, and `earlier` [len(row) - 1] of `Nano.loss`.

    A row without lines that could repeat comes back as it is.
    """
    earlier = np.full(len(row) - 1, ORDINARY)
    starts, end = _words(len(row) // 2, rng) if rng.random() < WORDS_SHARE else _lines(row, starts_line, rng)
    start = starts[0]
    length = end - start
    if not FEWEST <= length <= MOST:
        return row, earlier
    looped = np.concatenate([row[:end], np.resize(row[start:end], len(row) - end)])
    is_first = np.zeros(length, bool)
    for at in starts - start:
        is_first[at : at + FIRST_TOKENS] = True
    # Targets are one token ahead: the target at position p is the token at p + 1.
    positions = np.arange(end, len(row))
    earlier[end - 1 :] = np.where(is_first[(positions - start) % length], positions - 1 - length, IGNORED)
    return looped, earlier


def _lines(row: Ids, starts_line: npt.NDArray[np.bool_], rng: np.random.Generator) -> tuple[Ids, int]:
    """Where each of some consecutive lines starts, and where the last ends."""
    breaks = np.flatnonzero(starts_line[row[: len(row) // 2]])
    count = int(rng.choice((1, 1, 1, 2, 2, 3, 4)))
    if len(breaks) <= count:
        return np.zeros(1, np.int64), 0
    first = int(rng.integers(len(breaks) - count))
    return breaks[first : first + count], int(breaks[first + count])


def _words(limit: int, rng: np.random.Generator) -> tuple[Ids, int]:
    """Where a few tokens start and end, anywhere."""
    start, length = int(rng.integers(1, limit)), int(rng.integers(FEWEST, 9))
    return np.array([start]), start + length

"""Newlines whose indent is a token of its own, as where a prompt ends after the newline.

The tokenizer has one token for a newline and the indent after it; a prompt that ends with the newline leaves the model
to write the indent alone, which no text in its training looks like unless some are split.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

Ids = npt.NDArray[np.integer]

SHARE = 0.05  # of the newlines; each costs the usual spelling some probability


class IndentSplitter:
    """Splits some newline tokens of a row."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._parts: dict[int, list[int]] = {}  # by id
        for i in range(tokenizer.get_vocab_size()):
            text = tokenizer.decode([i])
            indent = text.lstrip("\n")
            if indent and indent != text and not indent.strip(" "):
                newlines = text.removesuffix(indent)
                self._parts[i] = tokenizer.encode(newlines).ids + tokenizer.encode(indent).ids
        self._splits = np.zeros(tokenizer.get_vocab_size(), bool)
        self._splits[list(self._parts)] = True

    def __call__(self, row: Ids, rng: np.random.Generator, *, keep_length: bool = True) -> Ids:
        """The row with some newlines split, cut to its length if that is to be kept."""
        chosen = np.flatnonzero(self._splits[row] & (rng.random(len(row)) < SHARE))
        pieces, done = [], 0
        for at in chosen:
            pieces += [row[done:at], np.array(self._parts[int(row[at])], row.dtype)]
            done = at + 1
        whole = np.concatenate([*pieces, row[done:]])
        return whole[: len(row)] if keep_length else whole

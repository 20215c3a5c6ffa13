"""Token healing, the engine's part: which tokens may follow until some bytes are spelled.

A prompt that ends inside a word ends in a token that the model rarely saw there. So its last tokens are taken back
(prompts/healing.py), and what is drawn instead must begin with their bytes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterator
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


class TokenTexts(Hashable, Protocol):
    """What it asks of a tokenizer."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        ...

    @property
    def control_token_ids(self) -> frozenset[int]:
        """Ids that stand for no text."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of a token's text."""
        ...


class Spelling:
    """A vocabulary in the order of its tokens' bytes."""

    def __init__(self, tokenizer: TokenTexts) -> None:
        ids = (token for token in range(tokenizer.vocab_size) if token not in tokenizer.control_token_ids)
        pairs = sorted((raw, token) for token in ids if (raw := tokenizer.token_bytes(token)))
        self._texts = [raw for raw, _ in pairs]
        self._ids = np.array([token for _, token in pairs], np.int64)
        self.longest = max(map(len, self._texts), default=0)

    def spans(self, end: bytes) -> bool:
        """Whether a token begins with `end` and goes on."""
        after = bisect_right(self._texts, end)
        return after < len(self._texts) and self._texts[after].startswith(end)

    def following(self, rest: bytes) -> Ids:
        """The tokens that can come where `rest` is to be spelled: those that begin with it, or spell a part of it."""
        parts = [self._range(rest[:size], rest[:size]) for size in self._parts(rest)]
        return np.concatenate([self._range(rest, _last_with(rest)), *parts])

    def _parts(self, rest: bytes) -> Iterator[int]:
        """Sizes of the beginnings of `rest` that are tokens, and after which the remainder can still be spelled."""
        for size in range(1, len(rest)):
            if len(self._range(rest[:size], rest[:size])) and self._possible(rest[size:]):
                yield size

    def _possible(self, rest: bytes) -> bool:
        return len(self._range(rest, _last_with(rest))) > 0 or next(self._parts(rest), None) is not None

    def _range(self, first: bytes, last: bytes) -> Ids:
        return self._ids[bisect_left(self._texts, first) : bisect_right(self._texts, last)]


def _last_with(start: bytes) -> bytes:
    """No token that begins with `start` comes after it."""
    return start + b"\xff" * 1024


@lru_cache(maxsize=4)
def spelling(tokenizer: TokenTexts) -> Spelling:
    """The vocabulary of a tokenizer, sorted once."""
    return Spelling(tokenizer)


class Healing:
    """The bytes that one sequence has yet to spell."""

    def __init__(self, tokenizer: TokenTexts, rest: bytes) -> None:
        self._tokenizer = tokenizer
        self._spelling = spelling(tokenizer)
        self.rest = rest

    def allowed(self) -> Ids:
        """The tokens that may come next."""
        return self._spelling.following(self.rest)

    def take(self, token: int) -> bool:
        """A token has come; whether it spells nothing else."""
        size = len(self._tokenizer.token_bytes(token))
        hidden = size <= len(self.rest)
        self.rest = self.rest[size:]
        return hidden

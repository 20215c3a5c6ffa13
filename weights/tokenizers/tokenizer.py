"""What every tokenizer offers; the kinds are byte_level.py and unigram.py beside this, load.py chooses among them.

Deliberately absent: templates that add tokens by themselves, since no model of the family has any.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from weights.errors import UserError


@dataclass(frozen=True)
class FimTokens:
    """Ids that mark the parts of a fill-in-the-middle prompt."""

    prefix: int
    suffix: int
    middle: int
    pad: int | None = None
    suffix_first: bool = False  # the model does better with what follows the gap before what precedes it


@dataclass(frozen=True)
class SpecialTokens:
    """Ids with a role; None where the vocabulary has no such token."""

    eos: int | None = None
    bos: int | None = None
    pad: int | None = None
    unknown: int | None = None
    fim: FimTokens | None = None


class Tokenizer(ABC):
    """Text to token ids and back. Safe to share between threads."""

    def __init__(self, token_bytes: list[bytes], control: Mapping[int, str], special: SpecialTokens) -> None:
        """`token_bytes[id]` is the text of a token, b"" for the `control` ones, which are given with their spelling."""
        self._token_bytes = token_bytes
        self.control_texts = control
        self.control_token_ids = frozenset(control)
        self.special = special

    @abstractmethod
    def encode(self, text: str, *, parse_special: bool = True) -> list[int]:
        """Token ids of `text`, nothing added at either end.

        With `parse_special`, control tokens spelled out in the text become those tokens, as in
        transformers and in llama.cpp's completions; without it they are ordinary text.
        """

    @cached_property
    def longest_token(self) -> int:
        """Bytes of the longest spelling of a token: so many of a text at most does one token stand for."""
        return max(map(len, (*self._token_bytes, *(text.encode() for text in self.control_texts.values()))), default=1)

    @property
    def vocab_size(self) -> int:
        """Number of token ids, equal to the rows of the embedding table it was loaded for."""
        return len(self._token_bytes)

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text."""
        return self.special.eos

    @property
    def fim(self) -> FimTokens | None:
        """The fill-in-the-middle tokens, None for a model without them."""
        return self.special.fim

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to the text, b"" for control tokens.

        A multi-byte character can be split across tokens. Raises UserError for an unknown id.
        """
        if not 0 <= token_id < len(self._token_bytes):
            raise UserError(
                f"token id {token_id} is not in the vocabulary; expected 0 to "
                f"{len(self._token_bytes) - 1}: give ids of this model"
            )
        return self._token_bytes[token_id]

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of `token_ids`; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.token_bytes, token_ids)).decode("utf-8", errors="replace")

"""A prompt: what the model reads, and what the completion's text must know of it."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import index

from pipelines.text.completion_mode import CodeBlock, block_after
from pipelines.text.lexer import Language
from weights.errors import UserError
from weights.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """Token ids, never empty.

    `before` is the code that the completion follows, `language` its language where that is known, `truncated` whether
    something was cut off. `after` is what stands after the cursor, where a repetition of it ends the completion;
    `crlf` whether the file has such line ends; `continued` whether the model could not read what comes after;
    `healing` are the bytes of the tokens that were `taken_back` at its end, which the completion spells first.
    """

    ids: list[int]
    before: str
    language: Language | None = None
    truncated: bool = False
    after: str = ""
    crlf: bool = False
    continued: bool = False
    healing: bytes = b""
    taken_back: int = 0

    @property
    def tokens(self) -> int:
        """How many tokens it has, with those that were taken back."""
        return len(self.ids) + self.taken_back

    @cached_property
    def block(self) -> CodeBlock:
        """The block of code that the completion is in, found once for all samples."""
        return block_after(self.before, self.language)


def encode_prompt(tokenizer: Tokenizer, prompt: object) -> Prompt:
    """The prompt of a text, or of token ids. Raises UserError for anything else, for none, and for unknown ids."""
    if isinstance(prompt, str):
        if not prompt:
            raise UserError("the prompt is empty; expected at least one token")
        ids = tokenizer.encode(prompt)
        marks = tokenizer.fim is not None and not tokenizer.control_token_ids.isdisjoint(ids)
        return Prompt(ids, before_cursor(tokenizer, ids) if marks else prompt)
    ids = check_ids(tokenizer, prompt)
    return Prompt(ids, before_cursor(tokenizer, ids))


def check_ids(tokenizer: Tokenizer, ids: object) -> list[int]:
    """Token ids as a list. Raises UserError for anything but whole numbers of the vocabulary, and for none."""
    texts = isinstance(ids, (str, bytes, bytearray, memoryview, dict, set))
    if texts or not hasattr(ids, "__iter__") or getattr(ids, "shape", None) == ():  # an array of one number
        raise UserError(f"the prompt is of the type {type(ids).__name__}; expected a text or a list of token ids")
    checked = []
    for token in ids:
        try:
            number = None if isinstance(token, bool) else index(token)
        except TypeError:  # an array has an index too, if it holds one number
            number = None
        if number is None:
            raise UserError(
                f"the prompt holds {reprlib.repr(token)}; expected token ids, which are whole numbers, or one text"
            )
        tokenizer.token_bytes(number)  # raises for an unknown id
        checked.append(number)
    if not checked:
        raise UserError("the prompt is empty; expected at least one token")
    return checked


def before_cursor(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The code that a completion follows: the prompt, or the prefix in a fill-in-the-middle prompt."""
    ids = list(ids)
    if tokenizer.fim is not None and tokenizer.fim.prefix in ids:
        marks = {tokenizer.fim.suffix, tokenizer.fim.middle}
        start = len(ids) - ids[::-1].index(tokenizer.fim.prefix)
        ids = ids[start : next((i for i in range(start, len(ids)) if ids[i] in marks), None)]
    return tokenizer.decode(ids)

"""A gap in code, and the one way from it to the ids that a model reads."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.prompts.cut import rounded_up
from pipelines.prompts.fim import fim_prompt
from pipelines.prompts.prompt import Prompt
from pipelines.text.lexer import Language
from weights.errors import UserError
from weights.tokenizers.tokenizer import Tokenizer

# Of the longest sequence, the part kept for the answer where no number of new tokens is asked for.
ANSWER_SHARE = 4
# The room is counted in this part of the longest sequence, so that requests for some more or fewer tokens, or for none,
# which only warm the cache, are cut alike.
_ANSWER_STEPS = 8


@dataclass(frozen=True)
class Gap:
    """Code around a cursor. All of it is text, whatever it spells.

    `middle` is the beginning of the text in the gap, `context` text of other files; `whole` says that the prefix begins
    where its file does.
    """

    prefix: str
    suffix: str
    language: Language | None = None
    middle: str = ""
    context: str = ""
    whole: bool = False


def prompt_room(max_length: int, max_new_tokens: int | None) -> int:
    """Tokens for a gap's prompt: what the answer leaves, and however long the answer may be, half of the sequence."""
    answer = max_length // ANSWER_SHARE
    if max_new_tokens is not None and max_new_tokens >= 0:
        answer = rounded_up(max(max_new_tokens, 1), max_length // _ANSWER_STEPS)
    return max_length - min(answer, max_length // 2)


def gap_prompt(
    tokenizer: Tokenizer, gap: Gap, max_length: int, max_new_tokens: int | None, suffix_first: bool | None = None
) -> Prompt:
    """The fill-in-the-middle prompt of a gap, in sequences of `max_length` tokens.

    Far ends of the code are cut off where it is too long. `suffix_first` None is the order that the model was trained
    in. Raises UserError for a model without such tokens, and for a text at the gap that does not fit.
    """
    room = prompt_room(max_length, max_new_tokens)
    found = fim_prompt(
        tokenizer, gap.prefix, gap.suffix, room,
        context=gap.context, middle=gap.middle, suffix_first=suffix_first, whole=gap.whole,
    )  # fmt: skip
    return Prompt(found.ids, gap.prefix + gap.middle, gap.language, found.truncated)


def gap_at(text: str, line: int, column: int, name: str, language: Language | None) -> Gap:
    """The gap before character `column` of line `line`, both counted from 1; the last column is after the line.

    Lines are counted as editors do, ended by LF or CRLF. Raises UserError for a place that the text does not have.
    """
    lines = text.split("\n")
    if not 1 <= line <= len(lines):
        raise UserError(f"--line is {line}; expected 1 to {len(lines)}, the lines of {name}")
    last = line == len(lines)
    width = len(lines[line - 1] if last else lines[line - 1].removesuffix("\r"))
    if not 1 <= column <= width + 1:
        raise UserError(f"--column is {column}; expected 1 to {width + 1}, the columns of line {line} of {name}")
    start = sum(len(before) + 1 for before in lines[: line - 1]) + column - 1
    return Gap(text[:start], text[start:], language, whole=True)

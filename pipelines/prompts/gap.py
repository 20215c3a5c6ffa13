"""A gap in code, and the one way from it to the ids that a model reads."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipelines.prompts.cut import encode, end_of_text, keep_context, keep_end, rounded_up
from pipelines.prompts.fim import fim_prompt
from pipelines.prompts.healing import healed, split_text
from pipelines.prompts.prompt import Prompt, check_ids
from pipelines.text.lexer import Language
from pipelines.text.line_ends import has_crlf, with_lf
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
    tokenizer: Tokenizer,
    gap: Gap,
    max_length: int,
    max_new_tokens: int | None,
    suffix_first: bool | None = None,
    heal: bool = False,
) -> Prompt:
    """The fill-in-the-middle prompt of a gap, in sequences of `max_length` tokens.

    Far ends of the code are cut off where it is too long. `suffix_first` None is the order that the model was trained
    in. With `heal` the end of what stands before the gap is spelled again (healing.py), unless nothing is to be
    generated. Raises UserError for a model without such tokens, and for a text at the gap that does not fit.
    """
    gap, crlf = _unified(gap)
    room = prompt_room(max_length, max_new_tokens)
    prefix, middle, end, count = gap.prefix, gap.middle, b"", 0
    if heal and max_new_tokens != 0:
        if middle:
            middle, end, count = split_text(tokenizer, middle)
        else:
            prefix, end, count = split_text(tokenizer, prefix)
    found = fim_prompt(
        tokenizer, prefix, gap.suffix, room,
        context=gap.context, middle=middle, suffix_first=suffix_first, whole=gap.whole,
    )  # fmt: skip
    before = gap.prefix + gap.middle
    return Prompt(
        found.ids, before, gap.language, found.truncated, after=gap.suffix, crlf=crlf, healing=end, taken_back=count
    )


def continued_prompt(
    tokenizer: Tokenizer, gap: Gap, max_length: int, max_new_tokens: int | None, heal: bool = False
) -> Prompt:
    """The prompt of a gap for a model without fill-in-the-middle, which reads what stands before it only.

    The far end is cut off where it is too long, `context` first. Raises UserError where there is nothing to read.
    """
    gap, crlf = _unified(gap)
    before = gap.prefix + gap.middle
    room = prompt_room(max_length, max_new_tokens)
    near = end_of_text(tokenizer, before, room)
    ids = encode(tokenizer, near)
    kept = keep_end(tokenizer, ids, room, gap.whole and near == before)
    extra = keep_context(tokenizer, gap.context, room, len(kept))
    start = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    found = check_ids(tokenizer, [*extra, *kept] or start)
    truncated = len(kept) < len(ids)
    prompt = Prompt(found, before, gap.language, truncated, after=gap.suffix, crlf=crlf, continued=True)
    return healed(tokenizer, prompt) if heal and max_new_tokens != 0 else prompt


def _unified(gap: Gap) -> tuple[Gap, bool]:
    """The gap with LF as its line ends, and whether they were CRLF."""
    if not has_crlf(gap.prefix + gap.middle + gap.suffix):
        return gap, False
    prefix, suffix, middle, context = map(with_lf, (gap.prefix, gap.suffix, gap.middle, gap.context))
    return replace(gap, prefix=prefix, suffix=suffix, middle=middle, context=context), True


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

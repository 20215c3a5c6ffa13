"""Filling a gap in code with a loaded model: the room for the prompt, and what is left of the model's answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.pipeline import Pipeline, TextPiece
from pipelines.prompts.fim import fim_prompt
from pipelines.text.completion_mode import completion_filter
from pipelines.text.lexer import Language
from weights.errors import UserError

# Of the longest sequence, the part kept for the answer where no number of new tokens is asked for.
ANSWER_SHARE = 4


@dataclass(frozen=True)
class Gap:
    """Code around a cursor."""

    prefix: str
    suffix: str
    language: Language | None = None


def fill_ids(pipeline: Pipeline, gap: Gap, max_new_tokens: int, suffix_first: bool = False) -> list[int]:
    """The ids of a fill-in-the-middle prompt that leaves room for the answer.

    Far ends of the code are cut off where it is too long. Raises UserError for a model without such tokens.
    """
    answer = max_new_tokens if max_new_tokens >= 0 else pipeline.max_length // ANSWER_SHARE
    room = pipeline.max_length - max(answer, 1)
    if room < 4:
        raise UserError(
            f"--max-length {pipeline.max_length} leaves {room} tokens for the code around the gap; expected more: "
            "raise it, or lower --max-new-tokens"
        )
    return fim_prompt(pipeline.tokenizer, gap.prefix, gap.suffix, room, suffix_first=suffix_first).ids


def fill(
    pipeline: Pipeline, gap: Gap, completion: str, suffix_first: bool = False, **sampling: Any
) -> Iterator[TextPiece]:
    """Streams the text in the gap; `completion` is where it ends, told by the language of the gap."""
    end = completion_filter(completion, gap.prefix, gap.language)
    ids = fill_ids(pipeline, gap, sampling.get("max_new_tokens", -1), suffix_first)
    for piece in pipeline.stream(ids, **sampling):
        text = end.push(piece.text)
        if piece.finish_reason and not end.stopped:
            text += end.finish()
        yield TextPiece(text, piece.token_ids, 0, "stop" if end.stopped else piece.finish_reason)
        if end.stopped:
            return


def gap_at(text: str, line: int, column: int, name: str, language: Language | None) -> Gap:
    """The gap before character `column` of line `line`, both counted from 1; the last column is after the line.

    Raises UserError for a place that the text does not have.
    """
    lines = text.splitlines(keepends=True)
    if not lines or lines[-1].endswith("\n"):
        lines.append("")  # where an editor's cursor can be, too
    if not 1 <= line <= len(lines):
        raise UserError(f"--line is {line}; expected 1 to {len(lines)}, the lines of {name}")
    width = len(lines[line - 1].rstrip("\r\n"))
    if not 1 <= column <= width + 1:
        raise UserError(f"--column is {column}; expected 1 to {width + 1}, the columns of line {line} of {name}")
    start = sum(map(len, lines[: line - 1])) + column - 1
    return Gap(text[:start], text[start:], language)

"""Fill-in-the-middle prompts: the model's own marker tokens around what stands before and after the gap.

Somebody who types changes the end of what stands before the gap. So that a prefix cache finds all the rest, it comes
last where the model knows that order, and cuts stay where they are (cut.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.prompts.cut import (
    encode,
    end_of_text,
    keep_context,
    keep_end,
    keep_start,
    rounded_up,
    split_room,
    start_of_text,
)
from weights.errors import UserError
from weights.tokenizers.tokenizer import FimTokens, Tokenizer

# The beginning of the text in the gap, a line under way, is counted in this part of the room.
_MIDDLE_STEPS = 64


@dataclass(frozen=True)
class FimPrompt:
    """Token ids, and whether something was cut off."""

    ids: list[int]
    truncated: bool


def require_fim(tokenizer: Tokenizer) -> FimTokens:
    """The marker tokens. Raises UserError for a model that has none."""
    if tokenizer.fim is None:
        raise UserError(
            "this model has no fill-in-the-middle tokens; expected a model trained with them: "
            "send a prompt without a suffix"
        )
    return tokenizer.fim


def fim_prompt(
    tokenizer: Tokenizer,
    prefix: str | list[int],
    suffix: str,
    room: int,
    *,
    context: str = "",
    middle: str = "",
    suffix_first: bool | None = None,
    whole: bool = False,
) -> FimPrompt:
    """Prefix, suffix, middle (PSM order), in at most `room` tokens.

    With `suffix_first`, by default where the model was trained so: the end-of-text token, suffix, prefix, middle. The
    text in the gap then goes on right after what stands before it, which small models do better.

    A part that is too long loses its far end, on a line boundary where it has one; the prefix keeps three tokens for
    each one of the suffix. `context` (from other files) stands before everything and gives way first; `middle` is the
    beginning of the text in the gap; `whole` says that the prefix begins where its file does. Raises UserError where
    the markers and `middle` alone do not fit.
    """
    fim = require_fim(tokenizer)
    whole = whole and (isinstance(prefix, list) or end_of_text(tokenizer, prefix, room) == prefix)
    before = prefix if isinstance(prefix, list) else encode(tokenizer, end_of_text(tokenizer, prefix, room))
    after = encode(tokenizer, start_of_text(tokenizer, suffix, room))
    # What is not cut is refused where it is too long, which so much of it tells as well.
    start = encode(tokenizer, start_of_text(tokenizer, middle, room))
    suffix_first = fim.suffix_first if suffix_first is None else suffix_first
    opening = [] if tokenizer.eos_token_id is None or not suffix_first else [tokenizer.eos_token_id]
    if len(start) > room - 3 - len(opening):
        raise UserError(f"the text at the gap has {len(start)} tokens; expected at most {room - 3}: shorten it")
    left = max(room - 3 - len(opening) - rounded_up(max(len(start), 1), room // _MIDDLE_STEPS), 0)
    for_before, for_after = split_room(left, len(before), len(after))
    kept_before = keep_end(tokenizer, before, for_before, whole)
    kept_after = keep_start(tokenizer, after, for_after)
    extra = keep_context(tokenizer, context, left, len(kept_before) + len(kept_after))
    parts = [fim.prefix, *kept_before], [fim.suffix, *kept_after]
    first, second = reversed(parts) if suffix_first else parts
    ids = [*opening, *extra, *first, *second, fim.middle, *start]
    truncated = len(before) > len(kept_before) or len(after) > len(kept_after)
    return FimPrompt(ids, truncated)

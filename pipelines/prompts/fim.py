"""Fill-in-the-middle prompts: the model's own marker tokens around what stands before and after the gap."""

from __future__ import annotations

from dataclasses import dataclass

from weights.errors import UserError
from weights.tokenizers.tokenizer import FimTokens, Tokenizer

# Of the room, the part before the gap gets this share where both are too long.
PREFIX_SHARE = 0.75


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
    suffix_first: bool = False,
) -> FimPrompt:
    """Prefix, suffix, middle (PSM order), in at most `room` tokens.

    With `suffix_first`, or where the model's file asks for it (nano's does): the end-of-text token, suffix, prefix,
    middle. The text in the gap then goes on right after what stands before it, which small models do better.

    A part that is too long loses its far end, on a line boundary where it has one; the prefix keeps three tokens for
    each one of the suffix. `context` (from other files) stands before everything and gives way first; `middle` is the
    beginning of the text in the gap. Raises UserError where the markers and `middle` alone do not fit.
    """
    fim = require_fim(tokenizer)
    before = prefix if isinstance(prefix, list) else encode(tokenizer, prefix)
    after, start = encode(tokenizer, suffix), encode(tokenizer, middle)
    suffix_first = suffix_first or fim.suffix_first
    opening = [] if tokenizer.eos_token_id is None or not suffix_first else [tokenizer.eos_token_id]
    left = room - 3 - len(opening) - len(start)
    if left < 0:
        raise UserError(f"the text at the gap has {len(start)} tokens; expected at most {room - 3}: shorten it")
    for_before, for_after = split_room(left, len(before), len(after))
    kept_before = keep_end(tokenizer, before, for_before)
    kept_after = keep_start(tokenizer, after, for_after)
    extra = encode(tokenizer, context)
    room_for_extra = left - len(kept_before) - len(kept_after)
    kept_extra = keep_end(tokenizer, extra, room_for_extra)
    parts = [fim.prefix, *kept_before], [fim.suffix, *kept_after]
    first, second = reversed(parts) if suffix_first else parts
    ids = [*opening, *kept_extra, *first, *second, fim.middle, *start]
    truncated = len(before) > for_before or len(after) > for_after
    return FimPrompt(ids, truncated)


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a user's text, in which a marker's spelling is only text."""
    return tokenizer.encode(text, parse_special=False) if text else []


def split_room(room: int, before: int, after: int) -> tuple[int, int]:
    """Tokens for each part: 3 to 1, what one does not need goes to the other."""
    if before + after <= room:
        return before, after
    share = int(room * PREFIX_SHARE)
    for_before = min(before, max(share, room - after))
    return for_before, min(after, room - for_before)


def keep_end(tokenizer: Tokenizer, ids: list[int], room: int) -> list[int]:
    """The last `room` ids, from the first beginning of a line among them on."""
    if len(ids) <= room:
        return ids
    kept = ids[len(ids) - room :]
    _, newline, lines = tokenizer.decode(kept).partition("\n")
    whole = encode(tokenizer, lines) if newline and lines.strip() else []
    return whole if 0 < len(whole) <= room else kept


def keep_start(tokenizer: Tokenizer, ids: list[int], room: int) -> list[int]:
    """The first `room` ids, up to the last end of a line among them."""
    if len(ids) <= room:
        return ids
    kept = ids[:room]
    lines, newline, _ = tokenizer.decode(kept).rpartition("\n")
    whole = encode(tokenizer, lines + newline) if lines.strip() else []
    return whole if 0 < len(whole) <= room else kept

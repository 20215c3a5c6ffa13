"""Where code that is too long is cut: so that the cut stays where it is while somebody types.

A cut that moved with every token would change the beginning of the prompt, and nothing that was read before could be
used again. The content itself says where to cut: of the lines that would do, the one whose hash is lowest. It stays the
lowest however far the text or an editor's window on it moves, until it drops out of what fits. Editors send so many
lines before the cursor and drop the first of them at every new line, so that text which does not look like the start
of a file is cut even where it fits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from zlib import crc32

import numpy as np
import numpy.typing as npt

from weights.tokenizers.tokenizer import Tokenizer

# What is cut off moves by up to this part of the room.
STEPS = 4
# What the shorter part of a prompt needs is counted in this part of the room: typing in it leaves the other's cut.
_FINE_STEPS = 16
# Tokens of a window that may as well be read again at every new line.
_SMALL_WINDOW = 256
# Bytes of a token that are taken for granted: text farther off is not looked at.
_LONG_TOKEN = 16
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
# How files begin in the languages of these models: comments, imports and directives in the first column.
_FILE_START = re.compile(
    rb"\s*?^(#|//|/\*|--|<|\"|'|(import|from|package|use|using|module|require|namespace|extern|library)\b)",
    re.MULTILINE,
)


def end_of_text(tokenizer: Tokenizer, text: str, room: int) -> str:
    """The end of a text, far more than `room` tokens of it, from the beginning of a line on where one is near.

    So that nobody waits for the encoding of what is not read. The place moves in steps, not with every character.
    """
    most = tokenizer.longest_token * (room + room // STEPS) + 1
    if len(text) <= most:
        return text
    step = max(most // _FINE_STEPS, 1)
    start = rounded_up(len(text) - most, step)
    line = text.find("\n", start, start + step)
    return text[start if line < 0 else line + 1 :]


def start_of_text(tokenizer: Tokenizer, text: str, room: int) -> str:
    """The beginning of a text, far more than `room` tokens of it."""
    return text[: tokenizer.longest_token * (room + room // STEPS) + 1]


def rounded_up(count: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-count // max(step, 1)) * max(step, 1)


def split_room(room: int, before: int, after: int) -> tuple[int, int]:
    """Tokens for each part: 3 to 1, what one does not need goes to the other, in steps."""
    if before + after <= room:
        return before, after
    step = room // STEPS
    needed = rounded_up(after, room // _FINE_STEPS)
    for_after = min(needed, max(room - rounded_up(before, step), step))
    return room - for_after, for_after


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a user's text, in which a marker's spelling is only text."""
    return tokenizer.encode(text, parse_special=False) if text else []


def keep_end(tokenizer: Tokenizer, ids: list[int], room: int, whole: bool = False) -> list[int]:
    """At most the last `room` ids, from the beginning of a line on where one is near.

    Unless they are the `whole` of what there is, or look like it, or are few, they are cut in any case.
    """
    if len(ids) <= room and (
        whole or len(ids) <= _SMALL_WINDOW or starts_a_file(b"".join(map(tokenizer.token_bytes, ids[:64])))
    ):
        return ids
    ids = ids[-_LONG_TOKEN * room :] if room else []
    room = min(room, len(ids))
    ends, text = _ends(tokenizer, ids)
    places = [(len(ids) - int(np.searchsorted(ends, start, "right")), start) for start in _line_starts(text)]
    for start in _by_rank(places, text, room):
        kept = encode(tokenizer, text[start:].decode("utf-8", errors="replace"))
        if len(kept) <= room:
            return kept
    step = max(room // STEPS, 1)
    return ids[rounded_up(len(ids) - room, step) :]


def keep_start(tokenizer: Tokenizer, ids: list[int], room: int) -> list[int]:
    """At most the first `room` ids, up to the end of a line where one is near."""
    if len(ids) <= room:
        return ids
    ids = ids[: _LONG_TOKEN * room]
    ends, text = _ends(tokenizer, ids)
    places = [(int(np.searchsorted(ends, start, "left")) + 1, start) for start in _line_starts(text)]
    for end in _by_rank(places, text, room):
        kept = encode(tokenizer, text[:end].decode("utf-8", errors="replace"))
        if len(kept) <= room:
            return kept
    return ids[:room]


def keep_context(tokenizer: Tokenizer, text: str, room: int, used: int) -> list[int]:
    """What fits of other files beside `used` tokens of this one, whose growth it does not follow token by token."""
    ids = encode(tokenizer, end_of_text(tokenizer, text, room))
    if len(ids) <= room - used:
        return ids
    return keep_end(tokenizer, ids, max(room - rounded_up(used, room // STEPS), 0), whole=True)


def starts_a_file(text: bytes) -> bool:
    """Whether a text looks like the start of a file rather than like a window on one."""
    return _FILE_START.match(text) is not None


def _text(tokenizer: Tokenizer, ids: list[int]) -> bytes:
    return b"".join(map(tokenizer.token_bytes, ids))


def _ends(tokenizer: Tokenizer, ids: list[int]) -> tuple[npt.NDArray[np.int64], bytes]:
    """Where each token ends in the text, and the text, in bytes."""
    parts = [tokenizer.token_bytes(token) for token in ids]
    return np.cumsum([len(part) for part in parts]), b"".join(parts)


def _line_starts(text: bytes) -> Iterable[int]:
    """The beginnings of lines after the first."""
    return (match.start() for match in _LINE.finditer(text) if match.start())


def _by_rank(places: list[tuple[int, int]], text: bytes, room: int) -> Iterator[int]:
    """Beginnings of lines in the order in which they are to be tried; `places` say how many tokens each would keep.

    First those that cut off less than a step, then those that cut off less than two.
    """
    least = [room - room * steps // STEPS for steps in (0, 1, 2)]
    for low, high in ((least[1], room), (least[2], least[1] - 1)):
        fitting = [start for kept, start in places if low <= kept <= high and _words(text, start)]
        yield from sorted(fitting, key=lambda start: crc32(_words(text, start)))


def _words(text: bytes, start: int) -> bytes:
    """What a line is known by: itself and the next one; nothing for a blank line."""
    first = _LINE.match(text, start)
    if first is None or not first[0].strip():
        return b""
    second = _LINE.match(text, first.end())
    return first[0].rstrip() + b"\n" + (second[0].rstrip() if second else b"")

"""Fill-in-the-middle rearrangement of a document at character level (Bavarian et al. 2022).

PSM: <fim_prefix>P<fim_suffix>S<fim_middle>M    SPM: <fim_suffix>S<fim_prefix>P<fim_middle>M
"""

from __future__ import annotations

import random
from collections.abc import Iterator

END = "<|endoftext|>"
PREFIX, MIDDLE, SUFFIX, PAD = "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>"
SPECIAL_TOKENS = [END, PREFIX, MIDDLE, SUFFIX, PAD]  # their ids are 0..4, in this order


def segments(text: str, rng: random.Random) -> Iterator[str]:
    """Consecutive pieces of a file, whole lines, 300 to 2 800 characters each: about a row of 1 024 tokens at most."""
    piece, size, target = [], 0, rng.randint(300, 2800)
    for line in text.splitlines(keepends=True):
        piece.append(line)
        size += len(line)
        if size >= target:
            yield "".join(piece)
            piece, size, target = [], 0, rng.randint(300, 2800)
    if size > 100:
        yield "".join(piece)


def split_points(text: str, rng: random.Random) -> tuple[int, int]:
    """Start and end of the middle, in characters, as cursors stand in editors.

    Whole lines (35 %), the rest of a line and perhaps more lines (25 %), the rest of what a bracket encloses (15 %),
    everything up to the end of the text (7 %), any span (18 %).
    """
    choice = rng.random()
    if choice < 0.18:
        a, b = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        return a, b
    if choice < 0.25:
        return rng.randrange(max(0, len(text) - 400), len(text)), len(text)
    if choice < 0.40 and (found := _inside_brackets(text, rng)):
        return found
    start = rng.randrange(len(text))
    if choice >= 0.65:  # whole lines, as an editor asks when the cursor is on an empty line
        start = text.rfind("\n", 0, start) + 1
    end = start
    for _ in range(rng.choice((1, 1, 1, 1, 2, 3, 5))):
        found_end = text.find("\n", end + 1)
        end = found_end if found_end >= 0 else len(text)
    return start, end


def _inside_brackets(text: str, rng: random.Random) -> tuple[int, int] | None:
    """From somewhere after an opening bracket, mostly right after it, to its closing one, at most 200 characters on."""
    opened = text.find("(", rng.randrange(len(text)))
    depth = 0
    for at in range(opened, min(opened + 200, len(text))) if opened >= 0 else ():
        depth += (text[at] in "([{") - (text[at] in ")]}")
        if depth == 0:
            return (opened + 1 if rng.random() < 0.6 else rng.randint(opened + 1, at)), at
    return None


def rearrange(text: str, rng: random.Random) -> str:
    """One document with its middle moved to the end: SPM, which nano's file asks for, three times of four, else PSM."""
    a, b = split_points(text, rng)
    head, middle, tail = text[:a], text[a:b], text[b:]
    if rng.random() < 0.25:
        return f"{PREFIX}{head}{SUFFIX}{tail}{MIDDLE}{middle}"
    return f"{SUFFIX}{tail}{PREFIX}{head}{MIDDLE}{middle}"


def restore(document: str) -> str:
    """The text that `rearrange` was given."""
    before, middle = document.split(MIDDLE)
    if before.startswith(PREFIX):
        head, tail = before.removeprefix(PREFIX).split(SUFFIX)
    else:
        tail, head = before.removeprefix(SUFFIX).split(PREFIX)
    return head + middle + tail

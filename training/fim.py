"""Fill-in-the-middle rearrangement of a document at character level (Bavarian et al. 2022).

PSM: <fim_prefix>P<fim_suffix>S<fim_middle>M    SPM: <fim_suffix>S<fim_prefix>P<fim_middle>M
"""

from __future__ import annotations

import random

END = "<|endoftext|>"
PREFIX, MIDDLE, SUFFIX, PAD = "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>"
SPECIAL_TOKENS = [END, PREFIX, MIDDLE, SUFFIX, PAD]  # their ids are 0..4, in this order


def split_points(text: str, rng: random.Random) -> tuple[int, int]:
    """Start and end of the middle, in characters: any span, the rest of a line, or whole lines, a third of each."""
    if rng.random() < 1 / 3:
        a, b = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        return a, b
    start = rng.randrange(len(text))
    if rng.random() < 0.5:  # whole lines, as an editor asks when the cursor is on an empty line
        start = text.rfind("\n", 0, start) + 1
    end = start
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        found = text.find("\n", end + 1)
        end = found if found >= 0 else len(text)
    return start, end


def rearrange(text: str, rng: random.Random) -> str:
    """One document with its middle moved to the end, PSM or SPM with equal chance."""
    a, b = split_points(text, rng)
    head, middle, tail = text[:a], text[a:b], text[b:]
    if rng.random() < 0.5:
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

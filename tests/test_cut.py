"""Cuts of prompts that are too long: on lines, within the room, and where they were while somebody types."""

from __future__ import annotations

import random
from itertools import pairwise
from statistics import quantiles

import pytest

from pipelines.pipeline import Pipeline
from pipelines.prompts.cut import STEPS, keep_end, keep_start, rounded_up, split_room
from pipelines.prompts.fim import fim_prompt
from pipelines.prompts.gap import prompt_room

WORDS = "self value index path read write items return None config result name size data key lines buffer node".split()
LINES_BEFORE, LINES_AFTER = 256, 64  # what llama.vim sends


def code(rng: random.Random, lines: int) -> list[str]:
    """Lines like code: indented, of a few words, every eighth blank."""
    return [
        "" if rng.random() < 0.12 else "    " * rng.randrange(4) + " ".join(rng.choices(WORDS, k=rng.randrange(1, 9)))
        for _ in range(lines)
    ]


def test_far_ends_are_cut_on_line_boundaries(nano: Pipeline) -> None:
    tokenizer = nano.tokenizer
    lines = [f"value_{i} = {i}\n" for i in range(100)]
    ids = tokenizer.encode("".join(lines))
    for room in range(40, 200, 7):
        end, start = keep_end(tokenizer, ids, room), keep_start(tokenizer, ids, room)
        assert room // 2 - 10 < len(end) <= room
        assert room // 2 - 10 < len(start) <= room
        assert "".join(lines).endswith("\n" + tokenizer.decode(end))
        assert "".join(lines).startswith(tokenizer.decode(start))
        assert tokenizer.decode(start).endswith("\n")


@pytest.mark.parametrize("text", ["x" * 9000, "é" * 3000, "\n" * 500, "a b " * 900, " " * 7000, "漢字" * 900])
def test_text_without_lines_is_cut_somewhere(nano: Pipeline, text: str) -> None:
    ids = nano.tokenizer.encode(text)
    for room in (0, 1, 2, 3, 63, 64, len(ids) - 1):
        assert len(keep_end(nano.tokenizer, ids, room)) <= room
        assert len(keep_start(nano.tokenizer, ids, room)) <= room
        assert len(fim_prompt(nano.tokenizer, text, text, room + 36, context=text).ids) <= room + 36


def test_room_is_shared_three_to_one_in_steps() -> None:
    assert split_room(100, 500, 500) == (75, 25)
    assert split_room(100, 10, 500) == (25, 75)
    assert split_room(100, 500, 10) == (88, 12)
    assert split_room(100, 40, 50) == (40, 50)
    for room in range(400):
        for before, after in ((room, 1), (1, room), (3 * room, room), (room, 3 * room), (0, 9999), (9999, 0)):
            parts = split_room(room, before, after)
            assert min(parts) >= 0
            assert sum(parts) <= room or sum(parts) == before + after <= room


def test_the_room_for_a_prompt_has_one_formula() -> None:
    assert prompt_room(2048, -1) == prompt_room(2048, None) == 1536
    assert prompt_room(2048, 0) == prompt_room(2048, 8) == prompt_room(2048, 256) == 1792
    assert prompt_room(2048, 257) == 1536
    assert prompt_room(2048, 100000) == 1024
    for length in range(1, 300):
        for wanted in (*range(-1, 40), 10**9):
            assert length // 2 <= prompt_room(length, wanted) <= max(length - min(wanted, length // 2), length // 2)


class Editor:
    """A file and a cursor; edits as a person makes them."""

    def __init__(self, rng: random.Random, lines: int) -> None:
        self.rng = rng
        self.lines = code(rng, lines)
        self.line = rng.randrange(lines // 2, lines)
        self.typed = ""

    def edit(self) -> bool:
        """One edit; True where the cursor has gone elsewhere, to text that was not asked about before."""
        kind = self.rng.random()
        if kind < 0.75:
            self.typed += self.rng.choice(["se", "lf.", "x", " = ", "(n", "um", "ret", "urn "])
        elif kind < 0.87:
            self.lines[self.line : self.line] = [self.typed]
            self.line, self.typed = self.line + 1, "    "
        elif kind < 0.97:
            self.typed = self.typed[:-2]
        else:
            self.line, self.typed = self.rng.randrange(len(self.lines) // 2, len(self.lines)), ""
            return True
        return False

    def request(self) -> tuple[str, str, str]:
        """What llama.vim sends: lines before, lines after, the line under way."""
        before = self.lines[max(0, self.line - LINES_BEFORE) : self.line]
        after = self.lines[self.line : self.line + LINES_AFTER]
        return "\n".join([*before, ""]), "\n" + "\n".join(after), self.typed


def common(a: list[int], b: list[int]) -> int:
    """Tokens that two prompts begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@pytest.mark.parametrize("context", [0, 600])
def test_keystrokes_leave_the_beginning_of_the_prompt_as_it_was(nano: Pipeline, context: int) -> None:
    rng = random.Random(18)
    fresh, moves = [], 0
    for _ in range(10):
        editor = Editor(rng, rng.randrange(150, 500))
        extra = "\n".join(code(rng, context))
        known: list[list[int]] = []
        for _ in range(50):
            elsewhere = editor.edit()
            before, after, typed = editor.request()
            prompt = fim_prompt(nano.tokenizer, before, after, 1792, context=extra, middle=typed, suffix_first=True).ids
            assert len(prompt) <= 1792
            if known and not elsewhere:
                fresh.append(len(prompt) - max(common(prompt, other) for other in known))
                moves += fresh[-1] > 300
            known.append(prompt)
    assert len(fresh) > 400
    assert sorted(fresh)[len(fresh) // 2] <= 6
    assert quantiles(fresh, n=20)[-1] <= 40
    assert moves <= len(fresh) // 50


def test_a_cut_stays_while_a_file_grows_by_a_step(nano: Pipeline) -> None:
    lines = code(random.Random(3), 600)
    room, cuts = 1000, []
    for count in range(300, 600):
        ids = nano.tokenizer.encode("\n".join(lines[max(0, count - LINES_BEFORE) : count]))
        kept = nano.tokenizer.decode(keep_end(nano.tokenizer, ids, room))
        cuts.append(kept.split("\n", 1)[0])
    changes = sum(a != b for a, b in pairwise(cuts))
    # 300 lines are about 3 000 tokens: each step is a quarter of the room, half of it on average.
    assert changes <= 3 * rounded_up(3000, room // STEPS) // (room // STEPS)

"""Records what an editor asks while somebody writes: edits on real files, as requests of the text around the cursor.

Some lines of a file are taken out and typed again: three characters between two requests, a new line, a slip taken
back, a suggestion accepted, a look at another place and back.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# What llama.vim and llama.vscode send around the cursor, and of other files.
LINES_BEFORE, LINES_AFTER, CHUNK_LINES = 256, 64, 64
_TYPED = 3  # characters between two requests


@dataclass(frozen=True)
class Keystroke:
    """A request's place: all text before the cursor and after it.

    `elsewhere` marks places that were not asked about before; there everything has to be read.
    """

    before: str
    after: str
    kind: str
    elsewhere: bool = False

    def window(self) -> tuple[str, str, str]:
        """Lines before the cursor's, the beginning of its line, and what follows, as editors cut them."""
        lines = self.before.split("\n")
        after = self.after.split("\n")[: LINES_AFTER + 1]
        return "".join(f"{line}\n" for line in lines[:-1][-LINES_BEFORE:]), lines[-1], "\n".join(after)


def source_files(folder: Path, least_lines: int = 120) -> list[Path]:
    """The folder's Python files that are long enough, in an order of their own; tests and data left out."""
    found = [
        path
        for path in sorted(folder.rglob("*.py"))
        if "test" not in str(path.relative_to(folder)).lower()
        and path.read_text("utf-8", "ignore").count("\n") >= least_lines
    ]
    random.Random(18).shuffle(found)
    return found


def record(text: str, count: int, rng: random.Random) -> Iterator[Keystroke]:
    """`count` keystrokes in a file, and some looks elsewhere between them."""
    lines = text.split("\n")
    place = rng.randrange(len(lines) // 2, max(len(lines) - 30, len(lines) // 2 + 1))
    before = "\n".join(lines[:place]) + "\n"
    wanted = "\n".join(lines[place : place + 25])
    after = "\n" + "\n".join(lines[place + 25 :])
    yield Keystroke(before, after, "opened", elsewhere=True)
    made = position = 0
    while made < count:
        chance = rng.random()
        kind = "typed"
        if position >= len(wanted):
            wanted, position = wanted + "\n    return None\n", position
        if chance < 0.06 and made:
            other = rng.randrange(len(lines) // 2, len(lines) - 1)
            top = "\n".join(lines[:other]) + "\n"
            yield Keystroke(top, "\n" + "\n".join(lines[other:]), "elsewhere", elsewhere=True)
            kind = "back"
        elif chance < 0.16:
            yield Keystroke(before + wanted[:position] + "xy", after, "slip")
            made, kind = made + 1, "backspace"
        elif chance < 0.24:
            position, kind = _end_of_line(wanted, position), "accepted"
        else:
            position = min(position + _TYPED, len(wanted))
        yield Keystroke(before + wanted[:position], after, kind)
        made += 1


def _end_of_line(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end + 1


def chunks(files: list[Path], rng: random.Random) -> Iterator[dict[str, str]]:
    """Parts of other files, as llama.vim's ring holds them."""
    while True:
        path = rng.choice(files)
        lines = path.read_text("utf-8", "ignore").split("\n")
        start = rng.randrange(max(len(lines) - CHUNK_LINES, 1))
        yield {"filename": path.name, "text": "\n".join(lines[start : start + CHUNK_LINES]) + "\n"}

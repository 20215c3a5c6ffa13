"""Where a completion ends by its own text: at the end of the line, or of the block; and whitespace at its end.

Filters over pieces of text. Each has `push`, which returns what can be shown at once, `finish`, which returns what
was held back, and `stopped`.
"""

from __future__ import annotations

import copy
from typing import Protocol

from pipelines.text.brace_block import BraceBlock
from pipelines.text.lexer import PYTHON, Language, guess_language
from pipelines.text.python_block import PythonBlock


class TextFilter(Protocol):
    """Passes a stream of text on, up to an end that it finds."""

    stopped: bool

    def push(self, text: str) -> str:
        """What can be shown after `text`; sets `stopped` at the end."""
        ...

    def finish(self) -> str:
        """What was held back, when no more text comes."""
        ...


class Line:
    """Ends before the line break of the first line that is not blank."""

    def __init__(self) -> None:
        self.stopped = False
        self._blank = True
        self._held = ""  # a carriage return, which may be half a line break

    def push(self, text: str) -> str:
        """See `TextFilter`."""
        if self.stopped:
            return ""
        text, self._held = self._held + text, ""
        start = len(text) - len(text.lstrip()) if self._blank else 0
        self._blank = self._blank and start == len(text)
        end = -1 if self._blank else text.find("\n", start)
        self.stopped = end >= 0
        if self.stopped:
            return text[:end].removesuffix("\r")
        if text.endswith("\r"):
            text, self._held = text[:-1], "\r"
        return text

    def finish(self) -> str:
        """See `TextFilter`."""
        return "" if self.stopped else self._held


CodeBlock = PythonBlock | BraceBlock


class Block:
    """Ends after the last line of the block around the cursor, without its line break.

    The block is the body that the code before the cursor announces or is in; at the top level, one statement with its
    body. A clause such as `else` belongs to it. Line breaks are held back until the next line tells.
    """

    def __init__(self, block: CodeBlock) -> None:
        """`block` has taken the code before the cursor; it is copied."""
        self.stopped = False
        self._held = ""
        self._block = copy.deepcopy(block)

    def push(self, text: str) -> str:
        """See `TextFilter`."""
        ready = []
        for char in text:
            if self.stopped:
                break
            verdict = self._block.feed(char)
            if verdict == "undecided" or (verdict == "inside" and char == "\r"):
                self._held += char
            elif verdict == "inside":
                ready.append(self._held + char)
                self._held = ""
            else:
                self.stopped, self._held = True, ""
        return "".join(ready)

    def finish(self) -> str:
        """See `TextFilter`."""
        held, self._held = self._held, ""
        if self.stopped:
            return ""
        # An undecided last word that is no clause goes, with the line break before it.
        return held if self._block.at_end() else ""


class Strip:
    """Passes everything on but the whitespace at the end."""

    stopped = False

    def __init__(self) -> None:
        self._held = ""

    def push(self, text: str) -> str:
        """See `TextFilter`."""
        text = self._held + text
        kept = text.rstrip()
        self._held = text[len(kept) :]
        return kept

    def finish(self) -> str:
        """See `TextFilter`."""
        return ""


# Characters before the cursor that say which block it is in: more than a model reads, and few enough not to wait for.
_RECENT = 32 << 10


def recent(prefix: str) -> str:
    """The end of the code before the cursor, from the beginning of a line on where there is one."""
    if len(prefix) <= _RECENT:
        return prefix
    near = prefix[-_RECENT:]
    return near[near.find("\n") + 1 :]


def block_after(prefix: str, language: Language | None = None) -> CodeBlock:
    """The block that the code `prefix` is in, whose language is guessed if not given: 50 ms for a long one."""
    near = recent(prefix)
    found = language or guess_language(near)
    block = PythonBlock() if found is PYTHON else BraceBlock(found)
    block.skip(near)
    return block

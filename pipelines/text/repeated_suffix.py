"""Ends a completion where it repeats what stands right after the cursor: `x = foo(|)` continued by `x)`."""

from __future__ import annotations

from pipelines.text.beginning import Beginning

_OPENING, _CLOSING = "([{", ")]}"
_QUOTES = "\"'`"
_OPERATORS = "=<>!+-*/%&|^:."
# Characters below which a line, and a line of one word such as `end` or `else:`, may well stand in both places.
_TELLING, _TELLING_WORD = 6, 12
# Characters that are held back at most: as many of the suffix, repeated, tell enough.
_MOST_HELD = 1000


class RepeatedSuffix:
    """A `TextFilter`. What could be the beginning of the suffix is held back until a line end, or the end, tells.

    A repetition counts where the text before it stands by itself: no bracket or string of its own is left open, no
    word or operator is cut in two. If it begins on a later line, it must be long enough to tell, or close a bracket.
    Where the suffix goes on and the text has a line end, it must close a bracket: `x)` before `)  # why`.
    """

    def __init__(self, suffix: str) -> None:
        self._suffix = (suffix if suffix.endswith("\n") else suffix + "\n")[: _MOST_HELD + 1]
        self._beginning = Beginning(self._suffix)
        self._held: list[str] = []  # the longest end of the text that is a beginning of the suffix
        self._opens: list[bool] = []  # whether something is open before each of its characters
        self._code = _Code()  # after all of the text
        self._last = ""  # the character before what is held
        self.stopped = False

    def push(self, text: str) -> str:
        """See `TextFilter`."""
        shown: list[str] = []
        for char in text:
            if char == "\n" and self._held and not self._suffix.startswith("\n", self._beginning.length):
                self.stopped = self._end(shown, closing=True)
            if self.stopped:
                break
            self._opens.append(self._code.open)
            self._code.feed(char)
            self._held.append(char)
            self._show(len(self._held) - self._beginning.feed(char), shown)
            full = len(self._held) == _MOST_HELD
            self.stopped = (char == "\n" or full) and self._end(shown, full)
            if full and not self.stopped:
                self._show(_MOST_HELD, shown)
                self._beginning.length = 0
        return "".join(shown)

    def finish(self) -> str:
        """See `TextFilter`."""
        shown: list[str] = []
        if not self.stopped and not self._end(shown):  # the text has ended for another reason
            self._show(len(self._held), shown)
        return "".join(shown)

    def _show(self, count: int, shown: list[str]) -> None:
        """Holds the first `count` characters back no longer."""
        if count:
            shown += self._held[:count]
            self._last = shown[-1]
            del self._held[:count], self._opens[:count]

    def _end(self, shown: list[str], goes_on: bool = False, closing: bool = False) -> bool:
        """Whether what is held repeats the suffix, which is then dropped; what stands before it is shown.

        If it `goes_on`, it is no end of a word where the repetition ends. With `closing` only one counts that closes a
        bracket.
        """
        held = "".join(self._held)
        blank = len(held) - len(held.rstrip())
        length = len(held)
        closes = _closes(held) if closing else [True] * length
        while length > blank:
            begin = len(held) - length
            if not self._opens[begin] and closes[begin] and self._counts(held, begin, goes_on):
                self._show(begin, shown)
                self._held.clear()
                return True
            length = self._beginning.shorter(length)
        return False

    def _counts(self, held: str, begin: int, goes_on: bool) -> bool:
        """Whether the end of what is held from `begin` on tells."""
        repeated = held[begin:]
        telling = repeated.strip()
        before, following = held[begin - 1] if begin else self._last, self._suffix[len(repeated) :][:1]
        if _joined(before, repeated[:1]) or (not goes_on and _joined(repeated[-1:], following)):
            return False
        same_line = "\n" not in repeated[: len(repeated) - len(repeated.lstrip())]
        least = _TELLING_WORD if telling.rstrip(":;").isidentifier() else _TELLING
        return same_line or len(telling) >= least or telling[0] in _CLOSING


def _joined(left: str, right: str) -> bool:
    """Whether two characters stand inside one word, or one operator."""
    if not left or not right:
        return False
    words = all(char.isalnum() or char == "_" for char in (left, right))
    return words or (left in _OPERATORS and right in _OPERATORS)


def _closes(text: str) -> list[bool]:
    """For each place of a text, whether what follows closes a bracket that it has not opened."""
    found: list[bool] = []
    least = 0  # of the depths from the place on
    for char in reversed(text):
        least = min(least + (char in _OPENING) - (char in _CLOSING), 0)
        found.append(least < 0)
    return found[::-1]


class _Code:
    """Follows a text; `open` is whether a bracket or, on its last line, a string of its own is still open."""

    def __init__(self) -> None:
        self._depth, self._quote, self._escaped = 0, "", False

    @property
    def open(self) -> bool:
        return self._depth > 0 or bool(self._quote)

    def feed(self, char: str) -> None:
        if self._quote:
            if char == "\n" or (char == self._quote and not self._escaped):
                self._quote = ""
            self._escaped = char == "\\" and not self._escaped
        elif char in _QUOTES:
            self._quote, self._escaped = char, False
        elif char in _OPENING:
            self._depth += 1
        elif char in _CLOSING:
            self._depth = max(self._depth - 1, 0)

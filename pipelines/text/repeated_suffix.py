"""Ends a completion where it repeats what stands right after the cursor: `x = foo(|)` continued by `x)`."""

from __future__ import annotations

_OPENING, _CLOSING = "([{", ")]}"
_QUOTES = "\"'`"
_OPERATORS = "=<>!+-*/%&|^:."
# Characters below which a line, and a line of one word such as `end` or `else:`, may well stand in both places.
_TELLING, _TELLING_WORD = 6, 12


class RepeatedSuffix:
    """A `TextFilter`. What could be the beginning of the suffix is held back until a line end, or the end, tells.

    A repetition counts where the text before it stands by itself: no bracket or string of its own is left open, no
    word or operator is cut in two. If it begins on a later line, it must be long enough to tell, or close a bracket.
    """

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix if suffix.endswith("\n") else suffix + "\n"
        self._shown = ""
        self._held = ""  # the longest end of the text that is a beginning of the suffix
        self.stopped = False

    def push(self, text: str) -> str:
        """See `TextFilter`."""
        start = len(self._shown)
        for char in text:
            if self.stopped:
                break
            self._held += char
            if char == "\n" and self._end():
                self.stopped = True
            else:
                self._release()
        return self._shown[start:]

    def finish(self) -> str:
        """See `TextFilter`."""
        start = len(self._shown)
        if not self.stopped and not self._end():
            self._shown += self._held
        self._held = ""
        return self._shown[start:]

    def _release(self) -> None:
        begin = next(i for i in range(len(self._held) + 1) if self._suffix.startswith(self._held[i:]))
        self._shown += self._held[:begin]
        self._held = self._held[begin:]

    def _end(self) -> bool:
        """Whether what is held repeats the suffix, which is then dropped; what stands before it is shown."""
        for begin in range(len(self._held)):
            repeated = self._held[begin:]
            if self._suffix.startswith(repeated) and self._counts(self._shown + self._held[:begin], repeated):
                self._shown += self._held[:begin]
                self._held = ""
                return True
        return False

    def _counts(self, before: str, repeated: str) -> bool:
        telling = repeated.strip()
        if not telling or _open(before):
            return False
        following = self._suffix[len(repeated) :][:1]
        if _joined(before[-1:], repeated[:1]) or _joined(repeated[-1:], following):
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


def _open(text: str) -> bool:
    """Whether a bracket or, on its last line, a string of the text's own is still open at its end."""
    depth, quote, escaped = 0, "", False
    for char in text:
        if quote:
            if char == "\n" or (char == quote and not escaped):
                quote = ""
            escaped = char == "\\" and not escaped
        elif char in _QUOTES:
            quote, escaped = char, False
        elif char in _OPENING:
            depth += 1
        elif char in _CLOSING:
            depth = max(depth - 1, 0)
    return depth > 0 or bool(quote)

"""How much of a text's end is the beginning of a pattern, character after character (Knuth, Morris and Pratt)."""

from __future__ import annotations


class Beginning:
    """Follows a text. A character costs the same however much of the pattern stands before it."""

    def __init__(self, pattern: str) -> None:
        """`pattern` is not empty."""
        self._pattern = pattern
        self._shorter = [0]  # of its beginnings by their length, from 1
        self.length = 0

    def shorter(self, length: int) -> int:
        """The next shorter beginning that is an end of the one of this `length`, 0 for none."""
        return self._shorter[length - 1]

    def feed(self, char: str) -> int:
        """The length after one more character."""
        length = self.length
        while length and (length == len(self._pattern) or self._pattern[length] != char):
            length = self.shorter(length)
        length += self._pattern[length] == char
        self.length = length
        if length > len(self._shorter):
            self._shorter.append(self._extended(self._shorter[-1], char))
        return length

    def _extended(self, length: int, char: str) -> int:
        while length and self._pattern[length] != char:
            length = self.shorter(length)
        return length + (self._pattern[length] == char)

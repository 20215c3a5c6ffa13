"""How much a JSON body may hold, counted while it arrives: what parsing it costs is known before it is parsed.

Python reads JSON in one go, during which nothing else is answered, and what is small in bytes can be large in objects:
4 MB of `[],[],[],` take a second. Text costs next to nothing, so only what stands outside of strings counts.
"""

from __future__ import annotations

import re

from pipelines.server.http.api_error import CLOSE, ApiError

# Of one body: as many token ids as 128 sequences of 2 048 have, fields for 2 048 files of context or messages.
MOST_VALUES = 1 << 18
MOST_MEMBERS = 1 << 15
MOST_CONTAINERS = 1 << 13
# Characters that only numbers with a fraction or an exponent, and `true` and `false`, have; and digits of a number.
MOST_FRACTIONS = 1 << 16
MOST_DIGITS = 400
_LONG_NUMBER = re.compile(rb"(?<![0-9])[0-9]{%d}" % (MOST_DIGITS + 1))  # tried once a number, not once a digit
_PIECE = 1 << 16


class JsonLimits:
    """Counts what a body consists of. Other than in UTF-8 (where JSON holds no NUL) everything counts as structure."""

    def __init__(self) -> None:
        self._in_string = False
        self._held = b""  # a backslash at the end of what has come
        self._in_utf8 = True
        self._values = self._members = self._containers = self._fractions = 0

    def feed(self, data: bytes) -> None:
        """The next bytes. Raises ApiError as soon as there is more than a body may hold."""
        for start in range(0, len(data), _PIECE):
            self._count(self._outside(data[start : start + _PIECE]))

    def _outside(self, data: bytes) -> bytes:
        """What stands outside of strings."""
        self._in_utf8 = self._in_utf8 and b"\x00" not in data
        if not self._in_utf8:
            return data.replace(b"\x00", b"")
        data = self._held + data
        if b"\\" in data:
            data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
            self._held = b"\\" if data.endswith(b"\\") else b""
            data = data[: len(data) - len(self._held)]
        else:
            self._held = b""
        parts = data.split(b'"')
        outside = b'"'.join(parts[self._in_string :: 2])
        self._in_string ^= len(parts) % 2 == 0
        return outside

    def _count(self, outside: bytes) -> None:
        self._values += outside.count(b",")
        self._members += outside.count(b":")
        self._containers += outside.count(b"[") + outside.count(b"{")
        self._fractions += outside.count(b".") + outside.count(b"e") + outside.count(b"E")
        for count, most, what in (
            (self._containers, MOST_CONTAINERS, "lists and objects"),
            (self._members, MOST_MEMBERS, "fields of objects"),
            (self._values, MOST_VALUES, "values"),
            (self._fractions, MOST_FRACTIONS, "points and exponents of numbers, true and false together"),
        ):
            if count > most:
                message = f"the body holds too many {what}; expected at most {most}: send less at once"
                raise ApiError(message, code="body_too_complex", headers=CLOSE)
        if _LONG_NUMBER.search(outside):
            message = f"the body is not valid JSON: a number has too many digits; expected at most {MOST_DIGITS}"
            raise ApiError(message, code="invalid_json", headers=CLOSE)

"""Typed reads of a model's configuration; a key of the wrong kind is an error that names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weights.errors import UserError

LARGEST_DIMENSION = 1 << 31  # row offsets in the kernels and in GGUF's own keys are 32-bit
# Numbers are float32 in graphs and in GGUF.
LARGEST_NUMBER, SMALLEST_NUMBER = (2 - 2.0**-23) * 2.0**127, 2.0**-149


class Keys:
    """A mapping with the place it came from; `prefix` is put before every key in messages."""

    def __init__(self, values: Mapping[str, Any], source: str, prefix: str = "") -> None:
        self.values = values
        self.source = source
        self.prefix = prefix

    def error(self, key: str, expected: str) -> UserError:
        """The error for a key whose value is not what it must be."""
        found = f"{self.values[key]!r}" if key in self.values else "missing"
        return UserError(
            f"{self.source}: {self.prefix}{key} is {found}; expected {expected}: "
            "use a model of the Replit family, or a complete file of it"
        )

    def integer(self, key: str, default: int | None = None) -> int:
        """A positive dimension."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if type(value) is not int or not 0 < value < LARGEST_DIMENSION:
            raise self.error(key, "a positive whole number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number; `default` where the key is absent or null."""
        value = self.optional_number(key)
        if value is not None:
            return value
        if default is None:
            raise self.error(key, "a number")
        return default

    def optional_number(self, key: str) -> float | None:
        """A number in float32's range, or None where the key is absent or null."""
        value = self.values.get(key)
        if value is None:
            return None
        if type(value) not in (int, float) or not abs(value) <= LARGEST_NUMBER:
            raise self.error(key, "a finite number in 32 bits")
        return float(value)

    def positive(self, key: str, default: float | None = None) -> float:
        """A finite number above zero."""
        value = self.number(key, default)
        if value < SMALLEST_NUMBER:
            raise self.error(key, "a positive number")
        return value

    def must_be(self, key: str, *allowed: object) -> None:
        """Refuse a key that is present with a value other than what the graph computes."""
        value = self.values.get(key)
        if value is None or any(type(value) is type(good) and value == good for good in allowed):
            return
        names = " or ".join(repr(good) for good in allowed) or "no such key"
        raise self.error(key, f"{names}, the only arithmetic implemented")

    def refuse_others(self, known: set[str]) -> None:
        """Refuse a key outside of `known`, unless its value says that there is none of what it means."""
        for key, value in self.values.items():
            # Zero of something, a switch that is off, nothing; but position and mask are on where there is no key.
            is_off = value in (None, 0, False, "", [], {}) and "alibi" not in key and "causal" not in key
            if key not in known and not is_off:
                raise self.error(key, "no such key, its arithmetic is not implemented")

    def section(self, key: str) -> Keys:
        """A nested mapping; empty where the key is absent or null."""
        value = self.values.get(key)
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise self.error(key, "a mapping of keys to values")
        return Keys(value, self.source, f"{self.prefix}{key}.")

"""The one class of error that a user can cause; front ends print it as one line."""

from __future__ import annotations


class UserError(Exception):
    """One line: what was found, what was expected, what to type."""

    def __init__(self, message: str) -> None:
        """Fold `message` to one line, whatever a file name or a wrapped error brought along."""
        super().__init__(" ".join(message.split()))

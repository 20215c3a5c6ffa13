"""The one class of error that a user can cause; front ends print it as one line."""

from __future__ import annotations

# Characters: above what any message of ours takes with a long path, far below a value of a damaged file.
_LONGEST, _SHOWN_END = 2000, 500


class UserError(Exception):
    """One line: what was found, what was expected, what to type."""

    def __init__(self, message: str) -> None:
        """Fold `message` to one line that can be read, whatever a file or a wrapped error brought along."""
        line = " ".join(message.split())
        if len(line) > _LONGEST:
            line = f"{line[: _LONGEST - _SHOWN_END]} … {line[-_SHOWN_END:]}"
        super().__init__(line)


def reason(error: Exception) -> str:
    """Why the system refused, in its own words: an error that Python raises by itself has no number, only a text."""
    return getattr(error, "strerror", None) or str(error)

"""Line ends: files with CRLF are read by the model as it was trained, with LF, and answered as they are."""

from __future__ import annotations


def has_crlf(text: str) -> bool:
    """Whether most lines end in CRLF."""
    pairs = text.count("\r\n")
    return pairs > text.count("\n") - pairs


def with_lf(text: str) -> str:
    """The text with LF for CRLF."""
    return text.replace("\r\n", "\n")


class CrLf:
    """Writes CRLF for LF. A `TextFilter`; a CRLF stays what it is."""

    stopped = False

    def __init__(self) -> None:
        self._last = ""

    def push(self, text: str) -> str:
        """See `TextFilter`."""
        if not text:
            return ""
        found = with_lf(self._last + text).replace("\n", "\r\n")
        # A carriage return that was shown already is not shown twice.
        shown = found[len(self._last) :] if found.startswith(self._last) else found
        self._last = "\r" if text.endswith("\r") else ""
        return shown

    def finish(self) -> str:
        """See `TextFilter`."""
        return ""

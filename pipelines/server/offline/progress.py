"""How far a batch is, on standard error: a line that changes on a terminal, elsewhere one now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

from pipelines.server.record import Log
from pipelines.terminal.report import visible

# Seconds between lines where they stay.
_APART = 30.0


class Progress:
    """Counts lines and tokens. `total` is None where the input's end is not known."""

    def __init__(self, total: int | None, quiet: bool) -> None:
        self.total = total
        self.skipped = 0  # that an earlier run has done
        self.succeeded = self.failed = self.tokens = 0
        self._quiet = quiet
        self._shows = False  # a line that is not ended
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._begun = self._shown = time.monotonic()

    def begin(self) -> None:
        """The clock starts: everything is loaded."""
        self._begun = self._shown = time.monotonic()

    def finished(self, succeeded: bool, tokens: int) -> None:
        """Counts a line."""
        self.succeeded += succeeded
        self.failed += not succeeded
        self.tokens += tokens

    def show(self) -> None:
        """To be called every second or so."""
        if self._terminal:
            self._shows = True
            self._write(f"\r\x1b[K{self.text()}", end="")
        elif time.monotonic() - self._shown > _APART:
            self._shown = time.monotonic()
            self._write(self.text())

    def note(self, text: str) -> None:
        """A line that stays."""
        self._shows = False
        self._write(f"\r\x1b[K{visible(text)}" if self._terminal else visible(text))

    def leave(self) -> None:
        """What follows on standard error gets a line of its own."""
        if self._shows:
            self.note(self.text())

    def text(self) -> str:
        """How far, how fast, how long still."""
        lines = self.succeeded + self.failed
        seconds = max(time.monotonic() - self._begun, 1e-9)
        of = f" of {self.total}" if self.total is not None else ""
        parts = [f"{lines + self.skipped}{of} lines", *([f"{self.failed} failed"] if self.failed else [])]
        parts += [f"{self.skipped} done before"] if self.skipped else []
        parts += [f"{lines / seconds:.1f} lines/s", f"{self.tokens / seconds:.0f} tokens/s"]
        if self.total is not None and lines and (left := self.total - self.skipped - lines) > 0:
            parts.append(f"{duration(left * seconds / lines)} left")
        return ", ".join(parts)

    def _write(self, text: str, end: str = "\n") -> None:
        if not self._quiet and sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):  # nobody looks any more: the work goes on
                print(text, end=end, file=sys.stderr, flush=True)


class Notices(Log):
    """What the routes log, beside the progress."""

    def __init__(self, progress: Progress) -> None:
        super().__init__("text")
        self._progress = progress

    def event(self, message: str, **fields: Any) -> None:
        """A line."""
        self._progress.note(" ".join([message, *(f"{name}={value}" for name, value in fields.items())]))


def duration(seconds: float) -> str:
    """A time in words, to two digits or so."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"

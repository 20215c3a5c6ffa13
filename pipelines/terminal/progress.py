"""What takes long, said on standard error while it lasts."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from pipelines.terminal.report import visible


class Quiet:
    """Says nothing."""

    @contextmanager
    def step(self, message: str, expectation: str = "") -> Iterator[None]:
        """Runs the body."""
        yield

    def note(self, message: str) -> None:
        """Drops the message."""


class Terminal:
    """A line a step: with a spinner and a clock on a terminal, plain elsewhere."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    @contextmanager
    def step(self, message: str, expectation: str = "") -> Iterator[None]:
        """Shows `message` while the body runs, then how long it took."""
        hint = f" ({expectation})" if expectation else ""
        start = time.monotonic()
        if self._stream is not None and self._stream.isatty():
            with self._spinner(f"{message}{hint}"):
                yield
        else:
            self.note(f"{message}{hint} …")
            yield
        self.note(f"{message}: {time.monotonic() - start:.1f} s")

    @contextmanager
    def _spinner(self, text: str) -> Iterator[None]:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=Console(file=self._stream), transient=True) as progress:
            progress.add_task(text, total=None)
            yield

    def note(self, message: str) -> None:
        """Prints one line."""
        if self._stream is not None:
            with suppress(OSError, ValueError):  # a full disk or a closed pipe stops no work
                print(visible(message), file=self._stream, flush=True)

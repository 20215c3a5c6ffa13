"""Whether the model worker still works: a pass must end now and then while sequences wait."""

from __future__ import annotations

import time
from typing import Protocol

from pipelines.server.process.messages import Load


class Worker(Protocol):
    """What is watched."""

    load: Load  # another object after each pass

    @property
    def in_flight(self) -> int:
        """Sequences that run or wait."""


class Stall:
    """Watches a worker; `look` is to be called every second or so.

    A stopped or deadlocked process keeps its pipe open, so its death says nothing about it.
    """

    def __init__(self, worker: Worker, timeout: float) -> None:
        """`timeout` in seconds: longer than any pass."""
        self._worker = worker
        self._timeout = timeout
        self._seen: Load | None = None
        self._since = time.monotonic()
        self.is_stalled = False

    @property
    def seconds(self) -> float:
        """Since the last sign of life while something waits."""
        return time.monotonic() - self._since

    def look(self) -> bool:
        """Whether it has just become stalled, or well again."""
        if self._worker.in_flight == 0 or self._worker.load is not self._seen:
            self._seen, self._since = self._worker.load, time.monotonic()
        before, self.is_stalled = self.is_stalled, self.seconds > self._timeout
        return before != self.is_stalled

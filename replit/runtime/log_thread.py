"""Keeps MAX's log thread from taking a tenth of a core."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PR_SET_TIMERSLACK = 29
_SLACK_NS = 50_000_000


@contextmanager
def rarely_polling() -> Iterator[None]:
    """Threads that start inside may wake up to 50 ms late from a wait with a time limit; on Linux.

    With its first execution MAX starts a thread that looks for log messages every 100 microseconds, for ever. A thread
    inherits the timer slack of the one that starts it.
    """
    if sys.platform != "linux":
        yield
        return
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(_SLACK_NS))
    try:
        yield
    finally:
        prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(0))  # back to the thread's own

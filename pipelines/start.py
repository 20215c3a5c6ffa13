"""Where the command `replit` starts: before anything that takes time is imported, an interrupt ends it quietly."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Runs the command line and exits with its status."""
    _open_closed_streams()
    # Until the command line has control there is nothing to save or to say.
    before = signal.signal(signal.SIGINT, _end)
    from pipelines.commands import cli

    signal.signal(signal.SIGINT, signal.default_int_handler if before is not signal.SIG_IGN else signal.SIG_IGN)
    cli.main()


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)


def _open_closed_streams() -> None:
    """Standard streams that were closed (`>&-`) exist again: files opened later must not get their numbers.

    Standard input is empty then, what goes to standard error is lost, and writing to standard output fails, as it must.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    main()

"""Where the command `replit` starts: before anything that takes time is imported, an interrupt ends it quietly."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from types import FrameType

# As shells report the signal's number.
INTERRUPTED = 128 + signal.SIGINT


def main() -> None:
    """Runs the command line and exits with its status."""
    open_closed_streams()
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as nohup does it
    if not ignored:
        signal.signal(signal.SIGINT, _end)  # nothing is there to save or to say yet
    # By name: that module imports what takes time, and this one.
    run = importlib.import_module("pipelines.commands.cli").run

    interrupts: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        # In the middle of an import there is nothing to save, and native code that imports ends in an abort.
        if _imports(frame):
            _end(number, frame)
        interrupts.append(number)  # code that is interrupted may end in an error of its own
        raise KeyboardInterrupt

    if not ignored:
        signal.signal(signal.SIGINT, interrupt)
    try:
        status = run(sys.argv[1:], lambda: bool(interrupts))
    except KeyboardInterrupt:
        status = INTERRUPTED
    if not ignored:
        signal.signal(signal.SIGINT, _end)
    if interrupts:
        os._exit(status)  # what was interrupted in the middle of its own start may crash at its end
    sys.exit(status)


def _imports(frame: FrameType | None) -> bool:
    """Whether an import is under way."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


def open_closed_streams() -> None:
    """Standard streams that were closed (`>&-`) exist again, for child processes too: files opened later must not get
    their numbers.

    Standard input is empty then, what goes to standard error is lost, and writing to standard output fails, as it must.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    main()

"""What lies at a path that a user gave: pathlib asks the same of names that are sound and permitted.

Where the system refuses to tell (no permission, a name that is too long), the answer is an error of one line.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weights.errors import UserError, reason

# A shell opens what it writes to before it starts who writes.
WRITER_SECONDS = 3.0


def exists(path: str | Path) -> bool:
    """Whether there is anything. Raises UserError where that cannot be known."""
    return _mode(path) is not None


def is_dir(path: str | Path) -> bool:
    """Whether there is a directory. Raises UserError where that cannot be known."""
    return stat.S_ISDIR(_mode(path) or 0)


def listed(directory: Path) -> list[Path]:
    """What is in a directory, sorted. Raises UserError where it cannot be read."""
    with checked(directory):
        return sorted(directory.iterdir())


@contextmanager
def checked(path: str | Path) -> Iterator[None]:
    """Makes the errors of reading `path` UserErrors."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({reason(error)}); expected a path that can be read: check it") from None


def _mode(path: str | Path) -> int | None:
    with checked(path):
        try:
            return os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None


def read_stream(path: str | Path, most: int) -> bytes:
    """At most so many bytes of a file, or of a pipe, which is read to its end once somebody writes to it.

    Raises OSError and ValueError as `open` does, and OSError for a pipe that nobody writes to for WRITER_SECONDS.
    """
    waitless = getattr(os, "O_NONBLOCK", 0)
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | waitless)) as file:
        begun = b""
        if waitless:
            if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
                begun = _first_bytes(file.fileno(), most)
            os.set_blocking(file.fileno(), True)
        return begun + file.read(most - len(begun))


def _first_bytes(pipe: int, most: int) -> bytes:
    """What stands in a pipe whose reading end does not wait, possibly nothing yet, as soon as it has a writer."""
    end = time.monotonic() + WRITER_SECONDS
    while time.monotonic() < end:
        try:
            if found := os.read(pipe, min(most, 1 << 16)):
                return found
        except BlockingIOError:  # a writer that has not written
            return b""
        time.sleep(0.02)
    raise OSError(errno.EPIPE, "nobody writes to this pipe")

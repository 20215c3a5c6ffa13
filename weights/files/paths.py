"""What lies at a path that a user gave: pathlib asks the same of names that are sound and permitted.

Where the system refuses to tell (no permission, a name that is too long), the answer is an error of one line.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from weights.errors import UserError


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
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot read {path} ({reason}); expected a path that can be read: check it") from None


def _mode(path: str | Path) -> int | None:
    with checked(path):
        try:
            return os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None


def open_stream(path: str | Path) -> BinaryIO:
    """A file to read once: a pipe is read to its end, but one that nobody writes to is not waited for.

    Raises OSError and ValueError as `open` does.
    """
    waitless = getattr(os, "O_NONBLOCK", 0)
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | waitless))  # noqa: SIM115
    if waitless:
        os.set_blocking(file.fileno(), True)
    return file

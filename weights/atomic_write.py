"""Files that appear under their name only when they are whole, with the permissions of any new file."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weights.errors import UserError
from weights.files.paths import exists, is_dir


def check_place(path: Path, overwrite: bool) -> None:
    """Raise UserError where no file can be put with `written_whole`, before work that would be lost."""
    if not is_dir(path.parent):
        raise UserError(f"there is no directory {path.parent}; create it or give another place")
    if exists(path) and not path.is_file():
        raise UserError(f"{path} is a directory or a device; expected the name of a file: give one")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists; give another name, or --force to replace it")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"cannot write to {path.parent}; expected permission there: give another place")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it becomes `path` where the body ends without an error.

    Whatever goes wrong, an interrupt too, nothing is left behind. Raises OSError as opening and renaming do, and
    where `path` is a device.
    """
    if path.exists() and not path.is_file():  # renaming would put a file in the place of a device
        raise OSError(errno.EEXIST, "It is no regular file", str(path))
    handle, name = tempfile.mkstemp(".part", f".{path.name[:40]}.", path.parent)  # no longer than its name may be
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    """The process's mask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask

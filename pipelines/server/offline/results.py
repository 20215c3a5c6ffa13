"""The files of results: each line whole, each once. What is there from an earlier run is kept and not done again."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.server.offline.line import ID_DIGITS, ID_PREFIX, key_of
from weights.errors import UserError, reason
from weights.files.mapped_file import json_object

# What every line begins with, and ids are.
_BEGINNING = b'{"id":"' + ID_PREFIX.encode()
_ID = re.compile(rf"{ID_PREFIX}[0-9a-f]{{{ID_DIGITS}}}")
# Seconds after which what was written goes to the disk: what a machine without power can lose is done again.
_SYNC_SECONDS = 5.0


class ResultFile:
    """Lines that are appended. Only a regular file remembers what it has; no two runs write to it at once."""

    def __init__(self, path: Path | None) -> None:
        """None is standard output. Raises UserError for a file that cannot be written or holds something else."""
        self.done: set[int] = set()  # keys of the lines that have a result here
        self.model: str | None = None  # whose answers they are, and what its answers depended on
        self.fingerprint = ""
        self.name = "standard output" if path is None else str(path)
        self._file = _open(path)
        self._disk = ThreadPoolExecutor(1)
        self._regular = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)
        self.remembers = path is not None and self._regular
        self._synced = time.monotonic()
        self._syncing: Future[None] | None = None
        if self.remembers:
            _lock(self._file, self.name)
            self._read()

    def is_at(self, path: Path | None) -> bool:
        """Whether it is what the path leads to, None standard output, however that is spelled."""
        try:
            found = os.stat(sys.stdout.fileno() if path is None else path)
        except OSError:
            return False
        return os.path.samestat(os.fstat(self._file.fileno()), found)

    def is_read_as(self, source: BinaryIO) -> bool:
        """Whether what is written would be read again. A terminal is written to and read, and is no such file."""
        return self._regular and os.path.samestat(os.fstat(self._file.fileno()), os.fstat(source.fileno()))

    def _read(self) -> None:
        """Takes in what is there, and cuts off a last line that is not whole."""
        whole = 0
        self._file.seek(0)
        for number, line in enumerate(self._file, 1):
            result = _result(line)
            if result is not None and not line.endswith(b"\n"):  # an editor's last line
                self._file.write(b"\n")
            if line.strip() and result is None:
                if line.endswith(b"\n") or not _may_be_cut_off(line):
                    raise UserError(
                        f"{self.name} holds no result of replit batch in line {number}; expected such results or no "
                        "file: give another OUT.jsonl"
                    )
                self._file.truncate(whole)
                break
            whole += len(line)
            if result is not None:
                self.done.add(key_of(result["id"].removeprefix(ID_PREFIX)))
                if self.model is None:
                    self.model, self.fingerprint = _model(result)

    def write(self, line: str) -> None:
        """Appends a line in one piece. Raises UserError where there is no room, BrokenPipeError where no reader is."""
        with self._told():
            self._file.write(line.encode() + b"\n")
            self._file.flush()
            if self.remembers and time.monotonic() - self._synced > _SYNC_SECONDS:
                self._sync_beside()

    def close(self) -> None:
        """Everything is on the disk afterwards. Raises as `write` does: some file systems find out at the end."""
        with self._told(), self._file, self._disk:
            if self._syncing is not None:
                self._syncing.result()
            if self.remembers:
                os.fsync(self._file.fileno())

    def _sync_beside(self) -> None:
        """Waits for the disk in a thread: the model goes on. What went wrong there is raised by a later write."""
        if self._syncing is not None:
            if not self._syncing.done():
                return
            self._syncing.result()
        self._synced = time.monotonic()
        self._syncing = self._disk.submit(os.fsync, self._file.fileno())

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UserError(
                f"cannot write {self.name}: {reason(error)}; expected room for it: make some, then type the same "
                "command again, which goes on"
            ) from None


def _open(path: Path | None) -> BinaryIO:
    if path is None:
        return open(os.dup(sys.stdout.fileno()), "wb")
    try:
        regular = not path.exists() or path.is_file()
        return open(path, "a+b" if regular else "wb")
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason(error)}; expected a file that can be written") from None


def _lock(file: BinaryIO, name: str) -> None:
    """Holds until the process ends, however it does. Windows has no such lock."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another replit batch writes to {name}; expected one at a time: wait for it") from None
    except OSError:
        return  # a file system without locks


def _result(line: bytes) -> dict[str, Any] | None:
    """A line as `answered` makes it, whoever wrote it since; None for another one."""
    result = json_object(line)
    found = result is not None and isinstance(result.get("id"), str) and _ID.fullmatch(result["id"])
    return result if found else None


def _may_be_cut_off(line: bytes) -> bool:
    """Whether a last line is the beginning of one of ours, or what a machine without power leaves: zeros."""
    begun = line.rstrip(b"\0").replace(b'{"id": "', b'{"id":"')
    return _BEGINNING.startswith(begun) or begun.startswith(_BEGINNING)


def _model(result: dict[str, Any]) -> tuple[str | None, str]:
    """The model that an answer names, and its fingerprint; None for an error."""
    response = result.get("response")
    body = response.get("body") if isinstance(response, dict) else None
    name = body.get("model") if isinstance(body, dict) else None
    return (name, str(body.get("system_fingerprint"))) if body and isinstance(name, str) else (None, "")

"""The prefix cache over a restart: pages of keys and values as files, which the next start finds.

A folder for each model, graph, processor and encoding; a file for each page, named by what it holds: all ids before it
and its own. Files appear when they are whole, readable by their owner alone, with a checksum that is compared before
anything is used. What was not used longest goes first when they take more than they may.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import struct
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.terminal.report import say
from weights.errors import UserError, reason
from weights.tensor import Tensor

Ids = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

ROOT = b""  # what stands before the first page
_MAGIC = b"RCPAGE1\0"
_HEADER = struct.Struct("<8s32sII")  # magic, digest of all ids before, ids of the page, bytes of the page
_CHECK = 16
_ABANDONED = 3600.0  # seconds after which nobody writes a file any more
_SAMPLES = 4  # of each tensor's data
_SAMPLE_BYTES = 256


@dataclass
class StoredPage:
    """A file and the ids that its page holds."""

    path: Path
    prefix: bytes
    ids: Ids
    size: int


def digest_of(prefix: bytes, ids: Ids) -> bytes:
    """Of all ids up to and with those of a page, from that of the pages before."""
    return hashlib.blake2b(prefix + np.ascontiguousarray(ids).tobytes(), digest_size=32).digest()


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """Of names, shapes, encodings and samples of the data: all of 6.6 GB would take seconds."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.shape} {tensor.encoding}\0".encode())
        step = max(tensor.nbytes // _SAMPLES, 1)
        for start in (*range(0, tensor.nbytes, step), max(tensor.nbytes - _SAMPLE_BYTES, 0)):
            digest.update(tensor.data[start : start + _SAMPLE_BYTES].tobytes())
    return digest.hexdigest()


class PageStore:
    """The pages of one model in a folder."""

    def __init__(self, folder: Path, key: str, page_bytes: int, limit: int) -> None:
        """`limit` is the most bytes that all models' files may take. Raises UserError for an unusable folder."""
        self._root, self._folder = folder, folder / key[:32]
        self._page_bytes, self._limit = page_bytes, limit
        self._told: int | None = None  # of what cannot be written, the last reason
        try:
            handle, probe = self._new_file()
            os.close(handle)
            os.unlink(probe)
        except OSError as error:
            raise UserError(f"cannot use --cache-dir {folder}: {reason(error)}; give a folder of your own") from None
        self._pages: dict[bytes, dict[str, StoredPage]] = {}
        for path in sorted(self._folder.glob("*.page")):
            if (page := self._read_header(path)) is not None:
                self._pages.setdefault(page.prefix, {})[path.name] = page
        for left in self._folder.glob("*.part"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > _ABANDONED:  # else another server may be writing it
                    left.unlink()

    def _new_file(self) -> tuple[int, str]:
        """A file for its owner alone, and its folder where that is gone: others clean up in /tmp."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return tempfile.mkstemp(".part", "", self._folder)

    def __len__(self) -> int:
        return sum(map(len, self._pages.values()))

    def candidates(self, prefix: bytes) -> Iterator[StoredPage]:
        """Pages that continue what `prefix` is the digest of."""
        return iter(list(self._pages.get(prefix, {}).values()))

    def read(self, page: StoredPage) -> Bytes | None:
        """A page's bytes; None, and no file any more, where it is damaged."""
        try:
            body = page.path.read_bytes()
            os.utime(page.path)
        except OSError:
            body = b""
        if len(body) != page.size or _checksum(body[:-_CHECK]) != body[-_CHECK:]:
            self._drop(page)
            return None
        return np.frombuffer(body, np.uint8, self._page_bytes, page.size - _CHECK - self._page_bytes)

    def has(self, prefix: bytes, ids: Ids) -> bool:
        """Whether a page with these ids, or more, is stored."""
        return any(np.array_equal(page.ids[: len(ids)], ids) for page in self.candidates(prefix))

    def write(self, prefix: bytes, ids: Ids, data: Bytes) -> None:
        """Stores a page; of those that are not full, one after each prefix. What cannot be written is left out."""
        if self.has(prefix, ids):
            return
        name = digest_of(prefix, ids).hex()[:40] + ".page"
        raw = np.ascontiguousarray(ids, np.int64).tobytes()
        body = _HEADER.pack(_MAGIC, prefix.ljust(32, b"\0"), len(ids), self._page_bytes) + raw + data.tobytes()
        temporary = None
        try:
            self._make_room(len(body) + _CHECK)
            handle, temporary = self._new_file()
            with os.fdopen(handle, "wb") as file:
                file.write(body + _checksum(body))
            os.replace(temporary, self._folder / name)
        except OSError as error:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
            self._tell(error)
            return
        shorter = [page for page in self.candidates(prefix) if np.array_equal(ids[: len(page.ids)], page.ids)]
        for page in shorter:
            self._drop(page)
        page = StoredPage(self._folder / name, prefix, ids.copy(), len(body) + _CHECK)
        self._pages.setdefault(prefix, {})[name] = page

    def _tell(self, error: OSError) -> None:
        """Says why nothing is stored, once for each reason: the server goes on without."""
        if error.errno != self._told:
            self._told = error.errno
            say(f"cannot store in --cache-dir {self._root}: {reason(error)}")  # if the log is not on the same full disk

    def _make_room(self, size: int) -> None:
        files = [(entry.stat(), entry) for entry in self._root.glob("*/*.page")]
        used = sum(stat.st_size for stat, _ in files)
        for stat, path in sorted(files, key=lambda file: file[0].st_mtime):
            if used + size <= self._limit:
                return
            path.unlink(missing_ok=True)
            used -= stat.st_size
            for pages in self._pages.values():
                if path.parent == self._folder:
                    pages.pop(path.name, None)
        if used + size > self._limit:
            raise OSError(errno.EFBIG, f"--cache-dir-size is {self._limit} bytes, and a page takes {size}")

    def _drop(self, page: StoredPage) -> None:
        with contextlib.suppress(OSError):  # gone, another's, or no file any more
            page.path.unlink()
        self._pages.get(page.prefix, {}).pop(page.path.name, None)

    def _read_header(self, path: Path) -> StoredPage | None:
        try:
            with path.open("rb") as file:
                magic, prefix, count, page_bytes = _HEADER.unpack(file.read(_HEADER.size))
                ids = np.frombuffer(file.read(8 * count), np.int64)
                size = os.fstat(file.fileno()).st_size
        except (OSError, struct.error, ValueError):
            return None
        whole = _HEADER.size + 8 * count + page_bytes + _CHECK
        if magic != _MAGIC or page_bytes != self._page_bytes or len(ids) != count or size != whole:
            return None
        return StoredPage(path, prefix if any(prefix) else ROOT, ids, size)


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK).digest()

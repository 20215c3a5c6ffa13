"""Lines of the input as they come, in windows in which like beginnings are neighbours.

A thread reads them: a pipe that is slow stops no sequence that runs. Memory holds two windows at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import BinaryIO

from pipelines.server.offline.line import Line, parse_line, read_lines
from weights.errors import UserError

# Lines among which like beginnings are found, by their weight.
WINDOW = 1024


@dataclass(frozen=True)
class Selection:
    """Which lines of the input are wanted: the first `limit`, of those every `shards`-th from `shard` on, from 1."""

    limit: int | None = None
    shard: int = 1
    shards: int = 1

    def has(self, index: int) -> bool:
        """Whether it is one of the shard's."""
        return index % self.shards == self.shard - 1

    def count(self, stream: BinaryIO) -> int:
        """How many lines it has in a file."""
        return sum(self.has(index) for index, _ in self.raw(stream))

    def raw(self, stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
        """The lines of all shards that are not blank, with their numbers. Raises UserError for UTF-16."""
        for index, line in enumerate(islice(read_lines(stream), self.limit)):
            if index == 0 and line.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):  # as PowerShell's > writes
                raise UserError("the input is UTF-16; expected UTF-8: write it so")
            if line.strip():
                yield index, line


@dataclass
class Wanted:
    """The lines that are to be done; iterated once."""

    stream: BinaryIO
    selection: Selection
    done: Collection[int]  # keys of those that have a result
    skipped: int = 0
    _seen: set[int] = field(default_factory=set)

    def __iter__(self) -> Iterator[Line]:
        """All shards read all lines: which of two lines with one `custom_id` is the first is the same for all."""
        for index, raw in self.selection.raw(self.stream):
            line = parse_line(index, raw)
            if line.custom_id is not None:
                if line.key in self._seen:
                    line = line.repeated()
                self._seen.add(line.key)
            if not self.selection.has(index):
                continue
            if line.key in self.done:
                self.skipped += 1
            else:
                yield line


class Feed:
    """Takes lines from an iterable in a thread of its own. To be made in a running event loop."""

    def __init__(self, lines: Wanted) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Line | BaseException | None] = asyncio.Queue()
        self._room = threading.Semaphore(WINDOW)
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()

    def _read(self, lines: Wanted) -> None:
        last: BaseException | None = None
        with contextlib.suppress(RuntimeError):  # the event loop has ended
            try:
                for line in lines:
                    for _ in range(line.weight):
                        self._room.acquire()
                    self._loop.call_soon_threadsafe(self._queue.put_nowait, line)
            except Exception as error:
                last = error
            self._loop.call_soon_threadsafe(self._queue.put_nowait, last)

    async def windows(self, whole: bool) -> AsyncIterator[list[tuple[int, Line]]]:
        """Lines with their places among all, from 0. Without `whole` those that have come so far, at least one."""
        place, ended = 0, False
        while not ended:
            window: list[tuple[int, Line]] = []
            weight = 0
            while weight < WINDOW and not (window and not whole and self._queue.empty()):
                line = await self._queue.get()
                if isinstance(line, BaseException):
                    raise line
                if line is None:
                    ended = True
                    break
                self._room.release(line.weight)
                weight += line.weight
                window.append((place, line))
                place += 1
            yield alike(window)


def next_window(placed: Iterator[tuple[int, Line]]) -> list[tuple[int, Line]]:
    """As many lines as a window holds, of lines that are all there."""
    window: list[tuple[int, Line]] = []
    weight = 0
    while weight < WINDOW and (item := next(placed, None)) is not None:
        window.append(item)
        weight += item[1].weight
    return alike(window)


def alike(window: list[tuple[int, Line]]) -> list[tuple[int, Line]]:
    """The same lines, those that begin alike one after the other."""
    return sorted(window, key=lambda item: item[1].beginning)

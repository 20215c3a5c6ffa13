"""`replit batch --ray`: lines are read and results written here, answered by copies of the model in a Ray cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.scale.cluster import check_address, check_installed, connected, find_room, identity, open_copy
from pipelines.server.offline.feed import Selection, Wanted, next_window
from pipelines.server.offline.line import Line
from pipelines.server.options import ServeOptions
from weights.errors import UserError

if TYPE_CHECKING:
    from pipelines.server.offline.run import Answer, Work

# Lines that go to a copy together, for each sequence that it runs at once.
_LINES = 2


def answer_on(address: str) -> Answer:
    """Answers on a Ray cluster. Raises UserError where that cannot be."""
    check_installed()
    check_address(address)

    def answer(work: Work) -> None:
        if not work.whole or work.path is None:
            raise UserError("--ray goes with a file of lines; expected a path instead of a pipe")
        from pipelines.scale.copies import run_copies

        lines = work.options.max_batch_size * _LINES
        make = _windows(work.path.resolve(), work.wanted.selection, work.wanted.done, lines)
        with connected(address):
            left = (work.progress.total or 0) - len(work.wanted.done)
            room = find_room(work.options, work.model_files).at_most(-(-left // lines))
            work.progress.note(room.text)
            work.progress.begin()
            arguments = (room.placed(work.options), identity(work.model_files))
            with closing(run_copies(make, LineCopy, arguments, room, work.results.keep_order)) as made:
                for skipped, results in made:
                    work.progress.skipped = max(work.progress.skipped, skipped)
                    for result in results:
                        work.results.add(*result)
                    work.progress.show()

    return answer


def _windows(
    path: Path, selection: Selection, done: Collection[int], size: int
) -> Callable[[], Iterator[tuple[int, list[tuple[int, Line]]]]]:
    """Makes windows of `size` lines with their places, each with how many lines have been passed over before."""

    def make() -> Iterator[tuple[int, list[tuple[int, Line]]]]:
        with open(path, "rb") as source:
            wanted = Wanted(source, selection, done)
            placed = enumerate(wanted)
            while window := next_window(placed):
                for start in range(0, len(window), size):
                    yield wanted.skipped, window[start : start + size]
            yield wanted.skipped, []

    return make


class LineCopy:
    """A copy of the model that answers lines."""

    def __init__(self, options: ServeOptions, wanted: str) -> None:
        from pipelines.server.offline.answer import open_app
        from pipelines.server.offline.local_worker import LocalWorker
        from pipelines.server.record import Log

        pipeline = open_copy(options, wanted)
        self._worker = LocalWorker(pipeline)
        self._app = open_app(options, pipeline.files, self._worker, Log("text"))
        self._running: asyncio.Future[None] | None = None

    async def answer(self, window: tuple[int, list[tuple[int, Line]]]) -> tuple[int, list[tuple[int, str, bool, int]]]:
        """Places and results of a window's lines. Where one fails, the others end with it."""
        from pipelines.server.offline.answer import answered
        from pipelines.server.offline.run import end

        if self._running is None:
            self._running = asyncio.ensure_future(self._worker.run())
        skipped, lines = window
        tasks = [asyncio.ensure_future(answered(self._app, line)) for _, line in lines]
        answers = asyncio.gather(*tasks)
        both: set[asyncio.Future[Any]] = {answers, self._running}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if self._running.done():
                self._running.result()
            return skipped, [(place, *answer) for (place, _), answer in zip(lines, await answers, strict=True)]
        finally:
            await end(tasks)

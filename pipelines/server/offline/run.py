"""Runs a batch file: lines in, a bounded number of them at once, results out."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pipelines.server.offline.feed import WINDOW, Feed, Selection, Wanted
from pipelines.server.offline.line import Line
from pipelines.server.offline.progress import Notices, Progress
from pipelines.server.offline.results import ResultFile
from pipelines.server.options import ServeOptions
from pipelines.server.serve import check_installed, open_files
from weights.errors import UserError, reason

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from pipelines.pipeline import Pipeline
    from pipelines.registry import ModelFiles


@dataclass(frozen=True)
class BatchFiles:
    """Where lines come from and results go; None is a standard stream. `errors` may be the file of the results."""

    source: Path | None
    output: Path | None
    errors: Path | None
    selection: Selection
    keep_order: bool = False


@dataclass(frozen=True)
class Work:
    """What is to be done: the lines that have no result yet, and where their results go."""

    options: ServeOptions
    model_files: ModelFiles
    wanted: Wanted
    path: Path | None  # of the lines, None for a standard stream
    whole: bool  # they are all there, in a file
    results: Results
    progress: Progress


# Does all of the work, wherever the model is.
Answer = Callable[[Work], None]


def run_batch(files: BatchFiles, options: ServeOptions, answer: Answer, quiet: bool) -> Progress:
    """Does all lines that have no result yet. Raises UserError for what concerns them all, none for a line's own."""
    check_installed()
    model_files = open_files(options)
    source = _open_source(files.source)  # not closed: a thread may wait in it
    with ExitStack() as opened:
        output = opened.enter_context(closing(ResultFile(files.output)))
        errors = output if output.is_at(files.errors) else opened.enter_context(closing(ResultFile(files.errors)))
        _check_files(source, output, errors)
        _check_model(output, options, model_files)
        whole = stat.S_ISREG(os.fstat(source.fileno()).st_mode)
        start = source.tell() if whole else 0
        progress = Progress(files.selection.count(source) if whole else None, quiet)
        opened.callback(progress.leave)
        if whole:
            source.seek(start)
        wanted = Wanted(source, files.selection, output.done | errors.done)
        results = Results(output, errors, files.keep_order, progress)
        answer(Work(options, model_files, wanted, files.source, whole, results, progress))
        progress.note(progress.text())
    return progress


def answer_here(open_pipeline: Callable[[], Pipeline]) -> Answer:
    """Answers by a model in this process."""

    def answer(work: Work) -> None:
        from pipelines.server.offline.answer import open_app
        from pipelines.server.offline.local_worker import LocalWorker

        pipeline = open_pipeline()

        async def all_lines() -> None:
            worker = LocalWorker(pipeline)
            app = open_app(work.options, work.model_files, worker, Notices(work.progress))
            batch = Batch(app, work.results, 2 * work.options.max_batch_size)
            lines = Feed(work.wanted).windows(work.whole)
            await together(worker.run(), batch.run(lines), _tell(work.progress, work.wanted))

        work.progress.begin()
        asyncio.run(all_lines())
        work.progress.skipped = work.wanted.skipped

    return answer


class Results:
    """Where results go, and in which order."""

    def __init__(self, output: ResultFile, errors: ResultFile, keep_order: bool, progress: Progress) -> None:
        self.keep_order = keep_order
        self._output, self._errors = output, errors
        self._progress = progress
        self._held: dict[int, tuple[str, ResultFile]] = {}  # that wait for those before them
        self._next = 0

    def has_room(self, place: int) -> bool:
        """Whether so few results wait for those before them that the line at `place` may be begun."""
        return not self.keep_order or place - self._next < 2 * WINDOW

    def add(self, place: int, text: str, succeeded: bool, tokens: int) -> None:
        """Takes the result of the line at `place` among all that are wanted, from 0."""
        self._progress.finished(succeeded, tokens)
        self._held[place if self.keep_order else self._next] = text, self._output if succeeded else self._errors
        while self._next in self._held:
            told, file = self._held.pop(self._next)
            file.write(told)
            self._next += 1


class Batch:
    """Lines that run."""

    def __init__(self, app: ASGIApp, results: Results, most: int) -> None:
        """`most`: lines at once; more than the model's sequences, so that one waits for each that ends."""
        self._app = app
        self._results = results
        self._most = most
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, windows: AsyncIterator[list[tuple[int, Line]]]) -> None:
        """Does all lines. Where one cannot be done, the others end with it."""
        try:
            async for window in windows:
                for place, line in window:
                    while len(self._tasks) >= self._most or not self._results.has_room(place):
                        await self._one_ends()
                    self._tasks.add(asyncio.ensure_future(self._do(place, line)))
            while self._tasks:
                await self._one_ends()
        finally:
            await end(self._tasks)

    async def _one_ends(self) -> None:
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        self._tasks -= done

    async def _do(self, place: int, line: Line) -> None:
        from pipelines.server.offline.answer import answered

        self._results.add(place, *await answered(self._app, line))


async def together(*parts: Coroutine[Any, Any, None]) -> None:
    """Runs all of them until one ends or fails, which ends the others."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        await end(tasks)


async def end(tasks: Collection[asyncio.Future[Any]]) -> None:
    """Cancels tasks and waits for them; what became of them nobody asks."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _tell(progress: Progress, wanted: Wanted) -> None:
    while True:
        await asyncio.sleep(1.0)
        progress.skipped = wanted.skipped
        progress.show()


def _open_source(path: Path | None) -> BinaryIO:
    """The input. Standard input is opened again: Python's own must not be locked by a thread when it exits."""
    try:
        return open(0, "rb", closefd=False) if path is None else open(path, "rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}; expected a file of batch lines") from None


def _check_files(source: BinaryIO, output: ResultFile, errors: ResultFile) -> None:
    """Raises UserError where one file has two purposes."""
    for file in (output, errors):
        if file.is_read_as(source):
            raise UserError(f"{file.name} is the input too; expected another file for the results")


def _check_model(output: ResultFile, options: ServeOptions, files: ModelFiles) -> None:
    """Raises UserError where a file holds answers that this model would not give."""
    from pipelines.server.offline.answer import facts_of

    if output.model is None:
        return
    if output.model != options.name:
        raise UserError(
            f"{output.name} holds answers of the model {output.model!r}; expected those of {options.name!r} to go on "
            "with: give another OUT.jsonl, or the model of the first run"
        )
    # The package's version, which comes before the dash, may be a newer one.
    found, here = (text.rpartition("-")[2] for text in (output.fingerprint, facts_of(options, files).fingerprint))
    if found != here:
        raise UserError(
            f"{output.name} holds answers of {output.model!r} with other weights, configuration, tokenizer or encoding "
            f"(system_fingerprint {found}); expected those of now ({here}) to go on with: give another OUT.jsonl, or "
            "what the first run was given"
        )

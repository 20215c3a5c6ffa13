"""`replit evaluate --ray`: samples made by copies of the model in a Ray cluster. Programs run on this machine."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

from pipelines.engine.sampling import SamplingParams
from pipelines.evaluation.records import Sample
from pipelines.evaluation.run import Task, make_samples
from pipelines.scale.cluster import check_address, check_installed, connected, find_room, identity, open_copy
from pipelines.server.options import ServeOptions

# Samples that a copy makes together, for each sequence that it runs at once.
_SAMPLES = 4


def samples_of(
    wanted: Sequence[Task], params: SamplingParams, address: str, model: dict[str, Any]
) -> Generator[Sample, None, None]:
    """Makes the samples, a few of each copy's at a time; `model` are the options that name it."""
    check_installed()
    check_address(address)
    from pipelines.scale.copies import run_copies
    from pipelines.server.serve import open_files

    options = ServeOptions(**model)
    files = open_files(options)
    size = options.max_batch_size * _SAMPLES

    def windows() -> Iterator[Sequence[Task]]:
        for start in range(0, len(wanted), size):
            yield wanted[start : start + size]

    with connected(address):
        room = find_room(options, files).at_most(-(-len(wanted) // size))
        made = run_copies(windows, SampleCopy, (room.placed(options), identity(files), params), room, keep_order=False)
        with closing(made):
            for samples in made:
                yield from samples


class SampleCopy:
    """A copy of the model that makes samples."""

    def __init__(self, options: ServeOptions, wanted: str, params: SamplingParams) -> None:
        self._pipeline = open_copy(options, wanted)
        self._params = params

    async def answer(self, window: Sequence[Task]) -> list[Sample]:
        """The samples of a window, which nothing else runs beside."""
        return list(make_samples(self._pipeline, window, self._params))

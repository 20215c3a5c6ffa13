"""A pool of copies of a model, each a Ray actor, and what they make of windows of work.

Ray Data streams the windows, gives them to copies that have room, and gives a window again whose actor, worker or node
has died. A window is one block and one row: so nothing waits for others that a block would be filled with.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.scale.cluster import Room
from weights.errors import UserError

WINDOW, MADE = "window", "made"
# Windows that a copy works on at once, so that it never lacks sequences, and with those that wait for it.
_AT_ONCE, _IN_FLIGHT = 2, 4
# Copies that may die one after the other while they load, as those of a node that dies.
_STARTS = 3
_TOLD = re.compile(rf"{UserError.__module__}\.UserError: (.+)")


class _Windows(Datasource):
    """Windows that are made where the command runs, which has the files; made again, they are the same."""

    def __init__(self, make: Callable[[], Iterable[Any]]) -> None:
        super().__init__()
        self._make = make

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        import pandas

        make = self._make

        def read() -> Iterator[pandas.DataFrame]:
            for window in make():
                yield pandas.DataFrame({WINDOW: [pickle.dumps(window)]})

        return [ReadTask(read, BlockMetadata(None, None, None, None))]


def run_copies(
    make: Callable[[], Iterable[Any]], copy: type, arguments: tuple[Any, ...], room: Room, keep_order: bool
) -> Generator[Any, None, None]:
    """What copies make of the windows, as it comes or in their order. Raises UserError where no copy can start.

    `copy(*arguments)` is an asynchronous actor; its `answer(window)` is awaited.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = keep_order
    context.max_consecutive_actor_init_deaths = _STARTS
    context.target_max_block_size = 1  # bytes: every row is a block
    context.issue_detectors_config.detectors = []
    windows = ray.data.read_datasource(_Windows(make), num_cpus=0, scheduling_strategy=here, override_num_blocks=1)
    made = windows.map_batches(
        _Copy,
        batch_size=None,
        batch_format="pandas",
        fn_constructor_args=(copy, arguments),
        compute=ActorPoolStrategy(
            size=room.copies,  # a pool that may shrink takes a copy that it ends before its start for a failure
            max_concurrent_calls_per_actor=_AT_ONCE,
            max_tasks_in_flight_per_actor=_IN_FLIGHT,
        ),
        **room.reserved,
    )
    try:
        for row in made.iter_rows():
            yield pickle.loads(row[MADE])
    except Exception as error:
        told = _user_error(error)
        if told is None:
            raise
        raise told from None


class _Copy:
    """What Ray calls: windows come and go pickled."""

    def __init__(self, copy: type, arguments: tuple[Any, ...]) -> None:
        self._copy = copy(*arguments)

    async def __call__(self, batch: Any) -> Any:
        import pandas

        made = [pickle.dumps(await self._copy.answer(pickle.loads(window))) for window in batch[WINDOW]]
        return pandas.DataFrame({MADE: made})


def _user_error(error: BaseException | None) -> UserError | None:
    """A copy's UserError, which Ray has wrapped, or for one that could not start put into words."""
    while error is not None:
        if isinstance(error, UserError):
            return error
        told = _TOLD.search(str(error))
        if told:
            return UserError(told[1])
        error = getattr(error, "cause", None) or error.__cause__
    return None

"""The model worker: a process that loads the model and runs MAX Serve's scheduler over it.

Started by worker_process.py as `python -m pipelines.server.process.worker FD`; it ends when its pipe does.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.engine.sequence import SequenceRequest
from pipelines.server.options import ServeOptions
from pipelines.server.process.messages import Cancel, Failed, Load, Loading, Ready, Step, Steps
from pipelines.server.process.time_slice import react_at_once
from pipelines.start import open_closed_streams
from pipelines.terminal.options import MODEL, chosen
from weights.errors import UserError

if TYPE_CHECKING:
    from max.pipelines.context import TextContext
    from max.pipelines.modeling.types import RequestID
    from max.serve.scheduler.batch_constructor.text_batch_constructor import TextBatchConstructor
    from max.serve.scheduler.text_generation_scheduler import TokenGenerationScheduler
    from max.serve.scheduler_result import SchedulerResult

    from pipelines.pipeline import Pipeline
    from pipelines.server.process.batch import BatchPipeline, StepResult
    from pipelines.server.process.prefix_cache import PrefixCache

# Pages go to --cache-dir once nothing has come for so long.
SECONDS_UNTIL_SAVED = 0.5


class _Report:
    """Progress of loading, told to the HTTP process, which writes the log."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @contextmanager
    def step(self, message: str, expectation: str = "") -> Iterator[None]:
        """Tells what begins."""
        self.note(f"{message} ({expectation})" if expectation else message)
        yield

    def note(self, message: str) -> None:
        """Tells a line."""
        self._connection.send(Loading(message))


class Inbox:
    """Messages from the HTTP process, as the two queues that MAX's scheduler reads.

    A thread takes them off the pipe at once, so that the sender never waits for a pass to end.
    """

    def __init__(self, connection: Connection, pipeline: BatchPipeline) -> None:
        self._messages: queue.SimpleQueue[SequenceRequest | Cancel | None] = queue.SimpleQueue()
        self._pipeline = pipeline
        self._waiting: dict[str, SequenceRequest] = {}
        self._served: dict[str, int] = {}  # the last turn of each owner who waits, or the last before it came
        self._turns = 0
        self.cancelled: queue.SimpleQueue[list[RequestID]] = queue.SimpleQueue()
        self._ending: set[str] = set()  # those of them that came since the last pass
        self.closed = False
        self.gone = False  # the other end
        threading.Thread(target=self._receive, args=(connection,), daemon=True).start()

    def _receive(self, connection: Connection) -> None:
        try:
            while True:
                self._messages.put(connection.recv())
        except (EOFError, OSError):
            self.gone = True
            self._messages.put(None)

    def get_nowait(self) -> TextContext:
        """The next request, as the scheduler takes it; one that shares a prompt waits until that was read."""
        ready = [request for request in self._waiting.values() if self._may_start(request)]
        if not ready:
            raise queue.Empty
        # Owners take turns; what one of them sent stays in order.
        request = min(ready, key=lambda request: (request.background, self._served[request.owner]))
        self._turns += 1
        self._served[request.owner] = self._turns
        self._drop(request.id)
        return self._pipeline.admit(request)

    def make_room(self, constructor: TextBatchConstructor, seats: int) -> None:
        """Where all seats are taken and a request waits for one, takes it from a sequence that only fills the cache.

        That waits again; what it has read stays known.
        """
        if not any(not request.background and self._may_start(request) for request in self._waiting.values()):
            return
        reading = constructor.all_ce_reqs
        if len(reading) + len(constructor.all_tg_reqs) < seats:
            return
        for name in reading:
            request = self._pipeline.request_of(name)
            if request is not None and request.background and request.id not in self._ending:
                constructor.release_request(name)
                self._pipeline.forget(name)
                self._take(request)
                return

    def _drop(self, name: str) -> bool:
        """Takes a request out of those that wait; False if it does not."""
        request = self._waiting.pop(name, None)
        if request is not None and all(other.owner != request.owner for other in self._waiting.values()):
            del self._served[request.owner]
        return request is not None

    def _may_start(self, request: SequenceRequest) -> bool:
        first = request.after
        return first is None or (first not in self._waiting and self._pipeline.has_read(first))

    def __len__(self) -> int:
        """Requests that the scheduler has not taken."""
        return len(self._waiting)

    def sort(self, wait: bool, seconds: float | None = None) -> bool:
        """Takes in what has arrived; with `wait`, sleeps until there is something, at most so many seconds.

        False if there was nothing.
        """
        arrived = False
        self._ending.clear()
        try:
            self._take(self._messages.get(block=wait, timeout=seconds))
            arrived = True
            while not self.closed:
                self._take(self._messages.get(block=False))
        except queue.Empty:
            pass
        return arrived

    def _take(self, message: SequenceRequest | Cancel | None) -> None:
        if message is None:
            self.closed = True
        elif isinstance(message, SequenceRequest):
            self._waiting[message.id] = message
            self._served.setdefault(message.owner, self._turns)
        elif not self._drop(message.id):
            self._ending.add(message.id)
            self.cancelled.put([self._pipeline.id_of(message.id)])


class Outbox:
    """The scheduler's response queue: one message a pass."""

    def __init__(self, connection: Connection, pipeline: BatchPipeline) -> None:
        self._connection = connection
        self._pipeline = pipeline
        self._steps: list[Step] = []

    def put_nowait(self, results: dict[RequestID, SchedulerResult[StepResult]]) -> None:
        """Takes what a pass brought; a result without an output is a cancellation, known at the other end."""
        for request_id, result in results.items():
            if result.is_done:
                self._pipeline.forget(request_id)
            if result.result is not None:
                self._steps.append(result.result.step)
            elif result.error is not None:
                self._steps.append(Step(str(request_id), (), "failed", "an internal error; see the server's log"))

    def send(self, load: Load) -> None:
        """Hands the steps of a pass to the HTTP process."""
        self._connection.send(Steps(self._steps, load))
        self._steps = []


def load_model(options: ServeOptions, report: _Report) -> Pipeline:
    """The model, loaded as by the command line; its own cache, of one sequence, stays unused."""
    from pipelines.pipeline import load

    return load(
        **chosen(vars(options), MODEL),
        save_to_serialized_model_path=options.save_to_serialized_model_path,
        device=options.device,
        reserved_sequences=options.max_batch_size,
        drafted_sequences=options.max_batch_size,
        progress=report,
    )


def make_cache(pipeline: Pipeline, options: ServeOptions) -> PrefixCache:
    """MAX's paged cache with prefix caching: pages for a full batch of longest sequences, and some more."""
    from max.dtype import DType
    from max.graph import DeviceRef
    from max.nn.kv_cache import MHAKVCacheParams

    from pipelines.server.process.page_store import PageStore, weights_digest
    from pipelines.server.process.prefix_cache import PrefixCache
    from pipelines.server.room import PREFIX_CACHE_BYTES
    from replit.gpu.device import RESERVE_BYTES, free_bytes
    from replit.runtime.engine import Engine
    from replit.runtime.kv_cache import PAGE_SIZE, pages_for

    config, device = pipeline.config, Engine.get().device
    params = MHAKVCacheParams(
        dtype=DType[str(pipeline.model.cache_encoding)],
        head_dim=config.head_dim,
        num_layers=config.n_layers,
        n_kv_heads=config.n_kv_heads,
        devices=[DeviceRef.CPU() if device is None else DeviceRef.from_device(device)],
        page_size=PAGE_SIZE,
        enable_prefix_caching=options.prefix_caching,
    )
    pages = options.max_batch_size * pages_for(options.max_length)
    if options.prefix_caching:
        spare = PREFIX_CACHE_BYTES // params.bytes_per_block
        if device is not None:
            spare = min(spare, (free_bytes(device) - RESERVE_BYTES) // params.bytes_per_block - pages)
        pages += max(0, min(pages, spare))
    store = None
    if options.cache_dir is not None and options.prefix_caching:
        key = sha256(f"{pipeline.digest} {weights_digest(pipeline.files.tensors)}".encode()).hexdigest()
        store = PageStore(Path(options.cache_dir), key, params.bytes_per_block, options.cache_dir_bytes)
    session = Engine.get().session
    return PrefixCache(params, session, pages, max_batch_size=options.max_batch_size, store=store)


def make_scheduler(
    pipeline: BatchPipeline,
    cache: PrefixCache,
    inbox: Inbox,
    outbox: Outbox,
    options: ServeOptions,
    prompt_chunk: int,
) -> TokenGenerationScheduler:
    """MAX Serve's scheduler: prompts in chunks of `prompt_chunk` tokens, in the same passes as generation."""
    from max.serve.scheduler import TokenGenerationSchedulerConfig
    from max.serve.scheduler.text_generation_scheduler import TokenGenerationScheduler

    # On the CPU every sequence of a batch may bring a part of its prompt: turns.py chooses from them.
    prompts, most = (1, 0) if options.device != "cpu" else (options.max_batch_size, prompt_chunk)
    config = TokenGenerationSchedulerConfig(
        max_batch_size=options.max_batch_size,
        target_tokens_per_batch_ce=max(prompt_chunk, options.max_batch_size) * prompts + options.max_batch_size,
        max_request_input_tokens=most,
        max_seq_len=options.max_length,
        enable_chunked_prefill=True,
        enable_in_flight_batching=True,
    )
    scheduler = TokenGenerationScheduler(
        config,
        pipeline,
        request_queue=inbox,
        response_queue=outbox,
        cancel_queue=inbox.cancelled,
        kv_cache=cache,
    )
    scheduler.scheduler_logger = _NoStatistics()
    return scheduler


class _NoStatistics:
    """In the place of MAX's logger, which computes figures for its own telemetry after each pass (80 microseconds)."""

    def log_metrics(self, **figures: Any) -> None:
        """Computes nothing: the metrics of this server are in metrics.py."""


def serve_requests(options: ServeOptions, connection: Connection) -> None:
    """Loads the model, says so, and serves until the pipe is closed."""
    ready = threading.Event()
    threading.Thread(target=_end_with_pipe, args=(connection, ready), daemon=True).start()
    loaded = load_model(options, _Report(connection))
    from pipelines.server.process.batch import BatchPipeline
    from replit.runtime.engine import Engine

    cache = make_cache(loaded, options)
    pipeline = BatchPipeline(
        loaded.model.passes_over(cache.blocks),
        cache,
        options.max_batch_size,
        options.max_length,
        loaded.tokenizer,
        Engine.get().device,
        loaded.drafter,
    )
    inbox, outbox = Inbox(connection, pipeline), Outbox(connection, pipeline)
    scheduler = make_scheduler(pipeline, cache, inbox, outbox, options, loaded.model.prompt_chunk)
    ready.set()
    connection.send(Ready())
    react_at_once()  # not earlier: the engine's own threads shall not inherit it
    try:
        run(scheduler, cache, inbox, outbox, options.max_batch_size)
    except OSError:
        if not inbox.gone:
            raise
    while cache.unsaved:
        cache.save_one()


def _end_with_pipe(connection: Connection, ready: threading.Event) -> None:
    """Ends a worker that still loads: the first thing that comes before it is ready is the end of the pipe."""
    connection.poll(None)
    if not ready.is_set():
        os._exit(1)


def run(
    scheduler: TokenGenerationScheduler,
    cache: PrefixCache,
    inbox: Inbox,
    outbox: Outbox,
    max_batch_size: int,
) -> None:
    """Serves until the pipe is closed."""
    from max.serve.scheduler.base import SchedulerProgress

    idle, quiet = True, SECONDS_UNTIL_SAVED
    while True:
        if idle and cache.unsaved:
            if not inbox.sort(wait=True, seconds=quiet):
                cache.save_one()
                quiet = 0.001
                continue
        else:
            inbox.sort(wait=idle)
        quiet = SECONDS_UNTIL_SAVED
        if inbox.closed:
            return
        constructor = scheduler.batch_constructor
        inbox.make_room(constructor, max_batch_size)
        # What has no seat yet stays with us, where its turn comes by its owner.
        scheduler.max_pending_requests = max_batch_size - len(constructor.all_tg_reqs)
        idle = scheduler.run_iteration() is SchedulerProgress.NO_PROGRESS
        blocks = cache.block_count()
        outbox.send(
            Load(
                running=len(constructor.all_tg_reqs) + len(constructor.all_ce_reqs),
                waiting=len(inbox),
                pages_used=blocks.total - blocks.free,
                pages_total=blocks.total,
                preempted=constructor.total_preemption_count,
            )
        )


def main() -> None:
    """Runs the worker on the pipe whose file descriptor is the first argument."""
    open_closed_streams()
    faulthandler.enable()
    # Sent to a whole group; the HTTP process decides when to end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.environ["MAX_SERVE_DISABLE_TELEMETRY"] = "1"
    logging.basicConfig(level=logging.WARNING)
    connection: Any = Connection(int(sys.argv[1]))
    try:
        options: ServeOptions = connection.recv()
    except (EOFError, OSError):
        return  # the HTTP process ended before it knew what to load
    try:
        serve_requests(options, connection)
    except UserError as error:
        _fail(connection, Failed(str(error), user_error=True))
    except BaseException:
        _fail(connection, Failed(traceback.format_exc()))


def _fail(connection: Connection, message: Failed) -> None:
    with suppress(OSError):  # the HTTP process has ended: nobody wants to know
        connection.send(message)
    sys.stderr.flush()
    os._exit(1)  # no exit handlers: the engine's threads may be anywhere


if __name__ == "__main__":
    main()

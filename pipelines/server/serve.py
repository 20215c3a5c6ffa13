"""`replit --serve`: listens, starts the model worker, serves until told to end.

Two processes: this one speaks HTTP and knows text; the worker (worker.py) runs the model behind MAX Serve's
scheduler. See docs/architecture.md for why.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import importlib.util
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.server.http.hosts import checks_hosts, is_loopback
from pipelines.server.options import ServeOptions
from replit.runtime.cores import usable_cores
from weights.errors import UserError, reason
from weights.files.paths import exists

if TYPE_CHECKING:
    from pipelines.registry import ModelFiles
    from pipelines.server.record import Log
    from pipelines.server.service import Service

Result = TypeVar("Result")

# Below this a core less for the engine is more tokens in all: nano on two cores, 16 clients, 2 700 to 4 700 a second.
SMALL_MODEL_BYTES = 64 << 20


def serve(options: ServeOptions) -> None:
    """Serves until a signal ends it, then returns.

    Raises UserError for what keeps it from listening, and SystemExit, once that is logged, for what ends it later.
    """
    check_installed()
    from pipelines.server.record import Log

    log = Log(options.log_format)
    listens = False
    try:
        files = check_local(options)
        listener = listen(options.host, options.port)
        listens = True
        _serve_on(listener, options, files, log)
    except UserError as error:
        if options.log_format == "text" and not listens:
            raise  # as any command says what is wrong with it
        log.event("error", reason=str(error))
        raise SystemExit(1) from error


def _serve_on(listener: socket.socket, options: ServeOptions, files: ModelFiles | None, log: Log) -> None:
    # Until the loop takes over: nothing is running that could be lost.
    for number in ending_signals():
        signal.signal(number, lambda number, frame: sys.exit(0))
    log.take_library_lines()
    with listener:
        host, port = listener.getsockname()[:2]
        # The address decides who may ask, however it was spelled; the spelling is a name of this machine too.
        checked = checks_hosts(options.allowed_hosts, options.api_keys, host)
        names = (*options.allowed_hosts, options.host) if checked else ()
        options = replace(options, host=host, allowed_hosts=names)
        log.event("listening", url=f"http://{f'[{host}]' if ':' in host else host}:{port}")
        if not options.api_keys and not is_loopback(host):
            log.event(
                "warning", what=f"anybody who reaches {host} port {port} can use this server: it has no --api-key"
            )
        import uvloop

        failure = uvloop.run(_serve(options, files, listener, log))
    if failure is not None:
        raise UserError(failure)


def check_local(options: ServeOptions) -> ModelFiles | None:
    """The model's files where they are on this machine. Raises UserError for what can be known before listening.

    None where the hub has to be asked: that may take long, and what listens can say so.
    """
    from replit.runtime.compiled_file import read_compiled
    from weights.embedded_models import EMBEDDED

    if options.serialized_model_path is not None:
        read_compiled(Path(options.serialized_model_path), options.serialized_model_sha256)
    for path in (options.config_path, options.tokenizer_path):
        if path is not None and not exists(path):
            raise UserError(f"{path} does not exist; expected a file or a directory: check the path")
    name = options.weight_path or options.model
    named = options.weight_path is None and options.model in EMBEDDED
    from_hub = name.startswith("hf://") or (options.weight_path is None and not named and not exists(name))
    if from_hub and re.fullmatch(r"(hf://.+|[\w.-]+/[\w.-]+(@.+)?)", name):
        return None
    return open_files(options)


def open_files(options: ServeOptions) -> ModelFiles:
    """The model's files, and whether they go with the options and this machine's memory. Raises UserError."""
    from pipelines.registry import check_length, open_model, parse_encoding
    from pipelines.server.room import cache_encoding, with_room
    from replit.runtime.free_memory import check_cache_fits

    wanted = parse_encoding(options.quantization_encoding)
    files = open_model(options.model, options.weight_path, wanted, options.config_path, options.tokenizer_path)
    options = with_room(options, files)
    check_length(options.max_length, files.config, options.allow_longer)
    if options.device == "cpu":
        check_cache_fits(files.config, options.max_batch_size, options.max_length, cache_encoding(options))
    return files


def check_installed() -> None:
    """Raises UserError where the extra `serve` is missing."""
    for module in ("fastapi", "uvicorn", "httptools", "uvloop", "prometheus_client", "zmq"):
        if importlib.util.find_spec(module) is None:
            raise UserError(
                f"the Python package {module} is missing; expected the server's packages: "
                'pip install ".[serve]" in the checkout, or the wheel with [serve] after its path'
            )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UserError for an address that cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except (OSError, OverflowError, UnicodeError) as error:
        why = "no such name can be" if isinstance(error, UnicodeError) else reason(error)
        raise UserError(
            f"cannot listen on {host} port {port}: {why}; expected a free port of this machine: "
            "give --host and --port (0 picks a free one)"
        ) from None
    return listener


async def _serve(options: ServeOptions, files: ModelFiles | None, listener: socket.socket, log: Log) -> str | None:
    """Runs both processes; the reason if it could not go on."""
    started = time.monotonic()
    from pipelines.server.http.http_server import HttpServer
    from pipelines.server.process.time_slice import react_at_once
    from pipelines.server.process.worker_process import ModelWorker
    from pipelines.server.starting import Starting, Waiting

    waiting = Waiting()

    def loading(line: str) -> None:
        waiting.begin(line)
        log.event("loading", what=line)

    def printed(line: str) -> None:
        log.event("worker", what=line)

    with _signals_held():
        worker = ModelWorker(loading, printed if options.log_format == "json" else None)
    react_at_once()  # after the start of the worker, which would inherit it
    starting = Starting(waiting)
    server = HttpServer(starting, options)
    running = _Running(worker, server, log)
    with running.stop_on_signals():
        try:
            serving = asyncio.ensure_future(server.run(listener))
            preparing = asyncio.ensure_future(_prepare(options, files, worker, starting, waiting, running))
            watching = asyncio.ensure_future(_watch(worker, running, log, started))
            await asyncio.wait({serving, watching, preparing}, return_when=asyncio.FIRST_COMPLETED)
            failed = preparing.done() and preparing.exception() is not None
            if not failed:
                await asyncio.wait({serving, watching}, return_when=asyncio.FIRST_COMPLETED)
            server.stop(failed or worker.ended.is_set())
            await serving
            preparing.cancel()
            watching.cancel()
            if failed:
                preparing.result()
        finally:
            await in_daemon(worker.stop)  # a second signal is heard while it stores what it has
    return None if worker.failure is None else worker.failure.message


def ending_signals() -> tuple[signal.Signals, ...]:
    """SIGTERM, Ctrl-C, and the end of the terminal unless the server was started so that it outlives it (`nohup`)."""
    outlives = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGTERM, signal.SIGINT, *(() if outlives else (signal.SIGHUP,)))


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """What starts inside never sees what a terminal sends to all, as at Ctrl-C: this process decides when to end."""
    # Blocked, not ignored: what comes meanwhile is heard afterwards.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def _prepare(
    options: ServeOptions,
    files: ModelFiles | None,
    worker: Any,
    starting: Any,
    waiting: Any,
    running: _Running,
) -> None:
    """Opens the files, which may have to be downloaded, hands them to the worker, and lets the application answer."""
    # While the worker imports, this process does.
    from pipelines.server.http.app import create_app
    from pipelines.server.model_info import model_info
    from pipelines.server.room import with_room
    from pipelines.server.service import Service

    if files is None:
        waiting.begin(f"opening or downloading {options.weight_path or options.model}")
        running.log.event("loading", what=f"opening or downloading {options.weight_path or options.model}")
        files = await in_daemon(lambda: open_files(options))
    options = with_room(options, files)
    running.log.event("room", max_length=options.max_length, sequences=options.max_batch_size)
    waiting.begin("the model worker")
    await worker.start(with_threads(options, files))
    service = Service(options, files, worker, running.log, waiting)
    service.metrics.describe(model_info(options, files))
    service.draining = running.stopping
    running.service = service
    starting.app = create_app(service)


def in_daemon(work: Callable[[], Result]) -> asyncio.Future[Result]:
    """Runs `work` in a thread that does not keep the process alive: a download may take hours."""
    future: concurrent.futures.Future[Result] = concurrent.futures.Future()
    future.set_running_or_notify_cancel()  # so that whoever waits no longer does not take the thread's place

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return asyncio.wrap_future(future)


def with_threads(options: ServeOptions, files: ModelFiles) -> ServeOptions:
    """Leaves a core to HTTP and scheduling where a pass is so short that they take as long as it does."""
    cores = usable_cores()
    size = sum(tensor.nbytes for tensor in files.tensors.values())
    if options.threads is not None or options.device != "cpu" or size > SMALL_MODEL_BYTES or cores < 2:
        return options
    return replace(options, threads=cores - 1)


async def _watch(worker: Any, running: _Running, log: Any, started: float) -> None:
    """Says when the model is loaded and when its worker stalls, and returns when the worker has ended."""
    await worker.changed.wait()
    if worker.ready is not None:
        log.event("ready", seconds=round(time.monotonic() - started, 1))
    while not worker.ended.is_set():
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(worker.ended.wait(), 1.0)
        service = running.service
        if service is not None and service.stall.look():
            stalled = service.stall.is_stalled
            log.event("stalled" if stalled else "working again", running=worker.in_flight, pid=worker.pid)


class _Running:
    """What a signal ends: SIGTERM, SIGHUP and Ctrl-C: no new requests, running ones go on; the second time: at once."""

    def __init__(self, worker: Any, server: Any, log: Any) -> None:
        self.log = log
        self.service: Service | None = None
        self.stopping = False
        self._worker = worker
        self._server = server

    def stop(self) -> None:
        """One signal."""
        now, self.stopping = self.stopping, True
        if now:
            self._worker.kill()
        if self.service is not None:
            self.service.draining = True
        self.log.event("stopping", running=self._worker.in_flight)
        self._server.stop(now)

    @contextlib.contextmanager
    def stop_on_signals(self) -> Iterator[None]:
        """Takes the signals over."""
        loop, numbers = asyncio.get_running_loop(), ending_signals()
        for number in numbers:
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

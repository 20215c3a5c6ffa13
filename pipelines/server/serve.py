"""`replit --serve`: listens, starts the model worker, serves until told to end.

Two processes: this one speaks HTTP and knows text; the worker (worker.py) runs the model behind MAX Serve's
scheduler. See docs/architecture.md for why.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipelines.server.options import ServeOptions
from weights.errors import UserError
from weights.tensor import Encoding

if TYPE_CHECKING:
    from pipelines.registry import ModelFiles

# Below this a core less for the engine is more tokens in all: nano on two cores, 16 clients, 2 700 to 4 700 a second.
SMALL_MODEL_BYTES = 64 << 20


def serve(options: ServeOptions) -> None:
    """Serves until SIGTERM or SIGINT, then returns. Raises UserError for what keeps it from starting or going on."""
    check_installed()
    from pipelines.server.record import Log

    listener = listen(options.host, options.port)
    # Until the loop takes over: nothing is running that could be lost.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    log = Log(options.log_format)
    with listener:
        host, port = listener.getsockname()[:2]
        log.event("listening", url=f"http://{f'[{host}]' if ':' in host else host}:{port}")
        import uvloop

        failure = uvloop.run(_serve(options, listener, log))
    if failure is not None:
        raise UserError(failure)


def check_installed() -> None:
    """Raises UserError where the extra `serve` is missing."""
    for module in ("fastapi", "uvicorn", "httptools", "uvloop", "prometheus_client", "zmq"):
        if importlib.util.find_spec(module) is None:
            raise UserError(
                f"the Python package {module} is missing; expected the server's packages: "
                'pip install "replit-code-max[serve]"'
            )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UserError for an address that cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"cannot listen on {host} port {port}: {reason}; expected a free port of this machine: "
            "give --host and --port (0 picks a free one)"
        ) from None
    return listener


async def _serve(options: ServeOptions, listener: socket.socket, log: Any) -> str | None:
    """Runs both processes; the reason if it could not go on."""
    started = time.monotonic()
    from pipelines.server.process.time_slice import react_at_once
    from pipelines.server.process.worker_process import ModelWorker

    worker = ModelWorker(lambda line: log.event("loading", what=line))
    react_at_once()  # after the start of the worker, which would inherit it
    try:
        # While the worker imports, this process does.
        from pipelines.registry import open_model
        from pipelines.server.http.app import create_app
        from pipelines.server.http.http_server import HttpServer
        from pipelines.server.model_info import model_info
        from pipelines.server.service import Service

        encoding = options.quantization_encoding
        wanted = Encoding(encoding.lower()) if encoding else None
        files = open_model(options.model, options.weight_path, wanted, options.config_path, options.tokenizer_path)
        await worker.start(with_threads(options, files))
        service = Service(options, files, worker, log)
        service.metrics.describe(model_info(options, files))
        server = HttpServer(create_app(service), options)
        with _stop_on_signals(service, server):
            serving = asyncio.ensure_future(server.run(listener))
            watching = asyncio.ensure_future(_watch(worker, log, started))
            await asyncio.wait({serving, watching}, return_when=asyncio.FIRST_COMPLETED)
            server.stop(worker.ended.is_set())
            await serving
            watching.cancel()
    finally:
        worker.stop()
    return None if worker.failure is None else worker.failure.message


def with_threads(options: ServeOptions, files: ModelFiles) -> ServeOptions:
    """Leaves a core to HTTP and scheduling where a pass is so short that they take as long as it does."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    size = sum(tensor.nbytes for tensor in files.tensors.values())
    if options.threads is not None or options.device != "cpu" or size > SMALL_MODEL_BYTES or cores < 2:
        return options
    return replace(options, threads=cores - 1)


async def _watch(worker: Any, log: Any, started: float) -> None:
    """Says when the model is loaded, and returns when the worker has ended."""
    await worker.changed.wait()
    if worker.ready is not None:
        log.event("ready", seconds=round(time.monotonic() - started, 1))
    await worker.ended.wait()


@contextlib.contextmanager
def _stop_on_signals(service: Any, server: Any) -> Iterator[None]:
    """SIGTERM and Ctrl-C: no new requests, running ones go on; the second time: end at once."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        now = service.draining
        service.draining = True
        service.log.event("stopping", running=service.worker.in_flight)
        server.stop(now)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

"""uvicorn, ended by us rather than by its own signal handlers, and with a limit on slow request heads."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from pipelines.server.options import ServeOptions

# Seconds for a request's head to arrive, and between requests of a connection.
HEAD_TIMEOUT = 20.0
KEEP_ALIVE = 75


class Protocol(HttpToolsProtocol):
    """Closes connections that do not finish a request's head in time (slowloris)."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begins to wait for the first request."""
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """After the end of one request, the head of the next must come in time too."""
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._forget_head()
        super().on_headers_complete()
        if self.scope["http_version"] == "1.0" and self.cycle is not None:
            self.cycle.send = partial(send_unframed, self.cycle, self.cycle.send)  # type: ignore[method-assign]

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is expected any more."""
        self._forget_head()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT, self.transport.close)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


async def send_unframed(cycle: RequestResponseCycle, send: Callable[[Any], Awaitable[None]], message: Any) -> None:
    """Sends without chunks, which HTTP/1.0 does not know: an answer of unknown length ends with the connection."""
    if message["type"] == "http.response.start":
        if not any(name.lower() == b"content-length" for name, _ in message.get("headers", ())):
            cycle.chunked_encoding, cycle.keep_alive = False, False
    elif cycle.chunked_encoding is False and not cycle.keep_alive:
        cycle.expected_content_length = max(cycle.expected_content_length, len(message.get("body", b"")))
    await send(message)


class HttpServer(uvicorn.Server):
    """Serves an application on a socket that listens already."""

    def __init__(self, app: Any, options: ServeOptions) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Protocol,
                ws="none",
                lifespan="off",
                loop="none",
                access_log=False,
                log_level="warning",
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=max(int(options.shutdown_timeout), 1),
                server_header=False,
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the caller's business, whose exit status is not a signal's."""
        yield

    async def run(self, listener: socket.socket) -> None:  # type: ignore[override]
        """Serves until `stop`."""
        await self.serve(sockets=[listener])

    def stop(self, now: bool) -> None:
        """Ends after the running requests, or `now`."""
        self.should_exit = True
        self.force_exit = self.force_exit or now

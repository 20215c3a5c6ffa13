"""uvicorn, ended by us rather than by its own signal handlers, and with limits on a request's head."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from pipelines.server.http.api_error import ApiError
from pipelines.server.http.request_parser import RequestParser
from pipelines.server.options import ServeOptions

# Seconds for a request's head to arrive, and between requests of a connection.
HEAD_TIMEOUT = 20.0
KEEP_ALIVE = 75
# Seconds in which requests that are cut off tell their clients.
LAST_WORDS = 1.0
# Of one request: bytes of its head (and of what may follow a body in chunks), and headers.
MAX_HEAD_BYTES = 64 << 10
MAX_HEADERS = 100


class Protocol(HttpToolsProtocol):
    """Closes connections whose requests' heads are too large, or do not come in time (slowloris).

    httptools puts a header together from the pieces in which it arrives, copying all of it for each piece: 80 MB take
    15 s. So the bytes since the parser last told anything are limited too.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _head_count = 0
    _silent_bytes = 0  # received since the parser told anything
    _too_large = False
    _refused = False  # nothing that comes is read any more
    _running: RequestResponseCycle | None = None  # the request that is answered; `cycle` is the last that came

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.parser: Any = RequestParser(self)

    def connection_made(self, transport: Any) -> None:
        """Begins to wait for the first request."""
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """After the end of one request, the head of the next must come in time too."""
        if self._refused or self.transport.is_closing():
            return
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()
        before, self._silent_bytes = self._silent_bytes, -1
        super().data_received(data)
        # -1: the parser has told nothing of this piece.
        self._silent_bytes = before + len(data) if self._silent_bytes < 0 else 0
        if self._silent_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse_head()

    def on_message_begin(self) -> None:
        """A new head."""
        if self.parser.resumes:
            return
        self._silent_bytes = 0
        self._head_bytes = self._head_count = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the path."""
        if self.parser.resumes:
            return
        self._count(len(url), 0)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header, or one after a body in chunks."""
        if self.parser.resumes:
            return
        self._count(len(name) + len(value) + 4, 1)
        super().on_header(name, value)

    def _count(self, size: int, headers: int) -> None:
        self._silent_bytes = 0
        self._head_bytes += size
        self._head_count += headers
        if self._head_bytes > MAX_HEAD_BYTES or self._head_count > MAX_HEADERS:
            self._too_large = True
            raise ValueError("the head is too large")  # ends the parser, see send_400_response

    def on_headers_complete(self) -> None:
        """The head is there."""
        if self.parser.resumes:
            return
        self._silent_bytes = 0
        self._forget_head()
        super().on_headers_complete()
        self._running = self._running if self.pipeline else self.cycle
        if self.scope["http_version"] == "1.0" and self.cycle is not None:
            self.cycle.send = partial(send_unframed, self.cycle, self.cycle.send)  # type: ignore[method-assign]

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._silent_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The whole request is there."""
        if self.parser.should_upgrade():
            return  # see RequestParser
        self._silent_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The next of those that came meanwhile."""
        self._running = self.pipeline[-1][0] if self.pipeline else self._running
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """What cannot be parsed, or is refused while it is."""
        if self._too_large:
            self._refuse_head()
        else:
            self._refuse(ApiError("the request is not valid HTTP/1.1", code="invalid_http"))

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that says no more, as `nc` at the end of its input, is still told what it asked about the server.

        One that has left says the same: nobody is known to wait for a text, so a request for one ends.
        """
        running = self._running
        if running is None or running is not self.cycle or running.more_body or running.response_complete:
            return False
        running.keep_alive = False
        return running.scope["method"] != "POST"

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is expected any more."""
        self._forget_head()
        if self._running is not None:  # uvicorn tells the last one only
            self._running.disconnected = not self._running.response_complete
            self._running.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def _refuse_head(self) -> None:
        self._too_large = True
        message = f"the request's head is too large; expected at most {MAX_HEADERS} headers, {MAX_HEAD_BYTES} bytes"
        self._refuse(ApiError(message, status=431, code="head_too_large"))

    def _refuse(self, error: ApiError) -> None:
        """Answers what has just come, unless earlier requests are still to be answered, and ends the connection."""
        self._refused = True
        running = self._running
        if running is None or running.response_complete:
            self._answer(error)
        elif not self.cycle.more_body:  # a new request, behind those
            self.cycle.keep_alive = False
        elif self.cycle is running and not running.response_started:
            self._answer(error)
        else:
            self.transport.close()

    def _answer(self, error: ApiError) -> None:
        """An answer from below the application, and the end of the connection."""
        body = json.dumps(error.body).encode()
        reason = {400: b"Bad Request", 431: b"Request Header Fields Too Large"}[error.status]
        head = b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (error.status, reason, len(body)) + body)
        self.transport.close()

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
                log_config=None,  # record.py
                timeout_keep_alive=KEEP_ALIVE,
                server_header=False,
            )
        )
        self._patience = options.shutdown_timeout

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the caller's business, whose exit status is not a signal's."""
        yield

    async def run(self, listener: socket.socket) -> None:  # type: ignore[override]
        """Serves until `stop`. Requests that still run then are cancelled, and say so to their clients."""
        await self.serve(sockets=[listener])
        running = set(self.server_state.tasks)
        for task in running:
            task.cancel()
        if running and (await asyncio.wait(running, timeout=LAST_WORDS))[1]:
            for connection in list(self.server_state.connections):  # whose clients do not read
                connection.transport.abort()
            await asyncio.wait(running, timeout=LAST_WORDS)

    def stop(self, now: bool) -> None:
        """Ends after the running requests, at the latest after the shutdown timeout, or `now`."""
        if not self.should_exit:
            asyncio.get_running_loop().call_later(self._patience, self.stop, True)
        self.should_exit = True
        self.force_exit = self.force_exit or now

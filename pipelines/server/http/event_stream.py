"""Answers that end when the client leaves: server-sent events, and plain JSON that takes a while."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pipelines.server.http.api_error import CLIENT_LEFT, ApiError, shutting_down
from pipelines.server.http.json_answer import all_rows, json_answer

T = TypeVar("T")
DONE = "[DONE]"


class Job(Protocol):
    """A request that runs, and its answer in either form."""

    def events(self) -> AsyncGenerator[dict[str, Any] | str, None]:
        """The stream's events."""

    async def result(self) -> dict[str, Any] | list[dict[str, Any]]:
        """The whole answer at once."""


async def respond(job: Job, stream: bool | None, request: Request, *, lines: bool = False) -> Response:
    """The job's answer, streamed (as events, or with `lines` as lines of JSON) or whole."""
    if stream:
        return EventStream(job.events(), lines)
    return await json_answer(await until_disconnect(request, job.result()))


# Seconds of events after which others get their turn.
_BREATH = 0.005
# Characters or ids from which on a request's text is encoded beside the event loop, which costs 0.1 ms.
_LONG = 8192


async def beside(size: int, work: Callable[[], T]) -> T:
    """The result of `work` on a text of `size` characters, in a thread where other requests would wait for it."""
    return work() if size <= _LONG else await asyncio.to_thread(work)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def until_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled if the client leaves first (ApiError 499 then)."""
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError("the client has left", status=CLIENT_LEFT)
        return task.result()
    finally:
        await _end(task)
        await _end(watcher)


async def _end(task: asyncio.Future[Any]) -> None:
    if not task.done():
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# Line ends of Unicode's, at which some clients end a line of a stream; JSON allows them as they are.
_LINE_ENDS = {ord(char): f"\\u{ord(char):04x}" for char in "\x85\u2028\u2029"}


def dumps(value: Any) -> str:
    """Compact JSON on one line; other text stays as it is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=all_rows).translate(_LINE_ENDS)


def as_event(value: dict[str, Any] | str) -> str:
    """A server-sent event."""
    return f"data: {value if isinstance(value, str) else dumps(value)}\n\n"


def as_line(value: dict[str, Any] | str) -> str:
    """A line of JSON, as Ollama's streams are made of."""
    return f"{value if isinstance(value, str) else dumps(value)}\n"


class EventStream(Response):
    """Server-sent events, each a JSON object (or `DONE`); or lines of JSON.

    The status goes out with the first event, so that a request that fails before has a status of its own, and a load
    balancer can still give it to another server.
    """

    def __init__(self, events: AsyncGenerator[dict[str, Any] | str, None], lines: bool = False) -> None:
        self.media_type = "application/x-ndjson" if lines else "text/event-stream"
        self._written = as_line if lines else as_event
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events until they end or the client leaves."""
        sending = asyncio.ensure_future(self._send(send, scope))
        watcher = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({sending, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                scope["replit.record"].status = CLIENT_LEFT
            else:
                sending.result()
        except asyncio.CancelledError:
            if sending.done() or not self._begun:
                raise
            await _end(sending)
            await self._fail(shutting_down(), send, scope)
        finally:
            await _end(sending)
            await _end(watcher)

    async def _send(self, send: Send, scope: Scope) -> None:
        rested = time.monotonic()
        async with aclosing(self._events) as events:
            try:
                async for event in events:
                    await self._begin(send)
                    await self._data(send, event)
                    if time.monotonic() - rested > _BREATH:  # many at once: nothing above has to wait
                        await asyncio.sleep(0)
                        rested = time.monotonic()
            except ApiError as error:
                if not self._begun:
                    raise
                await self._fail(error, send, scope)
                return
        await self._begin(send)
        await send({"type": "http.response.body", "body": b""})

    async def _begin(self, send: Send) -> None:
        if not self._begun:
            self._begun = True
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

    async def _fail(self, error: ApiError, send: Send, scope: Scope) -> None:
        """The client has seen 200; the log and the metrics tell how it ended."""
        record = scope["replit.record"]
        record.status, record.note = error.status, f"in the middle of a stream: {error.message}"
        await self._data(send, error.body_for(scope["path"]))
        await send({"type": "http.response.body", "body": b""})

    def _data(self, send: Send, event: dict[str, Any] | str) -> Awaitable[None]:
        body = self._written(event).encode()
        return send({"type": "http.response.body", "body": body, "more_body": True})

"""A request's body as it arrives: within its limit and in time, compressed or not."""

from __future__ import annotations

import asyncio
import contextlib
import time
import zlib

from starlette.types import Message, Receive

from pipelines.server.http.api_error import CLIENT_LEFT, CLOSE, ApiError
from pipelines.server.http.json_limits import JsonLimits

# Seconds for a whole body to arrive.
BODY_TIMEOUT = 30.0
# Of a body that is refused, so much is still taken in, and for so long: clients send all before they read.
MOST_DISCARDED = 64 << 20
DISCARD_TIMEOUT = 5.0
# zlib's window for gzip's header, and for zlib's own, which HTTP calls deflate.
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


def too_large(limit: int) -> ApiError:
    """The body is over the limit."""
    return ApiError(
        f"the body is too large; expected at most {limit} bytes",
        status=413, code="body_too_large", headers=CLOSE,
    )  # fmt: skip


class Decoder:
    """Undoes a `Content-Encoding`, never into more than `limit` bytes."""

    def __init__(self, encoding: str, limit: int) -> None:
        """Raises ApiError for an encoding that is not known."""
        name = encoding.strip().lower()
        if name not in _WINDOWS:
            raise ApiError(
                f"the body's Content-Encoding is {encoding[:80]!r}; expected gzip, deflate or none",
                status=415, code="unsupported_encoding", headers=CLOSE | {"Accept-Encoding": "gzip, deflate"},
            )  # fmt: skip
        self._name = name
        self._left = limit
        self._limit = limit
        self._stream = zlib.decompressobj(_WINDOWS[name])

    def decode(self, data: bytes, last: bool) -> bytes:
        """The next plain bytes. Raises ApiError for what is damaged, cut off or too large."""
        try:
            plain = self._stream.decompress(data, self._left + 1)
        except zlib.error as error:
            raise self._damaged(str(error)) from None
        self._left -= len(plain)
        if self._left < 0:
            raise too_large(self._limit)
        if self._stream.unused_data:
            raise self._damaged("there are bytes after its end")
        if last and not self._stream.eof:
            raise self._damaged("it is cut off")
        return plain

    def _damaged(self, how: str) -> ApiError:
        return ApiError(f"the body is no {self._name} stream: {how}", code="invalid_body", headers=CLOSE)


async def discard(receive: Receive) -> None:
    """Takes in the rest of a body that is refused: closed before, a connection may lose the answer on its way."""

    async def rest() -> None:
        size = 0
        while size < MOST_DISCARDED:
            message = await receive()
            size += len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body", False):
                return

    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(rest(), DISCARD_TIMEOUT)


class Body:
    """A request's `receive` that gives up on a body that is too large, costs too much, or does not come."""

    def __init__(self, receive: Receive, limit: int, encoding: str | None) -> None:
        """Raises ApiError for an unknown `encoding` of it."""
        self._receive = receive
        self._limit = limit
        self._decoder = None if encoding is None else Decoder(encoding, limit)
        self._deadline = time.monotonic() + BODY_TIMEOUT
        self._size = 0
        self._json = JsonLimits()
        self._whole = False
        self.error: ApiError | None = None

    async def __call__(self) -> Message:
        """The next message."""
        if self._whole:
            return await self._receive()
        try:
            left = max(self._deadline - time.monotonic(), 0.01)
            return self._checked(await asyncio.wait_for(self._receive(), left))
        except asyncio.TimeoutError:
            self.error = ApiError(f"the body did not arrive within {BODY_TIMEOUT:.0f} s", status=408, headers=CLOSE)
            raise self.error from None
        except ApiError as error:
            self.error = error
            raise

    def _checked(self, message: Message) -> Message:
        data = message.get("body", b"")
        self._size += len(data)
        self._whole = not message.get("more_body", False)
        if self._size > self._limit:
            raise too_large(self._limit)
        if message["type"] != "http.request":
            raise ApiError("the client has left", status=CLIENT_LEFT)
        if self._decoder is not None:
            data = self._decoder.decode(data, self._whole)
        self._json.feed(data)
        return {**message, "body": data}

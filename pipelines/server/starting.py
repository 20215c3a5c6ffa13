"""What answers before the model's files are here: 503 with what it waits for, then the application."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Receive, Scope, Send

from pipelines.server.http.api_error import ApiError, loading


class Waiting:
    """What the start waits for, and since when."""

    def __init__(self) -> None:
        self._what = "its files"
        self._since = time.monotonic()

    def begin(self, what: str) -> None:
        """The next thing that takes time."""
        self._what, self._since = what, time.monotonic()

    def error(self) -> ApiError:
        """The answer while it takes."""
        return loading(f"{self._what}, for {time.monotonic() - self._since:.0f} s")


class Starting:
    """The server's application from its first moment on."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self.app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on if there is somebody to answer it."""
        if self.app is not None:
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            error = self._waiting.error()
            error.headers = {**(error.headers or {}), "Connection": "close"}  # a body is not read
            await error.response(scope["path"])(scope, receive, send)

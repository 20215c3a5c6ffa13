"""Between Serve's proxies and the replicas: reads a request's body, by which the router sends it where it is known.

Nothing is answered twice: a request whose replica dies is given to another one while no part of its answer has come.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.scale.affinity import affinity_key
from pipelines.scale.merged_metrics import merged
from pipelines.scale.replica import SCOPE, Request
from pipelines.server.http.api_error import ApiError
from pipelines.server.http.body import Body
from pipelines.server.metrics import CONTENT_TYPE
from pipelines.server.options import ServeOptions

# Replicas that are asked one after the other where they die, or cannot go on, before an answer begins.
_ATTEMPTS = 4
_ID = b"x-request-id"


class Ingress:
    """Middleware that answers all requests by the replicas behind a handle."""

    def __init__(self, app: ASGIApp, handle: Any, options: ServeOptions) -> None:
        self._app = app  # Starlette's own, for the lifespan
        self._handle = handle
        self._options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = _below(scope)
        body = Body(receive, self._options.max_body_bytes, None)
        try:
            named = {name: scope.get(name) for name in SCOPE}
            request = Request(named, await _whole(body), _request_id(scope))
            async with aclosing(self._answer(request)) as messages:
                first = await anext(messages)
                if (b"content-type", CONTENT_TYPE.encode()) in first["headers"]:  # however the path is spelled
                    metrics = Response(await self._metrics(), media_type=CONTENT_TYPE)
                    await metrics(scope, receive, send)
                    return
                await send(_without_id(first))
                async for message in messages:
                    await send(message)
        except ApiError as error:
            await error.response(scope["path"])(scope, receive, send)

    async def _answer(self, request: Request) -> AsyncGenerator[Message, None]:
        """The messages of the first answer that begins. Raises ApiError where none does."""
        from ray.exceptions import RayError
        from ray.serve.exceptions import BackPressureError

        key = affinity_key(request.body)
        for left in reversed(range(_ATTEMPTS)):
            begun = False
            response = self._handle.options(method_name="answer", stream=True).remote(request, key=key)
            try:
                async for messages in response:
                    if left and not begun and messages[0].get("status") == 503:
                        break  # it ends, or its worker has died
                    begun = True
                    for message in messages:
                        yield message
                if begun:
                    return
            except BackPressureError:
                raise _busy() from None
            except RayError:
                if begun or not left:
                    raise
            finally:
                response.cancel()
        raise _unavailable()

    async def _metrics(self) -> str:
        """What all replicas count, each under its name."""
        told = await self._handle.broadcast("metrics").results_async(timeout_s=5.0)
        return merged(dict(told))


def _below(scope: Scope) -> Scope:
    """The request as at the root: the prefix of the path at which Serve has the application is not the server's."""
    prefix = scope.get("root_path", "")
    path, raw = scope["path"].removeprefix(prefix), (scope.get("raw_path") or b"").removeprefix(prefix.encode())
    return {**scope, "root_path": "", "path": path or "/", "raw_path": raw or b"/"}


def _request_id(scope: Scope) -> str:
    """Serve's name for the request, or its client's, in the characters that a log takes."""
    found = dict(scope["headers"]).get(_ID, b"").decode("latin-1")
    return re.sub(r"[^\w.-]", "", found, flags=re.ASCII)[:64] or uuid.uuid4().hex


def _without_id(message: Message) -> Message:
    """The start of an answer without the request's id, which Serve adds itself."""
    return {**message, "headers": [header for header in message["headers"] if header[0].lower() != _ID]}


async def _whole(body: Body) -> bytes:
    """All of a request's body. Raises ApiError for one that is too large or comes too slowly."""
    parts = []
    while (message := await body())["type"] == "http.request":
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    return b"".join(parts)


def _busy() -> ApiError:
    return ApiError(
        "all replicas are busy; try again in a moment", status=429, code="queue_full", headers={"Retry-After": "1"}
    )


def _unavailable() -> ApiError:
    return ApiError(
        "no replica answers; try again in a moment", status=503, code="unavailable", headers={"Retry-After": "1"}
    )

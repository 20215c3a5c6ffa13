"""Around the application: who may ask, how much, and one record a request. Plain ASGI, for speed.

Nothing of a body is read before the key is right.
"""

from __future__ import annotations

import asyncio
import hmac
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.server.http.api_error import CLOSE, ApiError, shutting_down
from pipelines.server.http.body import Body, discard, too_large
from pipelines.server.http.hosts import check_host, checks_hosts
from pipelines.server.record import Record
from pipelines.server.routes import page
from pipelines.server.service import Service

OPEN_PATHS = ("/health", "/v1/health", *page.OPEN_PATHS)
# Bytes of a query that is looked at.
MOST_QUERY = 256
Headers = dict[bytes, bytes]


def key_state(headers: Headers, keys: Sequence[str]) -> Literal["none", "missing", "wrong", "right"]:
    """What a request's key is to this server; "none" where it asks for none."""
    if not keys:
        return "none"
    given = given_key(headers)
    # All of them are compared: the time tells neither which one it is nor how much of it is right.
    if sum(hmac.compare_digest(given, key.encode()) for key in keys):
        return "right"
    return "wrong" if given else "missing"


def given_key(headers: Headers) -> bytes:
    """The key that a request brings: `Authorization: Bearer KEY`, the scheme in any case, or `X-Api-Key: KEY`."""
    scheme, _, key = headers.get(b"authorization", b"").strip().partition(b" ")
    if scheme.lower() == b"bearer" and key.strip():
        return key.strip()
    return headers.get(b"x-api-key", b"").strip() or scheme


def _client(scope: Scope) -> tuple[str, str]:
    """Whom a request is from, and over which connection."""
    key = given_key(dict(scope["headers"])).decode("latin-1")
    host, port = scope.get("client") or ("", 0)
    return f"{key}@{host}", f"{key}@{host}:{port}"


class Guard:
    """Checks host, key and the body's size, and keeps the record of each request."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        options = service.options
        self._checks_host = checks_hosts(options.allowed_hosts, options.api_keys, options.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # The framework takes both to pieces for every route: 64 KiB of `?a&a&a` take 20 ms. No route reads more.
        query = scope["query_string"] if len(scope["query_string"]) <= MOST_QUERY else b""
        headers = [pair for pair in scope["headers"] if pair[0] != b"cookie"]
        scope = {**scope, "query_string": query, "headers": headers}
        record = Record(scope["path"])
        record.id = scope.get("replit.id", record.id)  # a name that others know already
        record.client, record.owner = _client(scope)
        record.key = given_key(dict(scope["headers"])).decode("latin-1")
        scope["replit.record"] = record

        async def recorded(message: Message) -> None:
            if message["type"] == "http.response.start" and not record.status:
                record.status = message["status"]
                message["headers"] = [
                    *message["headers"], (b"x-request-id", record.id.encode()),
                    *((name.lower().encode(), value.encode()) for name, value in record.headers.items()),
                ]  # fmt: skip
            await send(message)

        try:
            await self._guarded(scope, receive, recorded)
        except asyncio.CancelledError:  # see HttpServer.run, which has no use for it
            error = shutting_down()
            if not record.status:
                await error.response(scope["path"])(scope, receive, recorded)
            record.status, record.note = error.status, error.message
        finally:
            self._end(scope, record)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        record: Record = scope["replit.record"]
        admitted = False
        try:
            body = self._admit(scope, receive)
            admitted = True

            async def checked(message: Message) -> None:
                # The framework answers in its own words when a body cannot be read.
                if body.error is None or record.status:
                    await send(message)

            await self._app(scope, body, checked)
            if body.error is not None and not record.status:
                raise body.error
        except ApiError as error:
            if not record.status:
                closes = (error.headers or {}).get("Connection") == "close" and error.status != 408
                # For our word before it sends a body, which the application gives when it reads.
                waits = not admitted and any(name == b"expect" for name, _ in scope["headers"])
                if closes and not waits and scope.get("replit.key") in ("none", "right"):
                    await discard(receive)
                await error.response(scope["path"])(scope, receive, send)
        except Exception as error:
            record.note = f"{type(error).__name__}: {error}"
            self._service.log.event("error", id=record.id, trace=traceback.format_exc())
            if record.status:
                raise
            failed = ApiError("an internal error; see the server's log", status=500)
            await failed.response(scope["path"])(scope, receive, send)

    def _admit(self, scope: Scope, receive: Receive) -> Body:
        """The body of a request that may be read. Raises ApiError for any other."""
        headers: Headers = dict(scope["headers"])
        options = self._service.options
        if self._checks_host:
            host = headers.get(b"host")
            check_host(None if host is None else host.decode("latin-1"), options.allowed_hosts)
        scope["replit.key"] = found = key_state(headers, options.api_keys)
        if found in ("missing", "wrong") and not self._is_open(scope["path"]):
            # What a stranger sends after the head is not read at all.
            ends = CLOSE if has_body(headers) else {}
            raise ApiError(
                "the API key is missing or wrong; expected the header Authorization: Bearer KEY "
                "(or X-Api-Key: KEY)",
                status=401, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer", **ends},
            )  # fmt: skip
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and (len(length) > 18 or int(length) > options.max_body_bytes):
            raise too_large(options.max_body_bytes)
        encoding = headers.get(b"content-encoding", b"identity").decode("latin-1")
        return Body(receive, options.max_body_bytes, None if encoding.strip().lower() == "identity" else encoding)

    def _is_open(self, path: str) -> bool:
        return path in OPEN_PATHS or (path == "/metrics" and self._service.options.open_metrics)

    def _end(self, scope: Scope, record: Record) -> None:
        record.route = getattr(scope.get("route") or _route(scope), "path", "unknown")
        record.observe(self._service.metrics)
        if record.route not in ("/health", "/metrics"):
            self._service.log.request(record)


def _route(scope: Scope) -> BaseRoute | None:
    """The route that a request was for which never got there."""
    routes = _routes(scope["app"]) if "app" in scope else iter(())
    return next((route for route in routes if route.matches(scope)[0] is not Match.NONE), None)


def _routes(router: Any) -> Iterator[BaseRoute]:
    """Newer FastAPIs keep included routers as they are."""
    for route in router.routes:
        included = getattr(route, "original_router", None)
        yield from [route] if included is None else _routes(included)


def has_body(headers: Headers) -> bool:
    """Whether bytes follow a request's head."""
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0").strip(b"0") != b""

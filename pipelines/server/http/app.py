"""The HTTP application: its routes, and around them admission by key, limits, one record a request, and errors."""

from __future__ import annotations

import asyncio
import hmac
import time
import traceback
from typing import Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.server.http.api_error import ApiError, from_validation
from pipelines.server.http.client_habits import ClientHabits
from pipelines.server.metrics import CONTENT_TYPE
from pipelines.server.record import Record
from pipelines.server.routes import chat_completions, completions, llama, llama_server, ollama, ollama_server, page
from pipelines.server.service import Service

OPEN_PATHS = ("/health", "/v1/health", *page.OPEN_PATHS)
# Seconds for a whole body to arrive.
BODY_TIMEOUT = 30.0


def create_app(service: Service) -> FastAPI:
    """The application over a service."""
    app = FastAPI(title="Replit Code on MAX", version="1", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.service = service
    for module in (completions, chat_completions, llama, llama_server, ollama, ollama_server):
        app.include_router(module.router)
    if service.options.page:
        page.read_files()
        app.include_router(page.router)
    _add_operation_routes(app, service)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(Guard, service=service)
    if service.options.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(service.options.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["X-Request-ID", "X-Ignored-Fields", "X-Fill-In-The-Middle"],
            allow_private_network=True,
        )
    app.add_middleware(ClientHabits, origins=service.options.cors_origins)
    return app


def _add_operation_routes(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    @app.get("/v1/health", include_in_schema=False)
    async def health() -> Response:
        """200 once the model is loaded, 503 before and while the server ends."""
        service.check_ready()
        return JSONResponse({"status": "ok"})

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus metrics."""
        body = service.metrics.render(service.worker.load, service.worker.in_flight)
        return Response(body, media_type=CONTENT_TYPE)


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response(request.url.path)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return from_validation(error.errors()).response(request.url.path)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    if error.status_code == 404:
        message = f"there is no route {request.url.path}"
    return ApiError(message, status=error.status_code, headers=error.headers).response(request.url.path)


class _Body:
    """A request's `receive` that gives up on a body that is too large or does not come."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._deadline = time.monotonic() + BODY_TIMEOUT
        self._size = 0
        self._whole = False
        self.error: ApiError | None = None

    async def __call__(self) -> Message:
        """The next message."""
        if self._whole:
            return await self._receive()
        try:
            left = max(self._deadline - time.monotonic(), 0.01)
            message = await asyncio.wait_for(self._receive(), left)
        except asyncio.TimeoutError:
            self.error = ApiError(
                f"the body did not arrive within {BODY_TIMEOUT:.0f} s",
                status=408, headers={"Connection": "close"},
            )  # fmt: skip
            raise self.error from None
        self._size += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._size > self._limit:
            self.error = too_large(self._limit)
            raise self.error
        return message


def key_state(headers: dict[bytes, bytes], key: str | None) -> Literal["none", "missing", "wrong", "right"]:
    """What a request's key is to this server; "none" where it asks for none."""
    if not key:
        return "none"
    given = given_key(headers)
    if hmac.compare_digest(given, key.encode()):
        return "right"
    return "wrong" if given else "missing"


def given_key(headers: dict[bytes, bytes]) -> bytes:
    """The key that a request brings: `Authorization: Bearer KEY`, the scheme in any case, or `X-Api-Key: KEY`."""
    scheme, _, key = headers.get(b"authorization", b"").strip().partition(b" ")
    if scheme.lower() == b"bearer" and key.strip():
        return key.strip()
    return headers.get(b"x-api-key", b"").strip() or scheme


def too_large(limit: int) -> ApiError:
    """The body is over the limit."""
    return ApiError(
        f"the body is too large; expected at most {limit} bytes",
        status=413, code="body_too_large", headers={"Connection": "close"},
    )  # fmt: skip


def _client(scope: Scope) -> tuple[str, str]:
    """Whom a request is from, and over which connection."""
    key = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
    host, port = scope.get("client") or ("", 0)
    return f"{key}@{host}", f"{key}@{host}:{port}"


class Guard:
    """Checks the key and the body's size, and keeps the record of each request. Plain ASGI, for speed."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = Record(scope["path"])
        record.client, record.owner = _client(scope)
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
        finally:
            self._end(scope, record)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        record: Record = scope["replit.record"]
        try:
            self._check(scope)
            body = _Body(receive, self._service.options.max_body_bytes)

            async def checked(message: Message) -> None:
                # The framework answers in its own words when a body cannot be read.
                if body.error is None or record.status:
                    await send(message)

            await self._app(scope, body, checked)
            if body.error is not None and not record.status:
                raise body.error
        except ApiError as error:
            if not record.status:
                await error.response(scope["path"])(scope, receive, send)
        except asyncio.CancelledError:
            record.note = "cancelled at shutdown"
            raise
        except Exception as error:
            record.note = f"{type(error).__name__}: {error}"
            traceback.print_exc()
            if record.status:
                raise
            failed = ApiError("an internal error; see the server's log", status=500)
            await failed.response(scope["path"])(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        scope["replit.key"] = found = key_state(headers, self._service.options.api_key)
        if found in ("missing", "wrong") and not self._is_open(scope["path"]):
            raise ApiError(
                "the API key is missing or wrong; expected the header Authorization: Bearer KEY "
                "(or X-Api-Key: KEY)",
                status=401, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._service.options.max_body_bytes:
            raise too_large(self._service.options.max_body_bytes)

    def _is_open(self, path: str) -> bool:
        return path in OPEN_PATHS or (path == "/metrics" and self._service.options.open_metrics)

    def _end(self, scope: Scope, record: Record) -> None:
        route = scope.get("route")
        record.route = getattr(route, "path", "unknown")
        record.observe(self._service.metrics)
        if record.route not in ("/health", "/metrics"):
            self._service.log.request(record)

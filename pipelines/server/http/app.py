"""The HTTP application: its routes, the guard around them, and errors in the API's shape."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, Response

from pipelines.server.http.api_error import ApiError, from_validation, unreadable_json
from pipelines.server.http.client_habits import ClientHabits
from pipelines.server.http.guard import Guard
from pipelines.server.metrics import CONTENT_TYPE
from pipelines.server.routes import page
from pipelines.server.routes.llama import completion as llama
from pipelines.server.routes.llama import server as llama_server
from pipelines.server.routes.ollama import generate as ollama
from pipelines.server.routes.ollama import server as ollama_server
from pipelines.server.routes.openai import chat_completions, completions, vllm
from pipelines.server.service import Service


def bare_app(service: Service) -> FastAPI:
    """The routes that answer with text, and their errors, with nothing around them."""
    app = FastAPI(title="Replit Code on MAX", version="1", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.service = service
    for module in (completions, chat_completions, llama, llama_server, ollama, ollama_server, vllm):
        app.include_router(module.router)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    return app


def create_app(service: Service) -> FastAPI:
    """The application over a service."""
    app = bare_app(service)
    if service.options.page:
        page.read_files()
        app.include_router(page.router)
    else:
        app.add_api_route("/", _heartbeat, methods=["GET"], include_in_schema=False)
    _add_operation_routes(app, service)
    app.add_middleware(Guard, service=service)
    if service.options.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(service.options.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["X-Request-ID", "X-Ignored-Fields", "X-Fill-In-The-Middle", "X-Truncated"],
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
        body = service.metrics.render(service.worker.load, service.worker.in_flight, service.stall.is_stalled)
        return Response(body, media_type=CONTENT_TYPE)


async def _heartbeat() -> Response:
    """What Ollama's clients ask before anything else, and its own words."""
    return PlainTextResponse("Ollama is running")


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response(request.url.path)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return from_validation(error.errors()).response(request.url.path)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, (RecursionError, ValueError)):  # the framework's "error parsing the body"
        return unreadable_json(error.__cause__).response(request.url.path)
    message = f"{request.method} {request.url.path}: {error.detail}"
    if error.status_code == 404:
        message = f"there is no route {request.url.path}"
    return ApiError(message, status=error.status_code, headers=error.headers).response(request.url.path)

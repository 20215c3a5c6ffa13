"""A replica of the model on Ray Serve: the whole server but for its sockets, which are Serve's proxies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Any

from starlette.types import Message

from pipelines.server.options import ServeOptions
from weights.errors import UserError

# Of an ASGI scope: what another process can have.
SCOPE = (
    "type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "root_path", "query_string", "headers",
    "client", "server",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """A request on its way from the ingress to a replica."""

    scope: dict[str, Any]
    body: bytes
    id: str


class Replica:
    """Loads the model, and answers requests as the server does."""

    async def __init__(self, options: ServeOptions) -> None:  # type: ignore[misc]  # Serve waits for it
        import ray

        from pipelines.server.http.app import create_app
        from pipelines.server.model_info import model_info
        from pipelines.server.process.time_slice import react_at_once
        from pipelines.server.process.worker_process import ModelWorker
        from pipelines.server.record import Log
        from pipelines.server.room import with_room
        from pipelines.server.serve import open_files
        from pipelines.server.service import Service

        log = Log(options.log_format)
        self._worker = ModelWorker(lambda line: log.event("loading", what=line))
        react_at_once()
        files = await asyncio.to_thread(open_files, options)
        threads = int(ray.get_runtime_context().get_assigned_resources().get("CPU", 0)) or None
        options = with_room(replace(options, threads=options.threads or threads), files)
        await self._worker.start(options)
        await self._worker.changed.wait()
        if self._worker.failure is not None:
            raise UserError(self._worker.failure.message)
        self._service = Service(options, files, self._worker, log)
        self._service.metrics.describe(model_info(options, files))
        self._app = create_app(self._service)

    def check_health(self) -> None:
        """Serve asks now and then, and replaces a replica for which this raises."""
        self._service.stall.look()
        self._service.check_ready()

    def metrics(self) -> tuple[str, str]:
        """The replica's name, and what Prometheus would read of it."""
        from ray import serve

        service = self._service
        name = serve.get_replica_context().replica_tag
        return name, service.metrics.render(
            self._worker.load, self._worker.in_flight, service.stall.is_stalled
        ).decode()

    async def answer(self, request: Request, key: int | None) -> AsyncGenerator[list[Message], None]:
        """The application's messages as they come. `key` is the router's. Leaving early is the client's leaving."""
        messages: asyncio.Queue[Message | None] = asyncio.Queue()
        body: list[Message] = [{"type": "http.request", "body": request.body, "more_body": False}]
        left = asyncio.Event()

        async def receive() -> Message:
            if body:
                return body.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        running = asyncio.ensure_future(self._app({**request.scope, "replit.id": request.id}, receive, messages.put))
        running.add_done_callback(lambda _: messages.put_nowait(None))
        try:
            ended = False
            while not ended:
                found = [await messages.get()]
                while not messages.empty():
                    found.append(messages.get_nowait())
                ended = found[-1] is None
                if told := [message for message in found if message is not None]:
                    yield told
            running.result()
        finally:
            left.set()
            await asyncio.gather(running, return_exceptions=True)

    def __del__(self) -> None:
        if hasattr(self, "_worker"):
            self._worker.stop()

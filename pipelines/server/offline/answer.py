"""A line's answer: the server's application is called as a server calls it, so that checks and texts are its own.

What an answer tells of how it was run, cached tokens and checked guesses, is left out: the same line has the same
result in whatever company it runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import traceback
from dataclasses import replace
from typing import Any

from starlette.types import ASGIApp, Message

from pipelines.registry import ModelFiles, parse_encoding
from pipelines.server.http.api_error import ApiError
from pipelines.server.http.app import bare_app
from pipelines.server.http.event_stream import dumps
from pipelines.server.model_info import ModelFacts, model_facts
from pipelines.server.offline.line import Line
from pipelines.server.offline.local_worker import LocalWorker
from pipelines.server.options import ServeOptions
from pipelines.server.record import Log, Record
from pipelines.server.room import cache_encoding
from pipelines.server.routes.sampling import first
from pipelines.server.service import DRAWN_SEEDS, Service
from replit.runtime.weight_memory import weight_types

# Of `usage`: they depend on what ran before and beside, as `timings` do.
_CIRCUMSTANCES = ("prompt_tokens_details", "completion_tokens_details")


def facts_of(options: ServeOptions, files: ModelFiles) -> ModelFacts:
    """The model's facts, the digest of all that an answer depends on beside its line: a later run compares it."""
    encodings = weight_types(files.tensors, parse_encoding(options.quantization_encoding))
    used = [str(encoding) for encoding, _ in encodings.values()] if options.device == "cpu" else ["gpu"]
    told = f"{files.sha256} {used} {cache_encoding(options)}"
    return replace(model_facts(options, files), digest=hashlib.sha256(told.encode()).hexdigest())


def open_app(options: ServeOptions, files: ModelFiles, worker: LocalWorker, log: Log) -> ASGIApp:
    """The server's routes, which answer lines."""
    service = Service(options, files, worker, log)
    service.facts = facts_of(options, files)
    return bare_app(service)


async def answered(app: ASGIApp, line: Line) -> tuple[str, bool, int]:
    """The line of the result without its end, whether the request succeeded, and how many tokens were generated."""
    record = Record(line.url, id=line.request_id, client=line.id)
    response: dict[str, Any] | None = None
    error: dict[str, str] | None = None
    record.status = 400
    if line.error is not None:
        error = {"code": line.error[0], "message": line.error[1]}
    else:
        record.status, body = await _answer(app, line, record)
        response = {"status_code": record.status, "request_id": line.request_id, "body": body}
    result = {"id": line.id, "custom_id": line.custom_id, "response": response, "error": error}
    return dumps(result), record.status == 200, record.generated_tokens


async def _answer(app: ASGIApp, line: Line, record: Record) -> tuple[int, dict[str, Any]]:
    if isinstance(line.body, dict) and line.body.get("stream"):
        refused = ApiError("stream has no meaning in a batch file; leave it out", param="stream")
        return refused.status, refused.body
    try:
        status, body = await _call(app, line.url, json.dumps(_seeded(line)).encode(), record)
    except Exception:  # a fault of ours: it is this line's alone, and said
        traceback.print_exc()
        failed = ApiError("an internal error; see standard error", status=500)
        return failed.status, failed.body
    body.pop("timings", None)
    for name in _CIRCUMSTANCES:
        body.get("usage", {}).pop(name, None)
    return status, body


def _seeded(line: Line) -> Any:
    """The body, with a seed where it would be drawn."""
    body = line.body
    if not isinstance(body, dict):
        return body
    stated = first(body.get("seed"), body.get("random_seed") if "/fim/" in line.url else None)
    return {**body, "seed": line.seed} if stated is None or stated in DRAWN_SEEDS else body


async def _call(app: ASGIApp, path: str, body: bytes, record: Record) -> tuple[int, dict[str, Any]]:
    """Status and body of the application's answer."""
    sent: list[Message] = []
    unread = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if not unread:
            await asyncio.Event().wait()  # no client that could leave
        return unread.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    await app(_scope(path, record), receive, send)
    whole = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(whole)


def _scope(path: str, record: Record) -> dict[str, Any]:
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"", "client": None, "server": None,
        "headers": [(b"content-type", b"application/json")], "replit.record": record,
    }  # fmt: skip

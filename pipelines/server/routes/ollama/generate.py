"""Ollama's `/api/generate` and `/api/chat`, which many editors' plugins speak and nothing else."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime, timezone
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from pipelines.prompts.prompt import Prompt
from pipelines.server.http.api_error import ApiError
from pipelines.server.http.event_stream import beside, respond
from pipelines.server.record import Record
from pipelines.server.routes.admission import admit
from pipelines.server.routes.job import Job, plan_samples, token_entries
from pipelines.server.routes.ollama.prompts import chat_prompt, generate_prompt
from pipelines.server.routes.ollama.requests import GenerateRequest, OllamaChatRequest, OllamaFields
from pipelines.server.routes.openai.chat_completions import text_size
from pipelines.server.routes.sampling import OLLAMA_DEFAULTS, sampling
from pipelines.server.service import RunningSequence, Service
from pipelines.text.chain import Delta

router = APIRouter()


@router.post("/api/generate")
async def generate(body: GenerateRequest, request: Request) -> Response:
    """Completes a prompt, or fills the gap between it and a suffix."""
    service, record = admit(body, request)
    if body.raw and (body.system or body.context):
        raise ApiError("raw goes without system and context; leave them out", param="raw")
    if not body.prompt and not body.suffix:
        return JSONResponse(nothing_to_do(service, body) | {"response": ""})
    found = sampling(body.generation(), OLLAMA_DEFAULTS, service)
    size = sum(map(len, (body.prompt, body.suffix or "", body.system or "", body.context or "")))
    prompt = await beside(size, lambda: generate_prompt(service, body, found["max_new_tokens"]))
    job = GenerateJob(service, body, record, prompt, found)
    return await respond(job, body.stream, request, lines=True)


@router.post("/api/chat")
async def chat(body: OllamaChatRequest, request: Request) -> Response:
    """A chat's next message; for a base model, the messages' texts joined by line breaks, completed."""
    service, record = admit(body, request)
    if not body.messages:
        return JSONResponse(nothing_to_do(service, body) | {"message": _message("")})
    found = sampling(body.generation(), OLLAMA_DEFAULTS, service)
    messages = [(message.role, message.content) for message in body.messages]
    prompt = await beside(text_size(messages), lambda: chat_prompt(service, body, messages, found["max_new_tokens"]))
    return await respond(ChatJob(service, body, record, prompt, found), body.stream, request, lines=True)


def nothing_to_do(service: Service, body: OllamaFields) -> dict[str, Any]:
    """The answer to a request without a prompt, which is one to load the model, or to drop it."""
    gone = str(body.keep_alive) in ("0", "0s", "0m", "0h", "0ms")
    return _head(service) | {"done": True, "done_reason": "unload" if gone else "load"}


def _head(service: Service) -> dict[str, Any]:
    now = datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
    return {"model": service.options.name, "created_at": now}


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


def _message(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


class OllamaJob(Job):
    """One sequence and its answer; where the text stands in it is the route's own."""

    def __init__(
        self, service: Service, body: OllamaFields, record: Record, prompt: Prompt, found: dict[str, Any]
    ) -> None:
        """`found` are keywords of `SamplingParams`, see sampling.py."""
        scored = (body.top_logprobs or 0) if body.logprobs else None
        plans = plan_samples(
            service, record, body.generation(), [prompt], 1, found, seed=body.options.seed, top_logprobs=scored
        )  # fmt: skip
        super().__init__(service, record, plans)

    def _text(self, text: str) -> dict[str, Any]:
        raise NotImplementedError

    async def events(self) -> AsyncGenerator[dict[str, Any] | str, None]:
        """A line for each piece of text, and one at the end."""
        async with aclosing(self._deltas()) as deltas:
            async for sequence, delta in deltas:
                if delta.text or delta.scored:
                    yield _head(self._service) | self._text(delta.text) | {"done": False} | self._logprobs(delta)
                if delta.finish is not None:
                    yield self._end(sequence, "", delta.finish)

    async def result(self) -> dict[str, Any]:
        """The whole answer at once."""
        (whole,) = await self._whole()
        return self._end(self._sequences[0], whole.text, whole.finish or "stop") | self._logprobs(whole)

    def _end(self, sequence: RunningSequence, text: str, reason: str) -> dict[str, Any]:
        now = time.monotonic()
        first = sequence.first_token or now
        return {
            **_head(self._service),
            **self._text(text),
            "done": True,
            "done_reason": reason,
            **self._context(sequence.text.drawn),
            "total_duration": _ns(now - self._begun),
            "load_duration": 0,
            "prompt_eval_count": self._plans[0].prompt.tokens,
            "prompt_eval_duration": _ns(first - self._begun),
            "eval_count": sequence.text.tokens,
            "eval_duration": _ns(now - first),
        }

    def _context(self, ids: list[int]) -> dict[str, Any]:
        return {}

    def _logprobs(self, delta: Delta) -> dict[str, Any]:
        if self._plans[0].top_logprobs is None:
            return {}
        return {"logprobs": token_entries(self._service.tokenizer, delta.scored)}


class GenerateJob(OllamaJob):
    """`/api/generate`."""

    def _text(self, text: str) -> dict[str, Any]:
        return {"response": text}

    def _context(self, ids: list[int]) -> dict[str, Any]:
        return {"context": [*self._plans[0].prompt.ids, *ids]}


class ChatJob(OllamaJob):
    """`/api/chat`."""

    def _text(self, text: str) -> dict[str, Any]:
        return {"message": _message(text)}

"""`POST /v1/chat/completions`: a chat model's turns; for a base model, the messages' texts joined by line breaks."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipelines.engine.plan import Plan
from pipelines.prompts.chat import chat_prompt
from pipelines.prompts.prompt import Prompt
from pipelines.server.http.api_error import ApiError
from pipelines.server.http.event_stream import DONE, respond
from pipelines.server.record import Record
from pipelines.server.routes.completions import usage
from pipelines.server.routes.openai_requests import ChatRequest
from pipelines.server.service import RunningSequence, Service
from pipelines.text.chain import Delta, ScoredToken, token_text
from weights.tokenizers.tokenizer import Tokenizer

router = APIRouter()


@router.post("/v1/chat/completions")
async def chat(body: ChatRequest, request: Request) -> Response:
    """Completes the messages' texts."""
    service: Service = request.app.state.service
    record: Record = request.scope["replit.record"]
    record.user = body.user
    service.check_ready()
    service.check_model(body.model)
    return await respond(ChatJob(service, body, record), body.stream, request)


class ChatJob:
    """One request: the sequences that run for it, and its answer."""

    def __init__(self, service: Service, body: ChatRequest, record: Record) -> None:
        check(body)
        self._service = service
        self._body = body
        self._record = record
        self._created = int(time.time())
        if body.max_completion_tokens is not None:
            body.max_tokens = body.max_completion_tokens
        sampling = service.sampling(body, None)
        turns = chat_prompt(service.tokenizer, [(message.role, message.text) for message in body.messages])
        text = "\n".join(message.text for message in body.messages)
        if not turns and not text:
            raise ApiError("the messages are empty; expected at least one token", param="messages")
        prompt = Prompt(turns, text) if turns else service.prompt(text, "messages")
        service.check_length(len(prompt.ids), sampling["max_new_tokens"], "messages")
        seed = service.seed(body.seed)
        params = service.params(sampling, len(prompt.ids))
        scored = (body.top_logprobs or 0) if body.logprobs else None
        plan = Plan(prompt, params, (seed, 0), scored, speculative=body.speculative)
        self._sequences = service.start([replace(plan, seed=(seed, i)) for i in range(body.n or 1)], record)

    async def events(self) -> AsyncGenerator[dict[str, Any] | str, None]:
        """The stream's events."""
        options = self._body.stream_options
        counted = options is not None and options.include_usage
        begun: set[int] = set()
        async with aclosing(self._service.run(self._sequences, self._record)) as deltas:
            async for sequence, delta in deltas:
                first = sequence.index not in begun
                if not delta.text and delta.finish is None and not delta.scored:
                    continue
                begun.add(sequence.index)
                yield self._chunk([self._delta(sequence, delta, first)], {"usage": None} if counted else {})
        if counted:
            yield self._chunk([], {"usage": usage(self._record)})
        yield DONE

    def _delta(self, sequence: RunningSequence, delta: Delta, first: bool) -> dict[str, Any]:
        role = {"role": "assistant"} if first else {}
        return {
            "index": sequence.index,
            "delta": role | {"content": delta.text},
            "logprobs": self._logprobs(delta.scored),
            "finish_reason": delta.finish,
        }

    async def result(self) -> dict[str, Any]:
        """The whole answer at once."""
        whole = [Delta() for _ in self._sequences]
        async with aclosing(self._service.run(self._sequences, self._record)) as deltas:
            async for sequence, delta in deltas:
                whole[sequence.index].join(delta)
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": delta.text, "refusal": None},
                "logprobs": self._logprobs(delta.scored),
                "finish_reason": delta.finish,
            }
            for index, delta in enumerate(whole)
        ]
        return self._object("chat.completion", choices) | {"usage": usage(self._record)}

    def _chunk(self, choices: list[dict[str, Any]], more: dict[str, Any]) -> dict[str, Any]:
        return self._object("chat.completion.chunk", choices) | more

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self._record.id}",
            "object": kind,
            "created": self._created,
            "model": self._service.options.name,
            "choices": choices,
        }

    def _logprobs(self, scored: list[ScoredToken]) -> dict[str, Any] | None:
        if not self._body.logprobs:
            return None
        tokenizer = self._service.tokenizer
        content = [
            token_entry(tokenizer, token.logprob.token, token.logprob.logprob)
            | {"top_logprobs": [token_entry(tokenizer, *top) for top in token.logprob.top]}
            for token in scored
        ]
        return {"content": content, "refusal": None}


def token_entry(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    """A token in the chat interface's log-probabilities."""
    return {
        "token": token_text(tokenizer, token),
        "logprob": logprob,
        "bytes": list(tokenizer.token_bytes(token)),
    }


def check(body: ChatRequest) -> None:
    """Combinations that have no meaning. Raises ApiError naming one of the fields."""
    if body.stream_options is not None and not body.stream:
        raise ApiError("stream_options is for streams; set stream too", param="stream_options")
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError("top_logprobs needs logprobs; set it to true", param="top_logprobs")
    if None not in (body.max_tokens, body.max_completion_tokens):
        raise ApiError(
            "max_tokens is the old name of max_completion_tokens; give one of them",
            param="max_tokens",
        )

"""`POST /v1/chat/completions`: a chat model's turns; for a base model, the messages' texts joined by line breaks.

And `/v1/fim/completions`, Mistral's: a gap in code, answered in the shape of a chat.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipelines.prompts.chat import chat_prompt
from pipelines.prompts.gap import Gap
from pipelines.prompts.prompt import Prompt
from pipelines.server.http.api_error import ApiError
from pipelines.server.http.event_stream import beside, respond
from pipelines.server.record import Record
from pipelines.server.routes.admission import admit
from pipelines.server.routes.job import plan_samples, token_entries
from pipelines.server.routes.openai.job import OpenAIJob, check_stream
from pipelines.server.routes.openai.requests import ChatRequest, FimRequest, OpenAIFields
from pipelines.server.routes.sampling import OPENAI_DEFAULTS, first, sampling
from pipelines.server.service import RunningSequence, Service
from pipelines.text.chain import Delta, ScoredToken

router = APIRouter()
# Neither chat nor Mistral's route has OpenAI's 16 tokens.
DEFAULTS = OPENAI_DEFAULTS | {"max_new_tokens": -1}


@router.post("/v1/chat/completions")
@router.post("/chat/completions", include_in_schema=False)
async def chat(body: ChatRequest, request: Request) -> Response:
    """Completes the messages' texts."""
    service, record = admit(body, request)
    check(body)
    found = sampling(body, DEFAULTS, service)
    heal = found["max_new_tokens"] != 0 and service.heals(body.token_healing, editor=False)
    messages = [(message.role, message.text) for message in body.messages]
    prompt = await beside(text_size(messages), lambda: messages_prompt(service, messages, heal))
    service.check_length(prompt.tokens, found["max_new_tokens"], "messages")
    scored = (body.top_logprobs or 0) if body.logprobs else None
    job = ChatJob(service, body, record, prompt, found, seed=body.seed, top_logprobs=scored)
    return await respond(job, body.stream, request)


@router.post("/v1/fim/completions")
@router.post("/fim/completions", include_in_schema=False)
async def fim(body: FimRequest, request: Request) -> Response:
    """Fills the gap between a prompt and a suffix, as Mistral's server does it."""
    service, record = admit(body, request)
    check_stream(body)
    found = sampling(body, DEFAULTS, service)
    gap, most = Gap(body.prompt, body.suffix), found["max_new_tokens"]
    prompt = await beside(
        len(gap.prefix) + len(gap.suffix),
        lambda: service.gap(gap, most, "suffix", cut=body.cut_suffix, heal=body.token_healing),
    )
    job = ChatJob(service, body, record, prompt, found, seed=first(body.seed, body.random_seed), top_logprobs=None)
    return await respond(job, body.stream, request)


def text_size(messages: Sequence[tuple[str, str]]) -> int:
    """Characters of all messages."""
    return sum(len(text) for _, text in messages)


def messages_prompt(service: Service, messages: Sequence[tuple[str, str]], heal: bool = False) -> Prompt:
    """The prompt of a chat's roles and texts. Raises ApiError where there is no text in it."""
    service.check_size(text_size(messages), "messages")
    turns = chat_prompt(service.tokenizer, messages)
    text = "\n".join(text for _, text in messages)
    if turns:
        return Prompt(turns, text)
    if not text:
        raise ApiError("the messages are empty; expected at least one token", param="messages")
    return service.prompt(text, "messages", heal=heal)


class ChatJob(OpenAIJob):
    """One request: the sequences that run for it, and its answer in the shape of a chat."""

    id_prefix, kind, event_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(
        self,
        service: Service,
        body: OpenAIFields,
        record: Record,
        prompt: Prompt,
        found: dict[str, Any],
        *,
        seed: int | None,
        top_logprobs: int | None,
    ) -> None:
        """`found` are keywords of `SamplingParams`, see sampling.py."""
        self._scored = top_logprobs is not None
        plans = plan_samples(service, body, [prompt], body.n or 1, found, seed=seed, top_logprobs=top_logprobs)
        super().__init__(service, body, record, plans)

    def _piece(self, sequence: RunningSequence, delta: Delta, first: bool) -> tuple[str, dict[str, Any]] | None:
        if not delta.text and delta.finish is None and not delta.scored:
            return None
        role = {"role": "assistant"} if first else {}
        return delta.text, {
            "index": sequence.index,
            "delta": role | {"content": delta.text},
            "logprobs": self._logprobs(delta.scored),
            "finish_reason": delta.finish,
        }

    async def result(self) -> dict[str, Any]:
        """The whole answer at once."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": delta.text, "refusal": None},
                "logprobs": self._logprobs(delta.scored),
                "finish_reason": delta.finish,
            }
            for index, delta in enumerate(await self._whole())
        ]
        return self._answer(choices)

    def _logprobs(self, scored: list[ScoredToken]) -> dict[str, Any] | None:
        if not self._scored:
            return None
        return {"content": token_entries(self._service.tokenizer, scored), "refusal": None}


def check(body: ChatRequest) -> None:
    """Combinations that have no meaning. Raises ApiError naming one of the fields."""
    check_stream(body)
    if body.top_logprobs and not body.logprobs:
        raise ApiError("top_logprobs needs logprobs; set it to true", param="top_logprobs")

"""`POST /v1/chat/completions`: a chat model's turns; for a base model, the messages' texts joined by line breaks.

And `/v1/fim/completions`, Mistral's: a gap in code, answered in the shape of a chat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipelines.prompts.chat import chat_prompt, turn_marker
from pipelines.prompts.gap import Gap
from pipelines.prompts.prompt import Prompt
from pipelines.server.http.api_error import ApiError
from pipelines.server.http.event_stream import beside, respond
from pipelines.server.record import Record
from pipelines.server.routes.admission import admit
from pipelines.server.routes.generation_fields import MarkedFields
from pipelines.server.routes.job import plan_samples, token_entries
from pipelines.server.routes.openai.job import OpenAIJob, check_stream
from pipelines.server.routes.openai.requests import ChatRequest, FimRequest, OpenAIFields, ScoredFields
from pipelines.server.routes.sampling import OPENAI_DEFAULTS, first, sample_count, sampling
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
    messages, most = [(message.role, message.text) for message in body.messages], found["max_new_tokens"]
    prompt = await beside(text_size(messages), lambda: _prompt(service, body, messages, most))
    service.check_length(prompt.tokens, most, "messages")
    scored = (body.top_logprobs or 0) if body.logprobs else None
    job = ChatJob(service, body, record, prompt, found, seed=body.seed, top_logprobs=scored)
    return await respond(job, body.stream, request)


@router.post("/v1/chat/completions/input_tokens")
@router.post("/chat/completions/input_tokens", include_in_schema=False)
async def input_tokens(body: ChatRequest, request: Request) -> dict[str, int]:
    """How many tokens a chat's prompt has, as llama.cpp tells it."""
    service, _ = admit(body, request)
    messages = [(message.role, message.text) for message in body.messages]
    prompt = await beside(text_size(messages), lambda: _prompt(service, body, messages, 0))
    return {"input_tokens": prompt.tokens}


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


def _prompt(service: Service, body: ChatRequest, messages: Sequence[tuple[str, str]], most: int) -> Prompt:
    marked = marked_prompt(service, body, messages, most)
    if marked is not None:
        return marked
    if not body.add_generation_prompt or body.continue_final_message:
        check_turns(service, "continue_final_message" if body.continue_final_message else "add_generation_prompt")
    return messages_prompt(service, messages, most != 0 and service.heals(body.token_healing, editor=False))


def marked_prompt(
    service: Service, body: MarkedFields, messages: Sequence[tuple[str, str]], most: int, whole: bool = False
) -> Prompt | None:
    """The prompt of a gap, where a chat's only message spells one, as templates of editors do; see `Gap.whole`."""
    gap = service.marked_gap(messages[0][1], body.gap_markers) if len(messages) == 1 else None
    if gap is None:
        return None
    gap = replace(gap, whole=whole)
    return service.gap(gap, most, "messages", cut=body.cut_suffix, heal=body.token_healing)


def check_turns(service: Service, field: str) -> None:
    """Raises ApiError for a field that says where the answer begins, which a model with turns knows one way of.

    A base model goes on after the last message's text, whatever the field says.
    """
    if turn_marker(service.tokenizer) is not None:
        raise ApiError(
            f"{field} with this value would change the text, and is not done here; leave it out",
            param=field, code="unsupported_parameter",
        )  # fmt: skip


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
        self._body = body
        count = sample_count(body)
        plans = plan_samples(service, record, body, [prompt], count, found, seed=seed, top_logprobs=top_logprobs)
        super().__init__(service, body, record, plans)

    def _piece(self, sequence: RunningSequence, delta: Delta, first: bool) -> tuple[str, dict[str, Any]] | None:
        if not delta.text and delta.finish is None and not delta.scored and not self._ids(delta.token_ids):
            return None
        role = {"role": "assistant"} if first else {}
        return delta.text, {
            "index": sequence.index,
            "delta": role | {"content": delta.text},
            "logprobs": self._logprobs(delta.scored),
            "finish_reason": delta.finish,
            **self._ids(delta.token_ids),
        }

    def _ids(self, ids: list[int]) -> dict[str, Any]:
        return {"token_ids": ids} if self._body.return_token_ids and ids else {}

    def _beside(self) -> dict[str, Any]:
        return {"prompt_token_ids": self._plans[0].prompt.ids} if self._body.return_token_ids else {}

    async def result(self) -> dict[str, Any]:
        """The whole answer at once."""
        return self._answer(await self._told(self._choices))

    def _choices(self, whole: list[Delta]) -> list[dict[str, Any]]:
        return [
            {
                "index": index,
                "message": {"role": "assistant", "content": delta.text, "refusal": None},
                "logprobs": self._logprobs(delta.scored),
                "finish_reason": delta.finish,
                **self._ids(delta.token_ids),
            }
            for index, delta in enumerate(whole)
        ]

    def _logprobs(self, scored: list[ScoredToken]) -> dict[str, Any] | None:
        if not self._scored:
            return None
        by_id = isinstance(self._body, ScoredFields) and self._body.return_tokens_as_token_ids
        entries = token_entries(self._service.tokenizer, scored, by_id=by_id)
        return {"content": entries, "refusal": None}


def check(body: ChatRequest) -> None:
    """Combinations that have no meaning. Raises ApiError naming one of the fields."""
    check_stream(body)
    if body.top_logprobs and not body.logprobs:
        raise ApiError("top_logprobs needs logprobs; set it to true", param="top_logprobs")

"""`POST /v1/completions`: OpenAI's legacy completions, all of them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipelines.engine.plan import Plan
from pipelines.engine.sequence import TokenLogprob
from pipelines.prompts.gap import Gap
from pipelines.prompts.prompt import Prompt as ModelPrompt
from pipelines.server.http.api_error import ApiError
from pipelines.server.http.event_stream import DONE, respond
from pipelines.server.record import Record
from pipelines.server.routes.openai_requests import CompletionRequest, Prompt
from pipelines.server.service import OPENAI_MAX_TOKENS, RunningSequence, Service
from pipelines.text.chain import Delta, ScoredToken, token_text
from weights.tokenizers.tokenizer import Tokenizer

router = APIRouter()


@router.post("/v1/completions")
async def completions(body: CompletionRequest, request: Request) -> Response:
    """Completes one or more prompts, `n` times each."""
    service: Service = request.app.state.service
    record: Record = request.scope["replit.record"]
    record.user = body.user
    service.check_ready()
    service.check_model(body.model)
    return await respond(CompletionJob(service, body, record), body.stream, request)


class CompletionJob:
    """One request: its prompts, the sequences that run for it, and its answer."""

    def __init__(self, service: Service, body: CompletionRequest, record: Record) -> None:
        check(body)
        self._service = service
        self._body = body
        self._record = record
        self._id = f"cmpl-{record.id}"
        self._created = int(time.time())
        self._n = body.n or 1
        self._samples = max(body.best_of or 1, self._n)
        self._sampling = service.sampling(body, OPENAI_MAX_TOKENS)
        self._prompts = [self._encode(prompt) for prompt in as_list(body.prompt)]
        self._sequences = service.start(self._plans(), record)

    def _encode(self, prompt: str | list[int]) -> tuple[str, ModelPrompt]:
        """The text to echo, and the prompt that the model reads."""
        service, body = self._service, self._body
        found = service.prompt(prompt, "prompt")
        text = prompt if isinstance(prompt, str) else service.tokenizer.decode(found.ids)
        if body.suffix:
            return text, service.gap(Gap(text, body.suffix), self._sampling["max_new_tokens"], "suffix")
        service.check_length(len(found.ids), self._sampling["max_new_tokens"], "prompt")
        return text, found

    def _plans(self) -> list[Plan]:
        body, seed = self._body, self._service.seed(self._body.seed)
        scored = body.logprobs
        if scored is None and self._samples > self._n:
            scored = 0  # the best of several is chosen by them
        return [
            Plan(
                prompt,
                self._service.params(self._sampling, len(prompt.ids)),
                (seed, sample),
                scored,
                prompt_logprobs=bool(body.echo) and body.logprobs is not None,
                speculative=body.speculative,
            )
            for _, prompt in self._prompts
            for sample in range(self._samples)
        ]

    async def events(self) -> AsyncGenerator[dict[str, Any] | str, None]:
        """The stream's events."""
        usage = self._body.stream_options is not None and self._body.stream_options.include_usage
        begun: set[int] = set()
        async with aclosing(self._service.run(self._sequences, self._record)) as deltas:
            async for sequence, delta in deltas:
                choice = self._choice(sequence, delta, first=sequence.index not in begun)
                begun.add(sequence.index)
                if choice is not None:
                    yield self._object([choice], {"usage": None} if usage else {})
        if usage:
            yield self._object([], {"usage": self._usage()})
        yield DONE

    def _choice(self, sequence: RunningSequence, delta: Delta, first: bool) -> dict[str, Any] | None:
        """A chunk's choice; None if nothing can be shown yet."""
        text, logprobs = delta.text, None
        prompt = self._prompts[sequence.index // self._samples]
        if first and self._body.echo:
            text = prompt[0] + text
        if self._body.logprobs is not None:
            logprobs = Logprobs(self._service.tokenizer)
            start = len(prompt[0]) if self._body.echo else 0
            reader = self._sequences[sequence.index - sequence.index % self._samples].first
            if first and self._body.echo and reader is not None:
                logprobs.add_prompt(prompt[1].ids, reader.prompt_logprobs or [])
            logprobs.add(delta.scored, start)
        if not text and delta.finish is None and not (logprobs and logprobs.tokens):
            return None
        return {
            "index": sequence.index,
            "text": text,
            "logprobs": logprobs.body if logprobs else None,
            "finish_reason": delta.finish,
        }

    async def result(self) -> dict[str, Any]:
        """The whole answer at once."""
        whole = [Delta() for _ in self._sequences]
        async with aclosing(self._service.run(self._sequences, self._record)) as deltas:
            async for sequence, delta in deltas:
                whole[sequence.index].join(delta)
        choices: list[dict[str, Any]] = []
        for start in range(0, len(whole), self._samples):
            group = range(start, start + self._samples)
            best = sorted(group, key=lambda i: -mean_logprob(whole[i]))[: self._n]
            chosen = best if self._samples > self._n else group
            for index in chosen:
                choice = self._choice(self._sequences[index], whole[index], first=True)
                assert choice is not None  # it has a finish reason
                choices.append(choice | {"index": len(choices)})
        return self._object(choices, {"usage": self._usage()})

    def _object(self, choices: list[dict[str, Any]], more: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": self._service.options.name,
            "choices": choices,
            **more,
        }

    def _usage(self) -> dict[str, Any]:
        return usage(self._record)


def check(body: CompletionRequest) -> None:
    """Combinations that have no meaning. Raises ApiError naming one of the fields."""
    if body.best_of is not None and body.best_of < (body.n or 1):
        raise ApiError(
            f"best_of is {body.best_of}; expected at least n, which is {body.n or 1}",
            param="best_of",
        )
    if body.stream and (body.best_of or 1) > (body.n or 1):
        raise ApiError(
            "best_of cannot be streamed, as the best is known at the end; leave out stream or best_of",
            param="best_of",
        )
    if body.stream_options is not None and not body.stream:
        raise ApiError("stream_options is for streams; set stream too", param="stream_options")
    if body.suffix and body.echo:
        raise ApiError("echo has no meaning with a suffix; leave one of them out", param="echo")


def as_list(prompt: Prompt) -> list[str | list[int]]:
    """A request's prompts, one or several."""
    if isinstance(prompt, str):
        return [prompt]
    several: list[Any] = prompt
    return [several] if isinstance(several[0], int) else several


def mean_logprob(delta: Delta) -> float:
    """How probable a completion is, per token."""
    scores = [token.logprob.logprob for token in delta.scored]
    return sum(scores) / len(scores) if scores else 0.0


def usage(record: Record) -> dict[str, Any]:
    """OpenAI's token counts of a request."""
    wrong = record.drafted - record.drafted_right
    guesses = {"accepted_prediction_tokens": record.drafted_right, "rejected_prediction_tokens": wrong}
    return {
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.generated_tokens,
        "total_tokens": record.prompt_tokens + record.generated_tokens,
        "prompt_tokens_details": {"cached_tokens": record.cached_tokens},
        **({"completion_tokens_details": guesses} if record.drafted else {}),
    }


class Logprobs:
    """OpenAI's legacy log-probabilities: four lists of one length."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.tokens: list[str] = []
        self.token_logprobs: list[float | None] = []
        self.top_logprobs: list[dict[str, float] | None] = []
        self.text_offset: list[int] = []

    def add(self, scored: Sequence[ScoredToken], start: int) -> None:
        """Tokens of a completion whose text begins at `start`."""
        for token in scored:
            self._append(token.logprob.token, token.logprob, start + token.offset)

    def add_prompt(self, ids: Sequence[int], scored: Sequence[TokenLogprob | None]) -> None:
        """The prompt's tokens; nothing precedes the first, which has none."""
        raw = b""
        for token, logprob in zip(ids, scored, strict=True):
            self._append(token, logprob, len(raw.decode("utf-8", errors="ignore")))
            raw += self._tokenizer.token_bytes(token)

    def _append(self, token: int, logprob: TokenLogprob | None, offset: int) -> None:
        self.tokens.append(token_text(self._tokenizer, token))
        self.text_offset.append(offset)
        if logprob is None:
            self.token_logprobs.append(None)
            self.top_logprobs.append(None)
            return
        self.token_logprobs.append(logprob.logprob)
        top = {token_text(self._tokenizer, i): value for i, value in logprob.top}
        # OpenAI's list has the token itself even where it is not among the most probable.
        self.top_logprobs.append(top | {self.tokens[-1]: logprob.logprob} if top else top)

    @property
    def body(self) -> dict[str, Any]:
        """What is sent."""
        return {
            "tokens": self.tokens,
            "token_logprobs": self.token_logprobs,
            "top_logprobs": self.top_logprobs,
            "text_offset": self.text_offset,
        }

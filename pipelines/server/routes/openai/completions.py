"""`POST /v1/completions`: OpenAI's legacy completions, all of them; and the routes by which editors know it."""

from __future__ import annotations

import codecs
import math
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipelines.engine.sequence import TokenLogprob
from pipelines.prompts.gap import Gap
from pipelines.prompts.prompt import Prompt as ModelPrompt
from pipelines.server.http.api_error import ApiError
from pipelines.server.http.event_stream import beside, respond
from pipelines.server.record import Record
from pipelines.server.routes.admission import admit
from pipelines.server.routes.job import plan_samples
from pipelines.server.routes.openai.job import OpenAIJob, check_stream
from pipelines.server.routes.openai.requests import CompletionRequest, Prompt
from pipelines.server.routes.sampling import OPENAI_DEFAULTS, sample_count, sampling
from pipelines.server.service import RunningSequence, Service
from pipelines.text.chain import Delta, ScoredToken, token_text
from weights.tokenizers.tokenizer import Tokenizer

router = APIRouter()


@router.post("/v1/completions")
@router.post("/beta/completions", include_in_schema=False)
@router.post("/v1/beta/completions", include_in_schema=False)
@router.post("/v1/engines/{engine}/completions", include_in_schema=False)
@router.post("/engines/{engine}/completions", include_in_schema=False)
async def completions(body: CompletionRequest, request: Request) -> Response:
    """Completes one or more prompts, `n` times each."""
    service, record = admit(body, request)
    check(body)
    found = sampling(body, OPENAI_DEFAULTS, service)
    prompts = await encode_all(service, body, found["max_new_tokens"])
    return await respond(CompletionJob(service, body, record, found, prompts), body.stream, request)


class CompletionJob(OpenAIJob):
    """One request: its prompts, the sequences that run for it, and its answer."""

    id_prefix, kind, event_kind = "cmpl", "text_completion", "text_completion"

    def __init__(
        self,
        service: Service,
        body: CompletionRequest,
        record: Record,
        found: dict[str, Any],
        prompts: list[tuple[str, ModelPrompt]],
    ) -> None:
        """`found` are keywords of `SamplingParams`, see sampling.py; `prompts` are those of `encode_all`."""
        self._body = body
        self._n = sample_count(body)
        self._samples = max(body.best_of or 1, self._n)
        self._prompts = prompts
        scored = body.logprobs
        if scored is None and self._samples > self._n:
            scored = 0  # the best of several is chosen by them
        plans = plan_samples(
            service, record, body, [prompt for _, prompt in self._prompts], self._samples, found, seed=body.seed,
            top_logprobs=scored, prompt_logprobs=bool(body.echo) and body.logprobs is not None,
        )  # fmt: skip
        super().__init__(service, body, record, plans)

    def _piece(self, sequence: RunningSequence, delta: Delta, first: bool) -> tuple[str, dict[str, Any]] | None:
        text, logprobs = delta.text, None
        prompt = self._prompts[sequence.index // self._samples]
        if first and self._body.echo:
            text = prompt[0] + text
        if self._body.logprobs is not None:
            logprobs = Logprobs(self._service.tokenizer, self._body.return_tokens_as_token_ids)
            start = len(prompt[0]) if self._body.echo else 0
            reader = self._sequences[sequence.index - sequence.index % self._samples].first
            if first and self._body.echo and reader is not None:
                logprobs.add_prompt(prompt[0], prompt[1].ids, reader.prompt_logprobs or [])
            logprobs.add(delta.scored, start)
        ids = self._ids(prompt[1], delta, first)
        if not text and delta.finish is None and not (logprobs and logprobs.tokens) and not (ids and delta.token_ids):
            return None
        return text, {
            "index": sequence.index,
            "text": text,
            "logprobs": logprobs.body if logprobs else None,
            "finish_reason": delta.finish,
            **ids,
        }

    def _ids(self, prompt: ModelPrompt, delta: Delta, first: bool) -> dict[str, Any]:
        if not self._body.return_token_ids:
            return {}
        return {"token_ids": delta.token_ids, **({"prompt_token_ids": prompt.ids} if first else {})}

    async def result(self) -> dict[str, Any]:
        """The whole answer at once."""
        return self._answer(await self._told(self._choices))

    def _choices(self, whole: list[Delta]) -> list[dict[str, Any]]:
        choices: list[dict[str, Any]] = []
        for start in range(0, len(whole), self._samples):
            group = range(start, start + self._samples)
            best = sorted(group, key=lambda i: -mean_logprob(whole[i]))[: self._n]
            chosen = best if self._samples > self._n else group
            for index in chosen:
                piece = self._piece(self._sequences[index], whole[index], first=True)
                assert piece is not None  # it has a finish reason
                choices.append(piece[1] | {"index": len(choices)})
        return choices


async def encode_all(service: Service, body: CompletionRequest, max_new_tokens: int) -> list[tuple[str, ModelPrompt]]:
    """The prompts of a request, see `encode`."""
    prompts = as_list(body.prompt)
    service.check_count(len(prompts) * max(body.best_of or 1, sample_count(body)))
    size = sum(map(len, prompts)) + len(body.suffix or "")
    return await beside(size, lambda: [encode(service, body, prompt, max_new_tokens) for prompt in prompts])


def encode(
    service: Service, body: CompletionRequest, prompt: str | list[int], max_new_tokens: int
) -> tuple[str, ModelPrompt]:
    """The text to echo, and the prompt that the model reads."""
    if body.suffix is not None:
        text = prompt if isinstance(prompt, str) else service.tokenizer.decode(service.prompt(prompt, "prompt").ids)
        gap = Gap(text, body.suffix)
        return text, service.gap(gap, max_new_tokens, "suffix", cut=body.cut_suffix, heal=body.token_healing)
    exact = bool(body.echo)  # what is shown or scored as it stands is not spelled again
    if not exact and isinstance(prompt, str) and (marked := service.marked_gap(prompt, body.gap_markers)):
        heal = body.token_healing
        return prompt, service.gap(marked, max_new_tokens, "prompt", cut=body.cut_suffix, heal=heal)
    if exact and body.token_healing:
        raise ApiError("token_healing has no meaning with echo; leave one of them out", param="token_healing")
    healing = not exact and max_new_tokens != 0 and service.heals(body.token_healing, editor=False)
    found = service.prompt(prompt, "prompt", heal=healing)
    text = prompt if isinstance(prompt, str) else service.tokenizer.decode(found.ids)
    service.check_length(found.tokens, max_new_tokens, "prompt")
    return text, found


def check(body: CompletionRequest) -> None:
    """Combinations that have no meaning. Raises ApiError naming one of the fields."""
    check_stream(body)
    count = sample_count(body)
    if body.best_of is not None and body.best_of < count:
        raise ApiError(f"best_of is {body.best_of}; expected at least n, which is {count}", param="best_of")
    if body.stream and (body.best_of or 1) > count:
        raise ApiError(
            "best_of cannot be streamed, as the best is known at the end; leave out stream or best_of",
            param="best_of",
        )
    if body.suffix is not None and body.echo:
        raise ApiError("echo has no meaning with a suffix; leave one of them out", param="echo")


def as_list(prompt: Prompt) -> list[str | list[int]]:
    """A request's prompts, one or several."""
    if isinstance(prompt, str):
        return [prompt]
    several: list[Any] = prompt
    return [several] if isinstance(several[0], int) else several


def mean_logprob(delta: Delta) -> float:
    """How probable a completion is, per token; one without any comes after all others."""
    scores = [token.logprob.logprob for token in delta.scored]
    return sum(scores) / len(scores) if scores else -math.inf


class Logprobs:
    """OpenAI's legacy log-probabilities: four lists of one length."""

    def __init__(self, tokenizer: Tokenizer, by_id: bool = False) -> None:
        """With `by_id` tokens are named `token_id:N`, as vLLM does it."""
        self._tokenizer = tokenizer
        self._by_id = by_id
        self.tokens: list[str] = []
        self.token_logprobs: list[float | None] = []
        self.top_logprobs: list[dict[str, float] | None] = []
        self.text_offset: list[int] = []

    def add(self, scored: Sequence[ScoredToken], start: int) -> None:
        """Tokens of a completion whose text begins at `start`."""
        for token in scored:
            self._append(token.logprob.token, token.logprob, start + token.offset)

    def add_prompt(self, text: str, ids: Sequence[int], scored: Sequence[TokenLogprob | None]) -> None:
        """The tokens of a prompt, whose `text` may spell control tokens; nothing precedes the first, which has none."""
        decoder, characters = codecs.getincrementaldecoder("utf-8")(errors="ignore"), 0
        for token, logprob in zip(ids, scored, strict=True):
            self._append(token, logprob, characters)
            characters += len(decoder.decode(self._tokenizer.token_bytes(token)))
            spelled = self._tokenizer.control_texts.get(token, "")
            characters += len(spelled) * text.startswith(spelled, characters)

    def _append(self, token: int, logprob: TokenLogprob | None, offset: int) -> None:
        self.tokens.append(self._name(token))
        self.text_offset.append(offset)
        if logprob is None:
            self.token_logprobs.append(None)
            self.top_logprobs.append(None)
            return
        self.token_logprobs.append(logprob.logprob)
        top = {self._name(i): value for i, value in logprob.top}
        # The token itself is in the list even where it is not among the most probable, or none of them is asked for.
        self.top_logprobs.append(top | {self.tokens[-1]: logprob.logprob})

    def _name(self, token: int) -> str:
        return f"token_id:{token}" if self._by_id else token_text(self._tokenizer, token)

    @property
    def body(self) -> dict[str, Any]:
        """What is sent."""
        return {
            "tokens": self.tokens,
            "token_logprobs": self.token_logprobs,
            "top_logprobs": self.top_logprobs,
            "text_offset": self.text_offset,
        }

"""llama.cpp's `/completion` and `/infill`, as llama.vim, llama.vscode, Continue and Tabby call them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipelines.prompts.gap import Gap
from pipelines.prompts.prompt import Prompt
from pipelines.server.http.event_stream import beside, respond
from pipelines.server.record import Record
from pipelines.server.routes.admission import admit
from pipelines.server.routes.job import Job, plan_samples, token_entries
from pipelines.server.routes.llama.requests import InfillRequest, LlamaCompletionRequest, LlamaFields, PromptObject
from pipelines.server.routes.llama.settings import generation_settings
from pipelines.server.routes.sampling import LLAMA_DEFAULTS, sample_count, sampling
from pipelines.server.service import RunningSequence, Service
from pipelines.text.chain import Delta, ScoredToken

router = APIRouter()

# Between the text of other files, where a model has no token for it.
_SEPARATOR = "\n\n--- snippet ---\n\n"


@router.post("/completion")
@router.post("/completions", include_in_schema=False)
async def completion(body: LlamaCompletionRequest, request: Request) -> Response:
    """Completes one or more prompts, in llama.cpp's shape."""
    service, record = admit(body, request)
    found = sampling(body, LLAMA_DEFAULTS, service)
    most = found["max_new_tokens"]
    service.check_count(len(body.prompt) * sample_count(body))
    size = sum(map(_size, body.prompt))
    prompts = await beside(size, lambda: [_prompt(service, body, prompt, most) for prompt in body.prompt])
    for prompt in prompts:
        service.check_length(prompt.tokens, most, "prompt")
    return await respond(LlamaJob(service, body, prompts, found, record), body.stream, request)


@router.post("/infill")
async def infill(body: InfillRequest, request: Request) -> Response:
    """Fills the gap between a prefix and a suffix, with the model's own markers where it has them."""
    service, record = admit(body, request)
    found = sampling(body, LLAMA_DEFAULTS, service)
    context = "".join(_SEPARATOR + extra.text for extra in body.input_extra)
    gap = Gap(body.input_prefix, body.input_suffix, middle=body.prompt, context=context)
    most = found["max_new_tokens"]
    prompt = await beside(
        len(gap.prefix) + len(gap.suffix) + len(gap.middle) + len(context),
        lambda: service.gap(gap, most, "input_suffix", cut=body.cut_suffix, heal=body.token_healing),
    )
    return await respond(LlamaJob(service, body, [prompt], found, record), body.stream, request)


def _size(prompt: Any) -> int:
    """Characters and ids of a prompt."""
    if isinstance(prompt, PromptObject):
        prompt = prompt.prompt_string
    if isinstance(prompt, list):
        return sum(len(part) if isinstance(part, str) else 1 for part in prompt)
    return len(prompt)


def _prompt(service: Service, body: LlamaCompletionRequest, prompt: Any, most: int) -> Prompt:
    """A prompt of text, or of ids and texts side by side. An empty one is the beginning of a file."""
    if isinstance(prompt, PromptObject):
        prompt = prompt.prompt_string
    if isinstance(prompt, str) and (gap := service.marked_gap(prompt, body.gap_markers)):
        return service.gap(gap, most, "prompt", cut=body.cut_suffix, heal=body.token_healing)
    heal = most != 0 and service.heals(body.token_healing, editor=False)
    if isinstance(prompt, list) and any(isinstance(part, str) for part in prompt):
        ids: list[int] = []
        service.check_size(sum(len(part) for part in prompt if isinstance(part, str)), "prompt")
        for part in prompt:
            ids += service.tokenizer.encode(part) if isinstance(part, str) else [part]
        prompt = ids
    start = service.tokenizer.eos_token_id
    return service.prompt(prompt if prompt or start is None else [start], "prompt", heal=heal)


class LlamaJob(Job):
    """The sequences of one request and their answers."""

    def __init__(
        self,
        service: Service,
        body: LlamaFields,
        prompts: Sequence[Prompt],
        found: dict[str, Any],
        record: Record,
    ) -> None:
        """`found` are keywords of `SamplingParams`, see sampling.py."""
        self._body = body
        self._found = found
        self._samples = sample_count(body)
        scored = body.n_probs or None
        plans = plan_samples(service, record, body, prompts, self._samples, found, seed=body.seed, top_logprobs=scored)
        super().__init__(service, record, plans)

    async def events(self) -> AsyncGenerator[dict[str, Any] | str, None]:
        """A chunk for each piece of text, and the whole account with the last one, which has none."""
        lines: set[int] = set()  # the sequences with a line break in their text
        async with aclosing(self._deltas()) as deltas:
            async for sequence, delta in deltas:
                if "\n" in delta.text:
                    lines.add(sequence.index)
                if delta.text or delta.scored or delta.token_ids:
                    yield self._piece(sequence, delta)
                if delta.finish is not None:
                    end = Delta(finish=delta.finish)
                    account = self._account(sequence, end) | {"has_new_line": sequence.index in lines}
                    yield select(account, self._body.response_fields)

    def _piece(self, sequence: RunningSequence, delta: Delta) -> dict[str, Any]:
        return {
            "index": sequence.index,
            "content": delta.text,
            "tokens": delta.token_ids,  # in a stream whether asked for or not, as in llama.cpp
            "stop": False,
            "id_slot": -1,
            "tokens_predicted": sequence.text.tokens,
            "tokens_evaluated": self._plans[sequence.index].prompt.tokens,
            **self._probabilities(delta.scored),
            **({"timings": self._timings(sequence)} if self._body.timings_per_token else {}),
        }

    async def result(self) -> dict[str, Any] | list[dict[str, Any]]:
        """The whole answer at once; a list of answers for more than one sequence."""
        return await self._told(self._answer)

    def _answer(self, whole: list[Delta]) -> dict[str, Any] | list[dict[str, Any]]:
        answers = [
            select(self._account(sequence, text), self._body.response_fields)
            for sequence, text in zip(self._sequences, whole, strict=True)
        ]
        return answers if len(answers) > 1 else answers[0]

    def _account(self, sequence: RunningSequence, whole: Delta) -> dict[str, Any]:
        text, plan = sequence.text, self._plans[sequence.index]
        tokenizer = self._service.tokenizer
        kind = "limit" if whole.finish == "length" or text.limited else "eos"
        full = len(plan.prompt.ids) + len(text.drawn) >= self._service.max_length
        gap = {"fill_in_the_middle": not plan.prompt.continued} if isinstance(self._body, InfillRequest) else {}
        return {
            "index": sequence.index,
            "content": whole.text,
            "tokens": whole.token_ids if self._body.return_tokens else [],
            "id_slot": -1,
            "stop": True,
            "model": self._service.options.name,
            "tokens_predicted": text.tokens,
            "tokens_evaluated": plan.prompt.tokens,
            "generation_settings": generation_settings(
                plan, self._body, self._found["max_new_tokens"], tokenizer.eos_token_id
            ),
            "prompt": spelled(tokenizer, plan.prompt.ids) + plan.prompt.healing.decode("utf-8", errors="replace"),
            "has_new_line": "\n" in whole.text,
            "truncated": plan.prompt.truncated or (whole.finish == "length" and full),
            "stop_type": "word" if text.stop_text is not None else kind,
            "stopping_word": text.stop_text or "",
            "tokens_cached": self._cached(sequence),
            "timings": self._timings(sequence),
            **gap,
            **self._probabilities(whole.scored),
        }

    def _probabilities(self, scored: Sequence[ScoredToken]) -> dict[str, Any]:
        if not self._body.n_probs:
            return {}
        return {"completion_probabilities": token_entries(self._service.tokenizer, scored, ids=True)}


def spelled(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of ids, control tokens by their names."""
    raw = b"".join(
        tokenizer.control_texts[token].encode() if token in tokenizer.control_texts else tokenizer.token_bytes(token)
        for token in ids
    )
    return raw.decode("utf-8", errors="replace")


def select(answer: dict[str, Any], fields: list[str] | None) -> dict[str, Any]:
    """The named fields only, `a/b` for one inside another, as llama.cpp does it."""
    if not fields:
        return answer
    found = {}
    for path in fields:
        value: Any = answer
        for key in path.split("/"):
            value = value.get(key, _MISSING) if isinstance(value, dict) else _MISSING
        if value is not _MISSING:
            found[path] = value
    return found


_MISSING = object()

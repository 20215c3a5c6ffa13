"""llama.cpp's own routes, as llama.vim, llama.vscode, Continue and Tabby call them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from pipelines.engine.plan import Plan
from pipelines.engine.sampling import LLAMA_ORDER, SamplingParams
from pipelines.prompts.gap import Gap
from pipelines.prompts.prompt import Prompt
from pipelines.server.http.api_error import ApiError
from pipelines.server.http.event_stream import respond
from pipelines.server.record import Record
from pipelines.server.routes.llama_requests import InfillRequest, LlamaCompletionRequest, LlamaFields
from pipelines.server.routes.openai_requests import DetokenizeRequest, TokenizeRequest
from pipelines.server.service import RunningSequence, Service
from pipelines.text.chain import Delta
from pipelines.text.limits import LineLimits
from weights.errors import UserError

router = APIRouter()

# llama.cpp's defaults, which these routes' clients rely on where they say nothing.
DEFAULTS: dict[str, Any] = {
    "temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.0,
    "penalty_last_n": 64, "penalize_prompt": True, "order": LLAMA_ORDER,
}  # fmt: skip
# llama.cpp's names of the filters that are computed here; "infill" merges candidates there and may end early, which
# the model's own end-of-text token does here.
_FILTERS = {"penalties": "penalties", "repeat_penalty": "penalties", "infill": None} | {
    name: name for name in ("temperature", "top_k", "top_p", "min_p")
}
# Between the text of other files, where a model has no token for it.
_SEPARATOR = "\n\n--- snippet ---\n\n"


@router.post("/completion")
@router.post("/completions", include_in_schema=False)
async def completion(body: LlamaCompletionRequest, request: Request) -> Response:
    """Completes a prompt, in llama.cpp's shape."""
    service: Service = request.app.state.service
    service.check_ready()
    service.check_model(body.model)
    prompt = service.prompt(body.prompt, "prompt")
    service.check_length(len(prompt.ids), body.n_predict, "prompt")
    return await _answer(service, body, prompt, request)


@router.post("/infill")
async def infill(body: InfillRequest, request: Request) -> Response:
    """Fills the gap between a prefix and a suffix, with the model's own markers."""
    service: Service = request.app.state.service
    service.check_ready()
    service.check_model(body.model)
    context = "".join(_SEPARATOR + extra.text for extra in body.input_extra)
    gap = Gap(body.input_prefix, body.input_suffix, middle=body.prompt, context=context)
    prompt = service.gap(gap, service.new_tokens(body.n_predict), "input_suffix")
    return await _answer(service, body, prompt, request)


async def _answer(service: Service, body: LlamaFields, prompt: Prompt, request: Request) -> Response:
    return await respond(LlamaJob(service, body, prompt, request.scope["replit.record"]), body.stream, request)


class LlamaJob:
    """One sequence and its answer."""

    def __init__(self, service: Service, body: LlamaFields, prompt: Prompt, record: Record) -> None:
        self._service = service
        self._body = body
        self._prompt = prompt
        self._record = record
        self._begun = time.monotonic()
        self._first: float | None = None
        limits = None
        if body.n_indent or body.t_max_predict_ms is not None:
            limits = LineLimits(body.n_indent, self._late)
        plan = Plan(
            prompt, self._params(len(prompt.ids)), (service.seed(body.seed), 0),
            limits=limits, use_cache=body.cache_prompt is not False, speculative=body.speculative,
        )  # fmt: skip
        self._sequence: RunningSequence = service.start([plan], record)[0]

    def _late(self) -> bool:
        """Whether the time for generating is over."""
        limit = self._body.t_max_predict_ms
        begun = self._first or time.monotonic()
        return limit is not None and time.monotonic() - begun > limit / 1000

    def _params(self, prompt_tokens: int) -> SamplingParams:
        body = self._body
        found: dict[str, Any] = DEFAULTS | self._service.options.sampling
        for name in ("temperature", "top_k", "top_p", "min_p"):
            if getattr(body, name) is not None:
                found[name] = getattr(body, name)
        if body.repeat_penalty is not None:
            found["repetition_penalty"] = body.repeat_penalty
        if body.repeat_last_n is not None:
            found["penalty_last_n"] = body.repeat_last_n
        if body.samplers is not None:
            found["order"] = filter_order(body.samplers)
        if body.stop is not None:
            found["stop"] = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)
        found |= {"max_new_tokens": self._service.new_tokens(body.n_predict), "ignore_eos": body.ignore_eos}
        return self._service.params(found, prompt_tokens)

    async def events(self) -> AsyncGenerator[dict[str, Any] | str, None]:
        """A chunk for each piece of text, and the whole account with the last one."""
        whole = Delta()
        async for delta in self._deltas():
            whole.finish = delta.finish or whole.finish
            if delta.finish is None and (delta.text or self._body.return_tokens):
                chunk: dict[str, Any] = {
                    "index": 0, "content": delta.text, "tokens": self._tokens(delta), "stop": False,
                    "tokens_predicted": self._sequence.text.tokens,
                    "tokens_evaluated": len(self._prompt.ids),
                }  # fmt: skip
                if self._body.timings_per_token:
                    chunk["timings"] = self._timings()
                yield chunk
            else:
                whole.text, whole.token_ids = delta.text, delta.token_ids
        yield self._final(whole)

    async def result(self) -> dict[str, Any]:
        """The whole answer at once."""
        whole = Delta()
        async for delta in self._deltas():
            whole.text += delta.text
            whole.token_ids += delta.token_ids
            whole.finish = delta.finish or whole.finish
        return select(self._final(whole), self._body.response_fields)

    async def _deltas(self) -> AsyncGenerator[Delta, None]:
        async with aclosing(self._service.run([self._sequence], self._record)) as deltas:
            async for _, delta in deltas:
                self._first = self._first or time.monotonic()
                yield delta

    def _tokens(self, delta: Delta) -> list[int]:
        return delta.token_ids if self._body.return_tokens else []

    def _final(self, whole: Delta) -> dict[str, Any]:
        text = self._sequence.text
        kind = "limit" if whole.finish == "length" or text.limited else "eos"
        return {
            "index": 0,
            "content": whole.text,
            "tokens": self._tokens(whole),
            "id_slot": -1,
            "stop": True,
            "model": self._service.options.name,
            "tokens_predicted": text.tokens,
            "tokens_evaluated": len(self._prompt.ids),
            "tokens_cached": self._record.cached_tokens,
            "truncated": self._prompt.truncated,
            "stop_type": "word" if text.stop_text is not None else kind,
            "stopping_word": text.stop_text or "",
            "timings": self._timings(),
        }

    def _timings(self) -> dict[str, Any]:
        now = time.monotonic()
        first = self._first or now
        fresh = len(self._prompt.ids) - self._record.cached_tokens
        drafts = {"draft_n": self._record.drafted, "draft_n_accepted": self._record.drafted_right}
        return {
            "cache_n": self._record.cached_tokens,
            **_rates("prompt", fresh, first - self._begun),
            **_rates("predicted", self._sequence.text.tokens, now - first),
            **(drafts if self._record.drafted else {}),
        }


def _rates(name: str, count: int, seconds: float) -> dict[str, Any]:
    ms = seconds * 1000
    return {
        f"{name}_n": count,
        f"{name}_ms": round(ms, 3),
        f"{name}_per_token_ms": round(ms / count, 3) if count else 0.0,
        f"{name}_per_second": round(count / seconds, 3) if seconds else 0.0,
    }


def filter_order(samplers: list[str]) -> tuple[str, ...]:
    """The filters that a list of samplers names, in its order. Raises ApiError for an unknown name."""
    for sampler in samplers:
        if sampler not in _FILTERS:
            known = ", ".join(sorted(_FILTERS))
            raise ApiError(f"samplers: {sampler!r} is not known here; expected some of {known}", param="samplers")
    return tuple(dict.fromkeys(name for sampler in samplers if (name := _FILTERS[sampler])))


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


@router.post("/tokenize")
async def tokenize(body: TokenizeRequest, request: Request) -> Response:
    """Token ids of a text, with their texts if asked for."""
    tokenizer = request.app.state.service.tokenizer
    try:
        ids = tokenizer.encode(body.content, parse_special=body.parse_special)
    except UserError as error:
        raise ApiError(str(error), param="content") from None
    if not body.with_pieces:
        return JSONResponse({"tokens": ids})
    pieces = [{"id": i, "piece": _piece(tokenizer.token_bytes(i))} for i in ids]
    return JSONResponse({"tokens": pieces})


def _piece(raw: bytes) -> str | list[int]:
    """A token's text, or its bytes where they are none, as llama.cpp does it."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return list(raw)


@router.post("/detokenize")
async def detokenize(body: DetokenizeRequest, request: Request) -> Response:
    """The text of token ids."""
    service: Service = request.app.state.service
    ids = service.prompt(body.tokens, "tokens").ids if body.tokens else []
    return JSONResponse({"content": service.tokenizer.decode(ids)})


@router.get("/props")
async def props(request: Request) -> Response:
    """What llama.vscode asks about the server."""
    service: Service = request.app.state.service
    return JSONResponse(
        {
            "default_generation_settings": {"n_ctx": service.max_length, "params": DEFAULTS},
            "total_slots": service.options.max_batch_size,
            "model_path": service.options.name,
            "chat_template": "",
            "build_info": "replit-code-max",
            "fill_in_the_middle": service.tokenizer.fim is not None,
        }
    )

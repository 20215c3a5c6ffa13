"""A request's sequences and their text, whatever the API in whose shape it is answered."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from pipelines.engine.plan import Plan
from pipelines.prompts.prompt import Prompt
from pipelines.server.http.api_error import ApiError
from pipelines.server.http.event_stream import beside
from pipelines.server.http.json_answer import Rows
from pipelines.server.record import Record
from pipelines.server.routes.generation_fields import GenerationFields
from pipelines.server.routes.sampling import line_limits
from pipelines.server.service import RunningSequence, Service
from pipelines.text.chain import Delta, ScoredToken, token_text
from weights.tokenizers.tokenizer import Tokenizer

# The headers by which an answer says that a prompt was cut, and that the model has no fill-in-the-middle.
TRUNCATED = "X-Truncated"
CONTINUED = "X-Fill-In-The-Middle"
# Log-probabilities of one request, which are kept until the answer is written: some 100 bytes each.
MOST_ENTRIES = 1 << 19


Answer = TypeVar("Answer")


class Job:
    """Sequences that run for one request."""

    def __init__(self, service: Service, record: Record, plans: Sequence[Plan]) -> None:
        self._service = service
        self._record = record
        self._plans = plans
        self._begun = time.monotonic()
        if any(plan.prompt.truncated for plan in plans):
            record.headers[TRUNCATED] = "yes: a part of the prompt that is far from its end was left out"
        if any(plan.prompt.continued for plan in plans):
            record.headers[CONTINUED] = "no: the text before the gap was continued"
        self._sequences: list[RunningSequence] = service.start(plans, record)

    async def _deltas(self) -> AsyncGenerator[tuple[RunningSequence, Delta], None]:
        """What becomes certain, as it comes."""
        async with aclosing(self._service.run(self._sequences, self._record)) as deltas:
            async for sequence, delta in deltas:
                yield sequence, delta

    async def _whole(self) -> list[Delta]:
        """The whole text of each sequence."""
        whole = [Delta() for _ in self._sequences]
        async with aclosing(self._deltas()) as deltas:
            async for sequence, delta in deltas:
                whole[sequence.index].join(delta)
        return whole

    async def _told(self, answer: Callable[[list[Delta]], Answer]) -> Answer:
        """What `answer` makes of the whole texts, in a thread where there is much to tell."""
        whole = await self._whole()
        return await beside(self._entries(whole), lambda: answer(whole))

    def _entries(self, whole: Sequence[Delta]) -> int:
        """Values that an answer has about tokens."""
        plans = zip(self._plans, whole, strict=True)
        return sum(plan.entries(len(delta.scored)) + len(delta.token_ids) for plan, delta in plans)

    def _cached(self, sequence: RunningSequence) -> int:
        return sequence.first.cached_tokens if sequence.first is not None else 0

    def _timings(self, sequence: RunningSequence) -> dict[str, Any]:
        """How long a sequence took so far, as llama.cpp tells it."""
        now = time.monotonic()
        begun = sequence.first_token or now
        cached = self._cached(sequence)
        fresh = self._plans[sequence.index].prompt.tokens - cached
        drafts = {"draft_n": sequence.drafted, "draft_n_accepted": sequence.drafted_right}
        return {
            "cache_n": cached,
            **_rates("prompt", fresh, begun - self._begun),
            **_rates("predicted", sequence.text.tokens, now - begun),
            **(drafts if sequence.drafted else {}),
        }


def _rates(name: str, count: int, seconds: float) -> dict[str, Any]:
    ms = seconds * 1000
    return {
        f"{name}_n": count,
        f"{name}_ms": round(ms, 3),
        f"{name}_per_token_ms": round(ms / count, 3) if count else 0.0,
        f"{name}_per_second": round(count / seconds, 3) if seconds else 0.0,
    }


def plan_samples(
    service: Service,
    record: Record,
    body: GenerationFields,
    prompts: Sequence[Prompt],
    samples: int,
    sampling: dict[str, Any],
    *,
    seed: int | None,
    top_logprobs: int | None = None,
    prompt_logprobs: bool = False,
) -> list[Plan]:
    """`samples` completions of each prompt; the seed counts them from nought, for every prompt alike."""
    drawn = service.seed(seed)
    salt = service.salt(record, body.cache_salt)
    plans = [
        Plan(
            prompt,
            service.params(sampling, len(prompt.ids)),
            (drawn, sample),
            top_logprobs,
            prompt_logprobs,
            use_cache=body.cache_prompt is not False,
            limits=line_limits(body),
            speculative=body.speculative is not False,
            salt=salt,
        )
        for prompt in prompts
        for sample in range(samples)
    ]
    entries = sum(plan.entries(plan.params.max_new_tokens) for plan in plans)
    if entries > MOST_ENTRIES:
        raise ApiError(
            f"the answer may hold {entries} log-probabilities; expected at most {MOST_ENTRIES}: ask for fewer tokens, "
            "completions or alternatives at once"
        )
    return plans


def token_entries(
    tokenizer: Tokenizer, scored: Sequence[ScoredToken], *, ids: bool = False, by_id: bool = False
) -> Rows:
    """Tokens in the log-probabilities of chat, of llama.cpp, which wants their `ids` too, and of Ollama.

    `by_id` names a token `token_id:N`, as vLLM does if asked for.
    """

    def entry(token: int, logprob: float) -> dict[str, Any]:
        told = {
            "token": f"token_id:{token}" if by_id else token_text(tokenizer, token),
            "logprob": logprob,
            "bytes": list(tokenizer.token_bytes(token)),
        }
        return {"id": token, **told} if ids else told

    def whole(token: ScoredToken) -> dict[str, Any]:
        found = token.logprob
        return entry(found.token, found.logprob) | {"top_logprobs": [entry(*top) for top in found.top]}

    return Rows(whole, scored)

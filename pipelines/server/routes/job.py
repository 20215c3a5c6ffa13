"""A request's sequences and their text, whatever the API in whose shape it is answered."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from pipelines.engine.plan import Plan
from pipelines.prompts.prompt import Prompt
from pipelines.server.record import Record
from pipelines.server.routes.generation_fields import GenerationFields
from pipelines.server.routes.sampling import line_limits
from pipelines.server.service import RunningSequence, Service
from pipelines.text.chain import Delta, ScoredToken, token_text
from weights.tokenizers.tokenizer import Tokenizer

# The header by which an answer says that the model has no fill-in-the-middle.
CONTINUED = "X-Fill-In-The-Middle"


class Job:
    """Sequences that run for one request."""

    def __init__(self, service: Service, record: Record, plans: Sequence[Plan]) -> None:
        self._service = service
        self._record = record
        self._plans = plans
        self._begun = time.monotonic()
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


def plan_samples(
    service: Service,
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
    return [
        Plan(
            prompt,
            service.params(sampling, len(prompt.ids)),
            (drawn, sample),
            top_logprobs,
            prompt_logprobs,
            use_cache=body.cache_prompt is not False,
            limits=line_limits(body),
            speculative=body.speculative,
        )
        for prompt in prompts
        for sample in range(samples)
    ]


def token_entries(tokenizer: Tokenizer, scored: Sequence[ScoredToken], ids: bool = False) -> list[dict[str, Any]]:
    """Tokens in the log-probabilities of chat, of llama.cpp, which wants their `ids` too, and of Ollama."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        told = {"token": token_text(tokenizer, token), "logprob": logprob, "bytes": list(tokenizer.token_bytes(token))}
        return {"id": token, **told} if ids else told

    found = (token.logprob for token in scored)
    return [entry(one.token, one.logprob) | {"top_logprobs": [entry(*top) for top in one.top]} for one in found]

"""A request's sequences and their text, whatever the API in whose shape it is answered."""

from __future__ import annotations

import secrets
import string
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from pipelines.engine.plan import Plan
from pipelines.prompts.prompt import Prompt
from pipelines.server.http.api_error import ApiError
from pipelines.server.record import Record
from pipelines.server.routes.generation_fields import GenerationFields
from pipelines.server.routes.sampling import line_limits
from pipelines.server.service import RunningSequence, Service
from pipelines.text.chain import Delta, token_text
from weights.tokenizers.tokenizer import Tokenizer

# The header by which an answer says that the model has no fill-in-the-middle.
CONTINUED = "X-Fill-In-The-Middle"
# OpenAI's `obfuscation` fills a piece of text up to a multiple of so many characters.
_PADDED = 16
_LETTERS = string.ascii_letters + string.digits


class Job:
    """Sequences that run for one request."""

    def __init__(self, service: Service, record: Record, plans: Sequence[Plan]) -> None:
        self._service = service
        self._record = record
        self._plans = plans
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
            speculative=body.speculative is not False,
        )
        for prompt in prompts
        for sample in range(samples)
    ]


def check_stream(body: GenerationFields) -> None:
    """Raises ApiError for options of a stream where none is asked for."""
    if body.stream_options is not None and not body.stream:
        raise ApiError("stream_options is for streams; set stream too", param="stream_options")


def usage(record: Record, generated: int | None = None) -> dict[str, Any]:
    """OpenAI's token counts of a request; `generated` while it is still running."""
    count = record.generated_tokens if generated is None else generated
    wrong = record.drafted - record.drafted_right
    guesses = {"accepted_prediction_tokens": record.drafted_right, "rejected_prediction_tokens": wrong}
    return {
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": count,
        "total_tokens": record.prompt_tokens + count,
        "prompt_tokens_details": {"cached_tokens": record.cached_tokens},
        **({"completion_tokens_details": guesses} if record.drafted else {}),
    }


class StreamExtras:
    """What OpenAI's events carry beside the text: the usage, and characters that hide how long a piece is."""

    def __init__(self, body: GenerationFields, record: Record, sequences: Sequence[RunningSequence]) -> None:
        options = body.stream_options
        self._record, self._sequences = record, sequences
        wanted = options is not None and options.include_usage is not False  # said to be false: no usage at all
        self._continuous = wanted and options is not None and options.continuous_usage_stats
        self.at_end = self._continuous or (options is not None and options.include_usage is True)
        self._obfuscated = options is not None and options.include_obfuscation

    def of(self, text: str) -> dict[str, Any]:
        """Fields of an event with this piece of text."""
        found: dict[str, Any] = {}
        if self._continuous:
            found["usage"] = usage(self._record, sum(sequence.text.tokens for sequence in self._sequences))
        elif self.at_end:
            found["usage"] = None
        if self._obfuscated:
            found["obfuscation"] = "".join(secrets.choice(_LETTERS) for _ in range(-len(text) % _PADDED))
        return found


def token_entry(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    """A token in the log-probabilities of chat, of llama.cpp and of Ollama."""
    return {"token": token_text(tokenizer, token), "logprob": logprob, "bytes": list(tokenizer.token_bytes(token))}

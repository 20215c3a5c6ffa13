"""What OpenAI's routes share: the events of a stream, the object around an answer's choices, and the usage."""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, ClassVar

from pipelines.engine.plan import Plan
from pipelines.server.http.api_error import ApiError
from pipelines.server.http.event_stream import DONE
from pipelines.server.record import Record
from pipelines.server.routes.job import Job
from pipelines.server.routes.openai.requests import OpenAIFields, StreamOptions
from pipelines.server.service import RunningSequence, Service
from pipelines.text.chain import Delta

# OpenAI's `obfuscation` fills a piece of text up to a multiple of so many characters.
_PADDED = 16
_LETTERS = string.ascii_letters + string.digits


class OpenAIJob(Job):
    """One request and its answer; what a choice looks like is the route's own."""

    id_prefix: ClassVar[str]
    kind: ClassVar[str]  # `object` of an answer, and of an event
    event_kind: ClassVar[str]

    def __init__(self, service: Service, body: OpenAIFields, record: Record, plans: Sequence[Plan]) -> None:
        self._stream_options = body.stream_options
        self._timed = body.timings_per_token
        self._created = int(time.time())
        super().__init__(service, record, plans)

    async def events(self) -> AsyncGenerator[dict[str, Any] | str, None]:
        """The stream's events."""
        extras = StreamExtras(self._stream_options, self._record, self._sequences)
        begun: set[int] = set()
        async with aclosing(self._deltas()) as deltas:
            async for sequence, delta in deltas:
                piece = self._piece(sequence, delta, first=sequence.index not in begun)
                if piece is not None:
                    text, choice = piece
                    beside = {} if sequence.index in begun else self._beside()
                    begun.add(sequence.index)
                    yield self._object(self.event_kind, [choice]) | extras.of(text) | beside | self._time(sequence)
        if extras.at_end:
            yield self._object(self.event_kind, []) | {"usage": usage(self._record)}
        yield DONE

    def _piece(self, sequence: RunningSequence, delta: Delta, first: bool) -> tuple[str, dict[str, Any]] | None:
        """The text of an event and its choice; None if nothing can be shown yet."""
        raise NotImplementedError

    def _beside(self) -> dict[str, Any]:
        """What an answer, and the first event of each sequence, tells beside the choices."""
        return {}

    def _answer(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        told = {"usage": usage(self._record)} | self._beside() | self._time(self._sequences[0])
        return self._object(self.kind, choices) | told

    def _time(self, sequence: RunningSequence) -> dict[str, Any]:
        """llama.cpp's `timings`; those of the first sequence in a whole answer, as there."""
        return {"timings": self._timings(sequence)} if self._timed else {}

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"{self.id_prefix}-{self._record.id}",
            "object": kind,
            "created": self._created,
            "model": self._service.options.name,
            "system_fingerprint": self._service.facts.fingerprint,
            "choices": choices,
        }


def check_stream(body: OpenAIFields) -> None:
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

    def __init__(self, options: StreamOptions | None, record: Record, sequences: Sequence[RunningSequence]) -> None:
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

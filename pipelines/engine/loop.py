"""The token loop: prompts in, token ids out, over a model that holds the cache.

Text is made above it (text_stream.py); the command line, the Python interface and the benchmarks share it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pipelines.engine.sampling import SamplingParams, logits_needed, sample
from replit.gpu.top_logits import TopLogits

FinishReason = Literal["stop", "length", "interrupted"]
Floats = npt.NDArray[np.float32]


class Decoder(Protocol):
    """What the loop needs of a model; `replit.cpu.model.CpuModel` is one."""

    slots: int
    max_length: int

    def prefill(self, slot: int, ids: Sequence[int]) -> Floats:
        """Starts a sequence in `slot`; the logits `[vocab]` after its last id."""
        ...

    def decode(self, slots: Sequence[int], ids: Sequence[int]) -> Floats:
        """Appends one id to each sequence; the logits `[len(slots), vocab]` after them."""
        ...


@runtime_checkable
class TopDecoder(Decoder, Protocol):
    """A decoder far from our memory, which sends the highest logits alone; `replit.gpu.model.GpuModel` is one."""

    def prefill_top(self, slot: int, ids: Sequence[int], k: int) -> TopLogits:
        """`prefill`, with the `k` highest logits."""
        ...

    def decode_top(self, slots: Sequence[int], ids: Sequence[int], k: int) -> Sequence[TopLogits]:
        """`decode`, with the `k` highest logits of each row."""
        ...


@dataclass(eq=False)
class Request:
    """One prompt on its way to a completion.

    Whoever consumes the loop may set `finish_reason` between two tokens, which ends the request.
    """

    prompt_ids: list[int]
    params: SamplingParams
    generator: np.random.Generator
    index: int = 0
    ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    slot: int = -1


def generate(decoder: Decoder, requests: Sequence[Request], eos_token_id: int | None) -> Iterator[tuple[Request, int]]:
    """Yields (request, token id) as tokens come; a finished request's slot goes to the next waiting one.

    The end-of-text token is not yielded. Prompts must be shorter than `decoder.max_length`.
    """
    waiting = deque(requests)
    free = list(range(decoder.slots))
    running: list[Request] = []
    while waiting or running:
        while waiting and free:
            request = waiting.popleft()
            if token_budget(request, decoder.max_length) == 0:
                request.finish_reason = "length"
                continue
            request.slot = free.pop(0)
            running.append(request)
            logits = _prefill(decoder, request)
            yield from _accept(request, logits, decoder.max_length, eos_token_id)
        running = _release_finished(running, free)
        if running:
            for request, row in zip(running, _decode(decoder, running), strict=True):
                yield from _accept(request, row, decoder.max_length, eos_token_id)
            running = _release_finished(running, free)


def _prefill(decoder: Decoder, request: Request) -> Floats | TopLogits:
    k = logits_needed(request.params)
    if k and isinstance(decoder, TopDecoder):
        return decoder.prefill_top(request.slot, request.prompt_ids, k)
    return decoder.prefill(request.slot, request.prompt_ids)


def _decode(decoder: Decoder, running: Sequence[Request]) -> Floats | Sequence[TopLogits]:
    slots, ids = [r.slot for r in running], [r.ids[-1] for r in running]
    needed = [logits_needed(r.params) for r in running]
    if all(needed) and isinstance(decoder, TopDecoder):
        return decoder.decode_top(slots, ids, max(needed))
    return decoder.decode(slots, ids)


def token_budget(request: Request, max_length: int) -> int:
    """How many tokens may follow the prompt."""
    room = max_length - len(request.prompt_ids)
    wanted = request.params.max_new_tokens
    return room if wanted < 0 else min(room, wanted)


def _accept(
    request: Request, logits: Floats | TopLogits, max_length: int, eos_token_id: int | None
) -> Iterator[tuple[Request, int]]:
    previous = request.prompt_ids + request.ids if request.params.repetition_penalty != 1 else ()
    token = sample(logits, request.params, previous, request.generator)
    if token == eos_token_id and not request.params.ignore_eos:
        request.finish_reason = "stop"
        return
    request.ids.append(token)
    if len(request.ids) == token_budget(request, max_length):
        request.finish_reason = "length"
    yield request, token


def _release_finished(running: list[Request], free: list[int]) -> list[Request]:
    free.extend(r.slot for r in running if r.finish_reason)
    return [r for r in running if not r.finish_reason]

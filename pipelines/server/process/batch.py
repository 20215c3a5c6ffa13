"""The model behind MAX Serve's scheduler: one pass over a batch that the scheduler made.

MAX's scheduler, batch constructor and paged cache decide who runs and where its pages lie; the graph, the sampling
and therefore every token are those of the command line.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from max.pipelines.context import TextContext, TokenBuffer
from max.pipelines.kv_cache import PagedKVCacheManager
from max.pipelines.modeling.types import Pipeline, RequestID, TextGenerationInputs

from pipelines.engine.sampling import log_softmax, logits_needed, sample, top_k_ids
from pipelines.server.process.batch_inputs import BatchInputs
from pipelines.server.process.messages import EndReason, GenerationRequest, Step, TokenLogprob
from replit.gpu.top_logits import TopK, TopLogits
from replit.runtime.passes import Passes

Floats = npt.NDArray[np.float32]


@dataclass
class Output:
    """What the scheduler hands back for a sequence; it reads `is_done` only."""

    step: Step

    @property
    def is_done(self) -> bool:
        """Whether the scheduler should release the sequence."""
        return self.step.end is not None


@dataclass
class Running:
    """A request while it runs."""

    request: GenerationRequest
    generator: np.random.Generator
    generated: int = 0
    prompt_logprobs: dict[int, TokenLogprob] = field(default_factory=dict)
    told_prompt: bool = False
    started: float = 0.0


class BatchPipeline(Pipeline[TextGenerationInputs[TextContext], Output]):
    """`execute` runs the graph once and samples one token for every sequence whose prompt is complete."""

    def __init__(
        self,
        passes: Passes,
        cache: PagedKVCacheManager,
        max_batch_size: int,
        max_length: int,
        eos_token_id: int | None,
        device: Any = None,
    ) -> None:
        """`device` is a GPU, or None for the CPU, where all logits are at hand."""
        self._top = None if device is None else TopK(device)
        self._cache = cache
        self._inputs = BatchInputs(cache, passes)
        self._max_batch_size = max_batch_size
        self._max_length = max_length
        self._eos = eos_token_id
        self._running: dict[RequestID, Running] = {}

    @property
    def max_batch_size(self) -> int:
        """Sequences of one pass."""
        return self._max_batch_size

    def admit(self, request: GenerationRequest) -> TextContext:
        """The scheduler's view of a new request."""
        context = TextContext(
            request_id=RequestID(request.id),
            max_length=self._max_length,
            tokens=TokenBuffer(np.array(request.prompt_ids, np.int64)),
            # Pages found in the cache have no logits: a salt of its own makes every prompt position run.
            cache_salt=request.id if request.prompt_logprobs or not request.use_cache else None,
        )
        generator = np.random.default_rng(request.seed)
        self._running[context.request_id] = Running(request, generator)
        return context

    @staticmethod
    def id_of(name: str) -> RequestID:
        """The scheduler's name of a request."""
        return RequestID(name)

    def release(self, request_id: RequestID) -> None:
        """Called at the end, at a cancellation, and when a sequence is put back in the queue."""

    def forget(self, request_id: RequestID) -> None:
        """Drops what is kept of a finished request."""
        self._running.pop(request_id, None)

    def execute(self, inputs: TextGenerationInputs[TextContext]) -> dict[RequestID, Output]:
        """One pass. Sequences in the middle of their prompts are advanced and yield nothing."""
        batch = inputs.flat_batch
        if not batch:
            return {}
        now = time.monotonic()
        for context in batch:
            running = self._running[context.request_id]
            running.started = running.started or now
        wanted = [self._rows(context) for context in batch]
        logits = self._run(batch, wanted)
        outputs: dict[RequestID, Output] = {}
        start = 0
        for context, rows in zip(batch, wanted, strict=True):
            step = self._advance(context, logits[start : start + len(rows)])
            start += len(rows)
            if step is not None:
                outputs[context.request_id] = Output(step)
        for context in batch:
            self._cache.step(context)
        return outputs

    def _rows(self, context: TextContext) -> range:
        """Which of the active positions need logits."""
        count = context.tokens.active_length
        running = self._running[context.request_id]
        if running.request.prompt_logprobs and not running.told_prompt:
            return range(count)
        return range(count - 1, count)

    def _run(self, batch: Sequence[TextContext], wanted: Sequence[range]) -> Floats | list[TopLogits]:
        outputs = self._inputs(batch, wanted).run()
        needed = [self._logits_needed(context) for context in batch]
        if self._top is not None and all(needed):
            return self._top(outputs, max(needed))
        everything: Floats = outputs[0].to_numpy()
        return everything

    def _logits_needed(self, context: TextContext) -> int:
        request = self._running[context.request_id].request
        scored = request.prompt_logprobs or request.top_logprobs is not None
        return 0 if scored else logits_needed(request.params)

    def _advance(self, context: TextContext, logits: Floats | list[TopLogits]) -> Step | None:
        running = self._running[context.request_id]
        tokens = context.tokens
        if running.request.prompt_logprobs and not running.told_prompt and not isinstance(logits, list):
            self._score_prompt(running, tokens.processed_length, logits)
        if tokens.actively_chunked:
            tokens.advance_chunk()
            return None
        return self._sample(context, running, logits[-1])

    def _score_prompt(self, running: Running, start: int, logits: Floats) -> None:
        """The logits after position `i` score the prompt's token `i + 1`."""
        request = running.request
        for position, row in enumerate(logits, start + 1):
            if position < len(request.prompt_ids):
                token = request.prompt_ids[position]
                running.prompt_logprobs[position] = token_logprob(row, token, request.top_logprobs or 0)

    def _sample(self, context: TextContext, running: Running, logits: Floats | TopLogits) -> Step:
        request, params = running.request, running.request.params
        scored = None
        if request.prompt_logprobs and not running.told_prompt:
            found = running.prompt_logprobs
            scored = [None, *(found[i] for i in range(1, len(request.prompt_ids)))]
        running.told_prompt = True
        told = (context.cached_prefix_length or 0, running.started, scored)
        if params.max_new_tokens == 0:
            context.tokens.advance_with_token(0)  # never run: it only marks the prompt as processed
            return Step(request.id, None, "length", None, *told)
        previous = context.tokens.all.tolist() if params.repetition_penalty != 1 else ()
        token = sample(logits, params, previous, running.generator)
        context.tokens.advance_with_token(token)
        if token == self._eos and not params.ignore_eos:
            return Step(request.id, None, "stop", None, *told)
        logprob = None
        if request.top_logprobs is not None and not isinstance(logits, TopLogits):
            logprob = token_logprob(logits, token, request.top_logprobs)
        running.generated += 1
        end: EndReason | None = "length" if running.generated == params.max_new_tokens else None
        return Step(request.id, token, end, logprob, *told)


def token_logprob(logits: Floats, token: int, top: int) -> TokenLogprob:
    """The log-probability of `token` and of the `top` most probable ids, from logits `[vocab]`."""
    logprobs = log_softmax(logits)
    best = top_k_ids(logits, top)[:top] if top else logits[:0]
    return TokenLogprob(token, float(logprobs[token]), [(int(i), float(logprobs[i])) for i in best])

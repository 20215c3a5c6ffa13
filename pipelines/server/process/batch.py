"""The model behind MAX Serve's scheduler: one pass over a batch that the scheduler made.

MAX's scheduler, batch constructor and paged cache decide who runs and where its pages lie; the graph, the sequences
and therefore every token are those of the command line. What goes wrong with one sequence is that sequence's alone.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from max.pipelines.context import TextContext, TokenBuffer
from max.pipelines.modeling.types import Pipeline, RequestID, TextGenerationInputs

from pipelines.engine.drafter import Drafter
from pipelines.engine.loop import right_guesses
from pipelines.engine.sequence import Sequence, SequenceRequest, Token, Vocabulary
from pipelines.server.process.batch_inputs import BatchInputs, new_tokens
from pipelines.server.process.messages import Step
from pipelines.server.process.prefix_cache import PrefixCache
from pipelines.server.process.turns import Turn, Turns
from replit.cpu.passes import CpuPasses, SlicedPass
from replit.gpu.top_logits import TopK, TopLogits
from replit.runtime.kv_cache import pages_for
from replit.runtime.passes import Passes
from replit.runtime.target import CPU

Floats = npt.NDArray[np.float32]
Rows = Floats | list[TopLogits]


@dataclass
class StepResult:
    """What the scheduler hands back for a sequence; it reads `is_done` only."""

    step: Step

    @property
    def is_done(self) -> bool:
        """Whether the scheduler should release the sequence."""
        return self.step.end is not None


@dataclass
class Place:
    """A sequence's place in the batch."""

    sequence: Sequence
    started: float = 0.0
    told: bool = False  # whether its first step has gone out
    turn: float = 0.0  # when it last ran


@dataclass
class Piece:
    """A pass over a part of a prompt that is under way: what is run, and where that is."""

    graph: SlicedPass
    where: tuple[int, int, list[int]]


class BatchPipeline(Pipeline[TextGenerationInputs[TextContext], StepResult]):
    """`execute` runs the graph once and advances every sequence of the batch."""

    def __init__(
        self,
        passes: Passes,
        cache: PrefixCache,
        max_batch_size: int,
        max_length: int,
        vocabulary: Vocabulary,
        device: Any = None,
        drafter: Drafter | None = None,
    ) -> None:
        """`device` is a GPU, or None for the CPU, where all logits are at hand; `drafter` guesses, None for nothing."""
        self._top = None if device is None else TopK(device)
        self._cache = cache
        self._inputs = BatchInputs(cache, passes)
        self._max_batch_size = max_batch_size
        self._max_length = max_length
        self._turns = None
        if isinstance(passes, CpuPasses):
            self._turns = Turns(passes.layers, CPU.prompt_chunk, self._urgency)
        self._pieces: dict[RequestID, Piece] = {}
        self._vocabulary = vocabulary
        self._drafter = drafter
        self._places: dict[RequestID, Place] = {}

    @property
    def max_batch_size(self) -> int:
        """Sequences of one pass."""
        return self._max_batch_size

    def admit(self, request: SequenceRequest) -> TextContext:
        """The scheduler's view of a new request."""
        context = TextContext(
            request_id=RequestID(request.id),
            max_length=self._max_length,
            tokens=TokenBuffer(np.array(request.prompt_ids, np.int64)),
            cache_salt=request.cache_salt,
        )
        self._places[context.request_id] = Place(Sequence(request, self._vocabulary, self._max_length))
        return context

    @staticmethod
    def id_of(name: str) -> RequestID:
        """The scheduler's name of a request."""
        return RequestID(name)

    def release(self, request_id: RequestID) -> None:
        """Called at the end, at a cancellation, and when a sequence is put back in the queue."""
        self._pieces.pop(request_id, None)

    def forget(self, request_id: RequestID) -> None:
        """Drops what is kept of a finished request."""
        place = self._places.pop(request_id, None)
        if place is not None and self._drafter is not None:
            self._drafter.ended(place.sequence)

    def request_of(self, request_id: RequestID) -> SequenceRequest | None:
        """What is asked of a sequence that the scheduler has, None of one that is gone."""
        place = self._places.get(request_id)
        return None if place is None else place.sequence.request

    def has_read(self, name: str) -> bool:
        """Whether the prompt of a request was read, or the request is gone."""
        place = self._places.get(RequestID(name))
        return place is None or place.told

    def execute(self, inputs: TextGenerationInputs[TextContext]) -> dict[RequestID, StepResult]:
        """One pass, or two short ones. Sequences in the middle of their prompts are advanced and yield nothing."""
        batch = inputs.flat_batch
        turn = Turn(list(batch))
        if self._turns is not None and batch:
            turn = self._turns.choose(batch, [context for context in batch if context.request_id in self._pieces])
        begun = time.monotonic()
        for context in (*turn.together, *([turn.long] if turn.long else ())):
            place = self._places[context.request_id]
            place.started, place.turn = place.started or begun, begun
        steps = self._pass(turn.together) if turn.together else []
        if turn.long is not None:
            steps += self._piece(turn.long, time.monotonic() - begun)
        if self._drafter is not None:
            self._guess(self._drafter, [context for context, step in steps if step is not None and step.end is None])
        return {context.request_id: StepResult(step) for context, step in steps if step is not None}

    def _urgency(self, context: TextContext) -> tuple[bool, float]:
        place = self._places[context.request_id]
        return place.sequence.request.background, place.turn

    def _pass(self, batch: Several[TextContext]) -> list[tuple[TextContext, Step | None]]:
        """Runs a pass; one that fails is run again for each sequence alone, which tells whose fault it is."""
        wanted = [self._rows(context) for context in batch]
        rows = sum(len(new_tokens(context)) for context in batch)
        begun = time.monotonic()
        try:
            logits = self._run(batch, wanted)
        except Exception:
            if len(batch) > 1:
                return [step for context in batch for step in self._pass([context])]
            traceback.print_exc()
            return [(batch[0], self._fail(batch[0]))]
        seconds = time.monotonic() - begun
        if self._turns is not None:
            self._turns.costs.measured(rows, seconds)
        if self._drafter is not None and all(context.tokens.active_length == 1 for context in batch):
            self._drafter.passed(rows, seconds)
        return self._take(batch, wanted, logits)

    def _piece(self, context: TextContext, spent: float) -> list[tuple[TextContext, Step | None]]:
        """Goes through some more layers of the pass over a prompt, for as long as a pass may take."""
        assert self._turns is not None
        tokens, wanted = context.tokens, self._rows(context)
        (pages,) = self._cache.get_req_blocks_per_leaf(context).values()
        where = tokens.processed_length, tokens.active_length, pages[: pages_for(tokens.current_position)]
        try:
            piece = self._pieces.get(context.request_id)
            if piece is None or piece.where != where:
                piece = self._pieces[context.request_id] = Piece(self._inputs.sliced(context, wanted), where)
            before, begun = piece.graph.done, time.monotonic()
            outputs = piece.graph.run(self._turns.layers(tokens.active_length, spent))
            share = (piece.graph.done - before) / piece.graph.layers
            self._turns.costs.measured(tokens.active_length, (time.monotonic() - begun) / share)
        except Exception:
            traceback.print_exc()
            return [(context, self._fail(context))]
        if outputs is None:
            return []
        del self._pieces[context.request_id]
        return self._take([context], [wanted], outputs[0].to_numpy())

    def _take(
        self, batch: Several[TextContext], wanted: Several[range], logits: Rows
    ) -> list[tuple[TextContext, Step | None]]:
        """Hands each sequence of a pass its logits."""
        steps = []
        start = 0
        for context, rows in zip(batch, wanted, strict=True):
            part = logits[start : start + len(rows)]
            start += len(rows)
            try:
                steps.append((context, self._advance(context, part)))
                self._cache.step(context)
            except Exception:
                traceback.print_exc()
                steps.append((context, self._fail(context)))
        return steps

    def _guess(self, drafter: Drafter, batch: list[TextContext]) -> None:
        """Guesses for the next pass, for which the scheduler reserves pages."""
        sequences = [self._places[context.request_id].sequence for context in batch]
        for context, guesses in zip(batch, drafter.guess(sequences) if batch else (), strict=True):
            context.spec_decoding_state.draft_tokens_to_verify = guesses
            # MAX reserves pages by this list; by the other it only compares with the whole cache.
            context.spec_decoding_state.maybe_accepted_draft_tokens = guesses

    def _rows(self, context: TextContext) -> range:
        """Which of the new positions need logits."""
        count = context.tokens.active_length
        place = self._places[context.request_id]
        if place.sequence.request.prompt_logprobs and not place.told:
            return range(count)
        return range(count - 1, count + len(context.spec_decoding_state.draft_tokens_to_verify))

    def _run(self, batch: Several[TextContext], wanted: Several[range]) -> Rows:
        outputs = self._inputs(batch, wanted).run()
        needed = [self._places[context.request_id].sequence.logits_needed for context in batch]
        if self._top is not None and all(needed):
            return self._top(outputs, max(needed))
        everything: Floats = outputs[0].to_numpy()
        return everything

    def _advance(self, context: TextContext, logits: Rows) -> Step | None:
        place = self._places[context.request_id]
        sequence, tokens = place.sequence, context.tokens
        if sequence.request.prompt_logprobs and not place.told and isinstance(logits, np.ndarray):
            sequence.score_prompt(logits)
        if tokens.actively_chunked:
            tokens.advance_chunk()
            return None
        guesses = context.spec_decoding_state.draft_tokens_to_verify
        context.spec_decoding_state.draft_tokens_to_verify = []
        context.spec_decoding_state.maybe_accepted_draft_tokens = []
        before = len(sequence.ids)
        accepted = sequence.accept(logits[len(logits) - 1 - len(guesses) :], guesses)
        if guesses and self._drafter is not None:
            self._drafter.accepted(sequence, len(guesses), right_guesses(sequence.ids[before:], guesses))
        # At its end nothing is run any more: the token only marks what was read as processed.
        for token in accepted or [Token(0)]:
            tokens.advance_with_token(token.id)
        scored = sequence.prompt_logprobs if sequence.request.prompt_logprobs and not place.told else None
        place.told = True
        return Step(
            sequence.request.id, tuple(accepted), sequence.end, sequence.error,
            context.cached_prefix_length or 0, place.started, scored, sequence.drafted, sequence.drafted_right,
        )  # fmt: skip

    def _fail(self, context: TextContext) -> Step:
        place = self._places[context.request_id]
        place.sequence.fail("an internal error; see the server's log")
        place.told = True
        self._cache.distrust(context)
        if context.tokens.actively_chunked:
            context.tokens.advance_chunk()
        context.tokens.advance_with_token(0)
        return Step(place.sequence.request.id, (), "failed", place.sequence.error, started=place.started)

"""The model worker of a batch file: our own loop over a pipeline, in the process and the event loop of the routes.

A server's worker is a process of its own, so that no client waits for a pass; here nobody waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import closing

from pipelines.engine.loop import run
from pipelines.engine.sequence import Sequence, SequenceRequest, Token
from pipelines.pipeline import Pipeline
from pipelines.server.process.messages import Load, Ready, Step
from pipelines.server.process.worker_process import Generation

# Tokens of a sequence that are told together, where its text does not end it: telling takes longer than sampling.
_TOLD_TOGETHER = 8


class LocalWorker:
    """See `Worker` in pipelines/server/process/worker_process.py."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.load = Load(0, 0, 0, 0, 0)
        self.ready: Ready | None = Ready()
        self.ended = asyncio.Event()
        self._pipeline = pipeline
        self._waiting: deque[Sequence] = deque()
        self._arrived = asyncio.Event()
        self._running: dict[str, tuple[Generation, Sequence]] = {}
        self._untold: dict[str, list[Token]] = {}

    @property
    def in_flight(self) -> int:
        """Sequences that run or wait."""
        return len(self._running)

    def submit(self, request: SequenceRequest) -> Generation:
        """Queues a sequence."""
        generation = Generation(self, request)
        sequence = Sequence(request, self._pipeline.tokenizer, self._pipeline.max_length)
        self._running[request.id] = generation, sequence
        self._waiting.append(sequence)
        self._arrived.set()
        return generation

    def runs(self, request_id: str) -> bool:
        """Whether a sequence runs or waits."""
        return request_id in self._running

    def cancel(self, request_id: str) -> None:
        """Ends a sequence that is no longer wanted."""
        if request_id in self._running:
            _, sequence = self._running.pop(request_id)
            self._untold.pop(request_id, None)
            sequence.stop()

    async def run(self) -> None:
        """Runs what is submitted, until it is cancelled. After each pass others have their turn."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            told = 0
            with closing(run(self._pipeline.slots, self._waiting, self._pipeline.drafter)) as steps:
                for sequence, tokens in steps:
                    self._tell(sequence, tokens)
                    told += 1
                    if sequence.end is not None or told >= len(self._pipeline.slots):
                        told = 0
                        await asyncio.sleep(0)

    def _tell(self, sequence: Sequence, tokens: list[Token]) -> None:
        request = sequence.request
        generation, _ = self._running.get(request.id, (None, None))
        if generation is None:
            return  # cancelled
        if sequence.end is not None:
            del self._running[request.id]
        elif not request.watched and len(self._untold.get(request.id, ())) + len(tokens) < _TOLD_TOGETHER:
            self._untold.setdefault(request.id, []).extend(tokens)
            return
        scored = sequence.prompt_logprobs if request.prompt_logprobs else None
        generation.put(
            Step(
                request.id, (*self._untold.pop(request.id, ()), *tokens), sequence.end, sequence.error,
                prompt_logprobs=scored, drafted=sequence.drafted, drafted_right=sequence.drafted_right,
            )
        )  # fmt: skip

"""Our own loop: sequences in, their tokens out, over the slots of one model.

Text is made above it (pipelines/text/chain.py). The server's sequences are the same; MAX Serve's scheduler runs them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator
from collections.abc import Sequence as Several
from typing import Protocol

from pipelines.engine.sequence import Sequence, Token
from pipelines.engine.slots import Slots, busy, common_length


class Drafts(Protocol):
    """Guesses what sequences go on with; pipelines/engine/drafter.py has the one."""

    def guess(self, sequences: Several[Sequence]) -> Several[Several[int]]:
        """For each sequence the ids that probably follow, possibly none."""
        ...

    def passed(self, rows: int, seconds: float) -> None:
        """Told what a pass of so many rows took."""
        ...

    def accepted(self, sequence: Sequence, guessed: int, right: int) -> None:
        """Told how many of a sequence's guesses were right."""
        ...

    def ended(self, sequence: Sequence) -> None:
        """Told that a sequence has ended."""
        ...


def run(
    slots: Slots, sequences: Several[Sequence], drafts: Drafts | None = None
) -> Generator[tuple[Sequence, list[Token]], None, None]:
    """Yields each sequence with its new tokens as they come, and a last time when it has ended.

    A sequence that has ended gives its slot to the next waiting one; whoever consumes the loop may end one by
    `Sequence.stop`, and add to `sequences` where they are a deque, which is emptied. Raises UserError where no slot is
    left because others hold all of them.
    """
    waiting = sequences if isinstance(sequences, deque) else deque(sequences)
    running: list[tuple[Sequence, int]] = []
    user = object()
    try:
        while waiting or running:
            while waiting:
                sequence = waiting[0]
                slot = None if sequence.end else slots.take(sequence.request.prompt_ids, user)
                if slot is None and not sequence.end:
                    break
                waiting.popleft()
                if slot is not None:
                    running.append((sequence, slot))
                    yield sequence, sequence.accept(slots.read(sequence, slot))
                else:
                    yield sequence, []
                running = _release_ended(slots, running, drafts)
            if running:
                yield from _step(slots, running, drafts)
                running = _release_ended(slots, running, drafts)
            elif waiting:
                raise busy(len(slots))
    finally:
        slots.release_all(user)
        if drafts is not None:
            for sequence, _ in running:
                drafts.ended(sequence)


def _step(
    slots: Slots, running: list[tuple[Sequence, int]], drafts: Drafts | None
) -> Iterator[tuple[Sequence, list[Token]]]:
    sequences = [sequence for sequence, _ in running]
    guesses: Several[Several[int]] = [()] * len(running) if drafts is None else drafts.guess(sequences)
    started = time.perf_counter()
    every = slots.step(running, guesses)
    if drafts is not None:
        drafts.passed(len(running) + sum(map(len, guesses)), time.perf_counter() - started)
    for (sequence, slot), guessed, rows in zip(running, guesses, every, strict=True):
        before = len(sequence.ids)
        tokens = sequence.accept(rows, guessed)
        if guessed:
            slots.settle(sequence, slot)
            if drafts is not None:
                drafts.accepted(sequence, len(guessed), right_guesses(sequence.ids[before:], guessed))
        yield sequence, tokens


def right_guesses(ids: Several[int], guesses: Several[int]) -> int:
    """How many guesses were drawn."""
    return common_length(list(ids), list(guesses))


def _release_ended(
    slots: Slots, running: list[tuple[Sequence, int]], drafts: Drafts | None
) -> list[tuple[Sequence, int]]:
    for sequence, slot in running:
        if sequence.end:
            slots.release(slot)
            if drafts is not None:
                drafts.ended(sequence)
    return [(sequence, slot) for sequence, slot in running if not sequence.end]

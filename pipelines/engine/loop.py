"""Our own loop: sequences in, their tokens out, over the slots of one model.

Text is made above it (pipelines/text/chain.py). The server's sequences are the same; MAX Serve's scheduler runs them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from collections.abc import Sequence as Several
from typing import Protocol

from pipelines.engine.sequence import Sequence, Token
from pipelines.engine.slots import Slots, busy


class Drafter(Protocol):
    """Guesses what a sequence goes on with."""

    def guess(self, sequences: Several[Sequence]) -> Several[Several[int]]:
        """For each sequence the ids that probably follow, possibly none."""
        ...

    def accepted(self, sequence: Sequence, guessed: int, accepted: int) -> None:
        """Told how many of its guesses were right."""
        ...


def run(
    slots: Slots, sequences: Several[Sequence], drafter: Drafter | None = None
) -> Generator[tuple[Sequence, list[Token]], None, None]:
    """Yields each sequence with its new tokens as they come, and a last time when it has ended.

    A sequence that has ended gives its slot to the next waiting one; whoever consumes the loop may end one by
    `Sequence.stop`. Raises UserError where no slot is left because others hold all of them.
    """
    waiting = deque(sequences)
    running: list[tuple[Sequence, int]] = []
    try:
        while waiting or running:
            while waiting:
                sequence = waiting[0]
                slot = None if sequence.end else slots.take(sequence.request.prompt_ids)
                if slot is None and not sequence.end:
                    break
                waiting.popleft()
                if slot is not None:
                    running.append((sequence, slot))
                    yield sequence, sequence.accept(slots.read(sequence, slot))
                else:
                    yield sequence, []
                running = _release_ended(slots, running)
            if running:
                yield from _step(slots, running, drafter)
                running = _release_ended(slots, running)
            elif waiting:
                raise busy(len(slots))
    finally:
        for _, slot in running:
            slots.release(slot)


def _step(
    slots: Slots, running: list[tuple[Sequence, int]], drafter: Drafter | None
) -> Iterator[tuple[Sequence, list[Token]]]:
    guesses: Several[Several[int]] = [()] * len(running)
    if drafter is not None:
        guesses = drafter.guess([sequence for sequence, _ in running])
    for (sequence, slot), guessed, rows in zip(running, guesses, slots.step(running, guesses), strict=True):
        tokens = sequence.accept(rows, guessed)
        if guessed:
            slots.settle(sequence, slot)
            if drafter is not None:
                drafter.accepted(sequence, len(guessed), max(len(tokens) - 1, 0))
        yield sequence, tokens


def _release_ended(slots: Slots, running: list[tuple[Sequence, int]]) -> list[tuple[Sequence, int]]:
    for sequence, slot in running:
        if sequence.end:
            slots.release(slot)
    return [(sequence, slot) for sequence, slot in running if not sequence.end]

"""Our own loop: sequences in, their tokens out, over the slots of one model.

Text is made above it (pipelines/text/chain.py). The server's sequences are the same; MAX Serve's scheduler runs them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator
from collections.abc import Sequence as Several
from typing import Protocol

import numpy as np

from pipelines.engine.sequence import Sequence, Token
from pipelines.engine.slots import Part, Slots, busy, common_length

# Ids that another sequence is about to read of the same prompt, for which a prompt waits a pass: copying costs nothing.
_WORTH_WAITING = 8


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
    reading: list[tuple[Sequence, int]] = []
    running: list[tuple[Sequence, int]] = []
    user = object()
    try:
        while waiting or reading or running:
            for sequence in _seat(slots, waiting, reading, user):
                yield sequence, []
            if reading:
                yield from _read(slots, reading, running)
            elif running:
                yield from _step(slots, running, drafts)
            elif waiting:
                raise busy(len(slots))
            for places in (reading, running):
                _release_ended(slots, places, drafts)
    finally:
        slots.release_all(user)
        if drafts is not None:
            for sequence, _ in running:
                drafts.ended(sequence)


def _seat(
    slots: Slots, waiting: deque[Sequence], reading: list[tuple[Sequence, int]], user: object
) -> Iterator[Sequence]:
    """Gives waiting sequences their slots, in order, as long as there are some; yields those that have ended before."""
    while waiting:
        sequence = waiting[0]
        if sequence.end is None:
            prompt, scored = sequence.request.prompt_ids, sequence.request.prompt_logprobs
            if not scored and any(_worth_waiting(slots, prompt, *place) for place in reading):
                return
            slot = slots.take(prompt, user, fresh=scored)
            if slot is None:
                return
            reading.append((sequence, slot))
        waiting.popleft()
        if sequence.end is not None:
            yield sequence


def _worth_waiting(slots: Slots, prompt: Several[int], other: Sequence, slot: int) -> bool:
    """Whether another sequence will have read much of a prompt that nobody has read yet."""
    return common_length(other.request.prompt_ids, prompt) - slots.cached(slot) >= _WORTH_WAITING


def _read(
    slots: Slots, reading: list[tuple[Sequence, int]], running: list[tuple[Sequence, int]]
) -> Iterator[tuple[Sequence, list[Token]]]:
    """A pass over as much of the prompts as it takes, and a step of whatever runs."""
    steps = [Part(sequence, slot, [sequence.ids[-1]]) for sequence, slot in running]
    if 4 * len(steps) > 3 * slots.most_rows:
        steps = []  # few of the prompts' ids would fit
    prompts: list[Part] = []
    room = slots.most_rows - len(steps)
    for sequence, slot in reading:
        if room > 0:
            prompts.append(slots.next_part(sequence, slot, room))
            room -= len(prompts[-1].ids)
    found = slots.advance([*steps, *prompts])
    for part, rows in zip(steps, found, strict=False):
        yield part.sequence, part.sequence.accept(rows)
    for part, rows in zip(prompts, found[len(steps) :], strict=True):
        sequence, slot = part.sequence, part.slot
        if sequence.request.prompt_logprobs and isinstance(rows, np.ndarray):
            sequence.score_prompt(rows)
        if slots.cached(slot) == len(sequence.request.prompt_ids):
            reading.remove((sequence, slot))
            running.append((sequence, slot))
            yield sequence, sequence.accept(rows[-1:])


def _step(
    slots: Slots, running: list[tuple[Sequence, int]], drafts: Drafts | None
) -> Iterator[tuple[Sequence, list[Token]]]:
    sequences = [sequence for sequence, _ in running]
    guesses: Several[Several[int]] = [()] * len(running) if drafts is None else drafts.guess(sequences)
    parts = [
        Part(sequence, slot, [sequence.ids[-1], *guessed], 1 + len(guessed))
        for (sequence, slot), guessed in zip(running, guesses, strict=True)
    ]
    started = time.perf_counter()
    every = slots.advance(parts)
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


def _release_ended(slots: Slots, places: list[tuple[Sequence, int]], drafts: Drafts | None) -> None:
    for sequence, slot in places:
        if sequence.end:
            slots.release(slot)
            if drafts is not None:
                drafts.ended(sequence)
    places[:] = [(sequence, slot) for sequence, slot in places if not sequence.end]

"""Which sequences of a batch run next, and how much of them: so that nobody waits for another's prompt.

What takes long is cut to about PASS_SECONDS: a pass over a prompt between two of its layers, where the graph allows it,
else a prompt into fewer tokens. After each piece whatever has arrived gets its turn: cancellations, one token of every
stream, short prompts. How long something takes is told by what was measured here before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Several
from dataclasses import dataclass
from math import log2

from max.pipelines.context import TextContext

PASS_SECONDS = 0.2
# Where a pass cannot be cut and nobody waits, the throughput of more tokens is worth a longer one.
_ALONE = 4
# Fewer tokens of a prompt in a pass cost nearly as much.
_LEAST_TOKENS = 16
# Weight of the newest measurement.
_NEWEST = 0.3


@dataclass
class Turn:
    """What runs now: `together` in one pass, then a piece of the pass over `long`."""

    together: list[TextContext]
    long: TextContext | None = None


class Costs:
    """Seconds of a pass by its number of rows, as measured."""

    def __init__(self) -> None:
        self._seconds: dict[int, tuple[int, float]] = {}  # rows and seconds, by the logarithm of the rows

    def measured(self, rows: int, seconds: float) -> None:
        """Takes in a measurement."""
        size = round(log2(rows))
        if size in self._seconds:
            known_rows, known = self._seconds[size]
            seconds = (1 - _NEWEST) * known * rows / known_rows + _NEWEST * seconds
        self._seconds[size] = rows, seconds

    def of(self, rows: int) -> float | None:
        """What a pass of so many rows takes, from that of the most similar number; None if nothing is known."""
        if not self._seconds:
            return None
        size = log2(rows)
        known_rows, seconds = self._seconds[min(self._seconds, key=lambda known: (abs(known - size), -known))]
        # A pass never takes less than with fewer rows, and at most as much a row.
        return seconds * max(rows / known_rows, 1.0)


class Turns:
    """Chooses from MAX's batches."""

    def __init__(self, layers: int, most_rows: int, urgency: Callable[[TextContext], tuple[bool, float]]) -> None:
        """`layers` that a pass may be cut between (1: none), rows of the largest pass.

        `urgency` of a sequence: whether it can wait for all others, and when it last had a turn.
        """
        self._layers, self._most_rows, self._urgency = layers, most_rows, urgency
        self.costs = Costs()

    def choose(self, batch: Several[TextContext], begun: Iterable[TextContext]) -> Turn:
        """What runs now of a batch, in which passes over `begun` sequences are under way."""
        prompts = sorted((context for context in batch if context.tokens.active_length > 1), key=self._urgency)
        together = [context for context in batch if context.tokens.active_length == 1]
        if together or any(not self._urgency(context)[0] for context in prompts):
            prompts = [context for context in prompts if not self._urgency(context)[0]]
        under_way = {context.request_id for context in begun}
        turn, rows = Turn(together), len(together)
        for context in prompts:
            count = context.tokens.active_length
            if context.request_id not in under_way and self._fits(rows + count):
                turn.together.append(context)
                rows += count
            elif turn.long is None:
                turn.long = context
        if turn.long is not None and self._layers == 1:
            self._cut(turn, rows)
        return turn

    def _fits(self, rows: int) -> bool:
        seconds = self.costs.of(rows)
        quick = rows <= _LEAST_TOKENS if seconds is None else seconds <= PASS_SECONDS
        return quick and rows <= self._most_rows

    def _cut(self, turn: Turn, rows: int) -> None:
        """Takes as much of the long prompt along as there is time for."""
        context = turn.long
        assert context is not None
        turn.long = None
        seconds = PASS_SECONDS * (1 if rows else _ALONE)
        count = min(self._most_rows - rows, context.tokens.active_length)
        if count < 1:
            return  # the others fill the pass; its turn comes when their prompts are read
        while count > _LEAST_TOKENS and (self.costs.of(rows + count) or 0.0) > seconds:
            count = max(count // 2, _LEAST_TOKENS)
        if count < context.tokens.active_length:
            context.tokens.chunk(count)
        turn.together.append(context)

    def layers(self, rows: int, spent: float) -> int:
        """How many layers of a pass of so many rows there is time for, after `spent` seconds."""
        whole = self.costs.of(rows)
        if whole is None:
            return 1
        return max(1, int(max(PASS_SECONDS - spent, PASS_SECONDS / 2) / whole * self._layers))

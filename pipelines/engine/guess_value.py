"""What guesses are worth: how often they are right, and what their rows cost against the rate without them.

A pass with guesses brings more tokens and takes longer. The rate in the long run is highest where a guess is taken
whenever the tokens that it is expected to bring are more than its time brings at the present rate (renewal reward).
Rows may cost in steps, as kernels take several at once, so that the second may pay only together with the third: the
best length is looked for, not the first that does not pay.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from dataclasses import dataclass

from pipelines.engine.pass_costs import PassCosts

# How much a new outcome counts for what is expected of guesses.
_WEIGHT = 0.1
# What is kept of earlier passes in the rate when one is added.
_KEPT = 0.95
# Passes without guesses that the rate begins with.
_FIRST_PASSES = 3
# Passes that are skipped at most between two tries of what has not paid.
_LONGEST_PAUSE = 64


@dataclass
class Expectation:
    """How often guesses of a kind are right: the first one, and each further one given that those before it were."""

    first: float = 0.4
    further: float = 0.75
    tries: int = 0

    def learn(self, guessed: int, right: int) -> None:
        """Takes in an outcome: `right` of `guessed`, and one wrong unless all were right."""
        self.tries += 1
        weight = max(_WEIGHT, 1 / (self.tries + 4))
        self.first += weight * ((right > 0) - self.first)
        for outcome in [1.0] * (right - 1) + [0.0] * (0 < right < guessed):
            self.further += _WEIGHT * (outcome - self.further)

    def probabilities(self, count: int) -> list[float]:
        """Of each of `count` guesses that it is right together with those before it."""
        return [self.first * self.further**index for index in range(count)]


@dataclass
class Pause:
    """Tries that do not pay grow rare, and come back when one pays."""

    passes: int = 0  # until the next try
    length: int = 0

    def due(self) -> bool:
        """Whether to try in this pass."""
        self.passes -= 1
        return self.passes < 0

    def learn(self, paid: bool) -> None:
        """What came of a try."""
        self.length = 0 if paid else min(2 * self.length + 1, _LONGEST_PAUSE)
        self.passes = self.length


class GuessValue:
    """Weighs expected tokens against seconds, at the rate of the passes of late."""

    def __init__(self) -> None:
        self.costs = PassCosts()
        self._tokens, self._seconds = 0.0, 0.0

    def restart(self, sequences: int) -> None:
        """A sequence has joined, `sequences` in all: what others brought says nothing of it."""
        self._tokens, self._seconds = _FIRST_PASSES * sequences, _FIRST_PASSES * self.costs.seconds(sequences)

    def passed(self, sequences: int, rows: int, seconds: float, drafting: float) -> None:
        """Takes in a pass of `seconds`, and those that were spent on its guesses."""
        self.costs.observe(rows, seconds)
        if not self._seconds:
            self.restart(sequences)
        self._tokens = _KEPT * self._tokens + sequences
        self._seconds = _KEPT * self._seconds + seconds + drafting

    def accepted(self, right: int) -> None:
        """Takes in how many guesses of the last pass were right."""
        self._tokens += right

    @property
    def rate(self) -> float:
        """Tokens a second; 0 before the first pass."""
        return self._tokens / self._seconds if self._seconds else 0.0

    def price(self, before: int, rows: int) -> float:
        """Tokens that the time of `rows` more rows than `before` would bring."""
        return self.rate * max(self.costs.seconds(before + rows) - self.costs.seconds(before), 0.0)

    def best(self, probabilities: Several[float], before: int) -> tuple[int, float]:
        """How many guesses to take beside `before` rows, and the tokens that they bring more than they cost.

        `probabilities`: of each guess that it is right together with those before it.
        """
        best, most, expected = 0, 0.0, 0.0
        for count, probability in enumerate(probabilities, 1):
            expected += probability
            value = expected - self.price(before, count)
            if value > most:
                best, most = count, value
        return best, most

"""How many guesses a pass takes along, and whose: as many as pay by what rows cost here and what came of guesses.

A checked guess costs a row of a pass, a guess of the small model its own passes too. One more guess pays if the tokens
that it is expected to bring for its time are more than the pass brings for its own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence as Several
from dataclasses import dataclass, field

from pipelines.engine.draft_model import DraftModel
from pipelines.engine.ngram import Histories, NgramIndex
from pipelines.engine.pass_costs import PassCosts
from pipelines.engine.sequence import Sequence
from pipelines.engine.slots import engine_lock

# Rows of a pass with guesses in all: beyond, arithmetic costs more than the reading that is saved.
MOST_ROWS = 16
# How much a new outcome counts for what is expected of guesses.
_WEIGHT = 0.1
# Passes that are skipped at most between two tries of what has not paid.
_LONGEST_PAUSE = 64


@dataclass
class Expectation:
    """How often guesses of a kind were right, each given that those before it were."""

    share: float
    tries: int = 0

    def learn(self, guessed: int, right: int) -> None:
        """Takes in an outcome: `right` of `guessed`, and one wrong unless all were right."""
        for outcome in [1.0] * right + [0.0] * (right < guessed):
            self.tries += 1
            weight = max(_WEIGHT, 1 / (self.tries + 2))
            self.share += weight * (outcome - self.share)


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


@dataclass
class _Draft:
    """What is kept of a sequence while it runs."""

    index: NgramIndex
    indexed: int = 0  # generated ids that are in the index
    kind: str = ""
    sure: list[float] = field(default_factory=list)
    pause: Pause = field(default_factory=Pause)
    small: Expectation = field(default_factory=lambda: Expectation(0.7))  # of the small model's own probabilities


class Drafter:
    """Guesses for sequences from their own text, from what was generated before, and from a small model."""

    def __init__(self, ngrams: bool = True, small: DraftModel | None = None) -> None:
        self._ngrams, self._small = ngrams, small
        self._costs, self._small_costs = PassCosts(), PassCosts()
        self._histories = Histories()
        self._drafts: dict[str, _Draft] = {}
        self._matches = {length: Expectation(0.5) for length in ("short", "middle", "long", "history")}
        self.guessed = 0
        self.right = 0

    def guess(self, sequences: Several[Sequence]) -> list[list[int]]:
        """For each sequence the ids that are worth a row of the next pass, possibly none."""
        with engine_lock:
            return self._guess_all(sequences)

    def _guess_all(self, sequences: Several[Sequence]) -> list[list[int]]:
        spare = MOST_ROWS - len(sequences)
        found: list[list[int]] = []
        for sequence in sequences:
            most = min(max(spare, 0) // len(sequences), sequence.budget - len(sequence.ids) - 1)
            guesses = self._guess(sequence, most, len(sequences)) if most > 0 and sequence.request.speculative else []
            found.append(guesses)
        return found

    def _guess(self, sequence: Sequence, most: int, rows: int) -> list[int]:
        draft = self._draft(sequence)
        draft.kind, draft.sure = "", []
        if self._ngrams and (guesses := self._from_text(sequence, draft, most, rows)):
            return guesses
        if self._small is None or not draft.pause.due():
            return []
        return self._from_small(self._small, sequence, draft, most, rows)

    def _draft(self, sequence: Sequence) -> _Draft:
        name = sequence.request.id
        if name not in self._drafts:
            index = NgramIndex()
            if self._ngrams:
                index.extend(sequence.request.prompt_ids)
            self._drafts[name] = _Draft(index)
        draft = self._drafts[name]
        if self._ngrams:
            draft.index.extend(sequence.ids[draft.indexed :])
            draft.indexed = len(sequence.ids)
        return draft

    def _from_text(self, sequence: Sequence, draft: _Draft, most: int, rows: int) -> list[int]:
        tail = draft.index.ids
        place, length = draft.index.find(tail, own=True)
        request = sequence.request
        history = None if request.alone else self._histories.of(request.cache_salt).index
        older, older_length = history.find(tail, own=False) if history is not None else (0, 0)
        if history is not None and older_length > length:
            kind, guesses = "history", history.after(older, most)
        else:
            kind = "short" if length < 5 else "middle" if length < 12 else "long"
            guesses = draft.index.after(place, most) if length else []
        share = self._matches[kind].share
        sure = [share ** (i + 1) for i in range(len(guesses))]
        count = self._worth(sure, rows)
        if count == 0 and guesses and draft.pause.due():
            count = 1  # a try now and then, else nothing would be learned
        draft.kind, draft.sure = kind, sure[:count]
        return guesses[:count]

    def _from_small(self, small: DraftModel, sequence: Sequence, draft: _Draft, most: int, rows: int) -> list[int]:
        trust = draft.small.share
        reached, expected = 0, float(rows)

        def worth(probability: float) -> bool:
            nonlocal reached, expected
            reached += 1
            pays = self._pays(probability * trust, expected, rows + reached, self._small_costs.seconds(1))
            expected += probability * trust
            return pays

        started = time.perf_counter()
        guesses, sure = small.guess(sequence, most, worth)
        self._small_costs.observe(1, (time.perf_counter() - started) / max(reached, 1))
        draft.kind, draft.sure = "small", sure
        if not guesses:
            draft.pause.learn(paid=False)
        return guesses

    def _worth(self, sure: Several[float], rows: int) -> int:
        """How many of the guesses pay."""
        expected = float(rows)
        for count, share in enumerate(sure):
            if not self._pays(share, expected, rows + count + 1, 0.0):
                return count
            expected += share
        return len(sure)

    def _pays(self, probability: float, expected: float, rows: int, seconds: float) -> bool:
        """Whether one more row, the `rows`-th, is worth its time and `seconds` before it.

        `expected` are the tokens that the pass brings without it.
        """
        before = self._costs.seconds(rows - 1)
        more = max(self._costs.seconds(rows) - before, 0.005 * before) + seconds
        return probability * before / expected > more

    def passed(self, rows: int, seconds: float) -> None:
        """Told what a pass took."""
        self._costs.observe(rows, seconds)

    def accepted(self, sequence: Sequence, guessed: int, right: int) -> None:
        """Told how many of a sequence's guesses were right."""
        self.guessed += guessed
        self.right += right
        sequence.drafted += guessed
        sequence.drafted_right += right
        draft = self._drafts[sequence.request.id]
        if draft.kind == "small":
            draft.small.share += _WEIGHT * (min(right / max(sum(draft.sure), 1e-3), 1.0) - draft.small.share)
            saved = right * self._costs.seconds(1)
            spent = guessed * self._small_costs.seconds(1) + self._costs.seconds(1 + guessed) - self._costs.seconds(1)
            draft.pause.learn(paid=saved >= spent)
        else:
            self._matches[draft.kind].learn(guessed, right)

    def ended(self, sequence: Sequence) -> None:
        """Told that a sequence has ended; what it wrote may come again."""
        request = sequence.request
        if self._drafts.pop(request.id, None) is not None and self._ngrams and not request.alone:
            self._histories.of(request.cache_salt).add(request.prompt_ids, sequence.ids)
        if self._small is not None:
            self._small.forget(sequence)

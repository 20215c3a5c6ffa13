"""Which guesses a pass takes along: those of the text's own repetitions or a small model's, as many as pay here."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence as Several
from dataclasses import dataclass, field

from pipelines.engine.draft_model import DraftModel
from pipelines.engine.guess_value import Expectation, GuessValue, Pause
from pipelines.engine.ngram import Histories, NgramIndex
from pipelines.engine.pass_costs import PassCosts
from pipelines.engine.sequence import Sequence, SequenceRequest
from pipelines.engine.slots import engine_lock

# Rows of a pass with guesses in all: beyond, arithmetic costs more than the reading that is saved.
MOST_ROWS = 16
# Rows over which the price of one more is averaged while the small model goes on: kernels take about as many at once.
_TOGETHER = 7
# Matches of at least so many ids are told apart by how often they are right.
_LENGTHS = (4, 6, 9, 16)
# How much an outcome counts for what is expected of the small model.
_WEIGHT = 0.1


@dataclass
class _Draft:
    """What is kept of a sequence while it runs."""

    index: NgramIndex
    indexed: int = 0  # generated ids that are in the index
    match: Expectation | None = None  # of the guesses under way, where text made them
    sure: list[float] = field(default_factory=list)  # of those under way, where the small model made them
    spent: float = 0.0  # seconds on those
    trust: float = 1.0  # right guesses of the small model for each that its own probabilities promise
    value: float = 0.3  # tokens that a try of the small model brings more than it costs, on the average
    match_pause: Pause = field(default_factory=Pause)
    small_pause: Pause = field(default_factory=Pause)


class Drafter:
    """Guesses for sequences from their own text, from what was generated before, and from a small model."""

    def __init__(self, ngrams: bool = True, small: DraftModel | None = None) -> None:
        self._ngrams, self._small = ngrams, small
        self._value, self._small_costs = GuessValue(), PassCosts()
        self.histories = Histories()
        self._drafts: dict[str, _Draft] = {}
        self._matches = {"history": Expectation()} | {f"from {n}": Expectation() for n in (0, *_LENGTHS)}
        self._sequences, self._drafting = 0, 0.0
        self.guessed = 0
        self.right = 0

    def guess(self, sequences: Several[Sequence]) -> list[list[int]]:
        """For each sequence the ids that are worth a row of the next pass, possibly none."""
        started = time.perf_counter()
        with engine_lock:
            found = self._guess_all(sequences)
        self._sequences, self._drafting = len(sequences), time.perf_counter() - started
        return found

    def _guess_all(self, sequences: Several[Sequence]) -> list[list[int]]:
        spare = max(MOST_ROWS - len(sequences), 0)
        rows = len(sequences)
        if any(each.request.speculative and each.request.id not in self._drafts for each in sequences):
            self._value.restart(rows)
        found: list[list[int]] = []
        for sequence in sequences:
            most = min(spare // len(sequences), sequence.budget - len(sequence.ids) - 1)
            guesses = self._guess(sequence, most, rows) if most > 0 and sequence.request.speculative else []
            rows += len(guesses)
            found.append(guesses)
        return found

    def _guess(self, sequence: Sequence, most: int, rows: int) -> list[int]:
        draft = self._draft(sequence)
        draft.match, draft.sure, draft.spent = None, [], 0.0
        if not self._value.rate:
            return []  # the first pass tells what one without guesses costs
        guesses, value = self._from_text(sequence.request, draft, most, rows) if self._ngrams else ([], 0.0)
        if self._small is None or (guesses and value >= draft.value) or not draft.small_pause.due():
            return guesses
        draft.match = None
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

    def _from_text(self, request: SequenceRequest, draft: _Draft, most: int, rows: int) -> tuple[list[int], float]:
        """What followed the longest match, as far as it pays, and what it brings more than it costs."""
        tail = draft.index.ids
        place, length = draft.index.find(tail, own=True)
        history = None if request.alone else self.histories.of(request.cache_salt).index
        older, older_length = history.find(tail, own=False) if history is not None else (0, 0)
        if history is not None and older_length > length:
            match, guesses = self._matches["history"], history.after(older, most)
        else:
            match = self._matches[f"from {max((n for n in _LENGTHS if n <= length), default=0)}"]
            guesses = draft.index.after(place, most) if length else []
        count, value = self._value.best(match.probabilities(len(guesses)), rows)
        if count == 0 and guesses and draft.match_pause.due():
            count = 1  # a try now and then, else nothing would be learned
        draft.match = match if count else None
        return guesses[:count], value

    def _from_small(self, small: DraftModel, sequence: Sequence, draft: _Draft, most: int, rows: int) -> list[int]:
        tried = 0
        rate = self._value.rate
        price = self._value.price(rows, _TOGETHER) / _TOGETHER + rate * self._small_costs.seconds(1)

        def worth(probability: float) -> bool:
            nonlocal tried
            tried += 1
            return probability * draft.trust > price

        started = time.perf_counter()
        try:
            guesses, sure = small.guess(sequence, most, worth)
        except Exception:  # a guess is worth no sequence's end
            traceback.print_exc()
            self._small = None
            return []
        if not tried:
            return []  # it follows others, or cannot read this text: nothing was learned of it
        draft.spent = time.perf_counter() - started
        self._small_costs.observe(1, draft.spent / tried)
        count, _ = self._value.best([probability * draft.trust for probability in sure], rows)
        draft.sure = sure[:count]
        if count == 0:
            self._learn_of_small(draft, 0, 0)
        return guesses[:count]

    def _learn_of_small(self, draft: _Draft, guessed: int, right: int) -> None:
        gained = right - self._value.rate * draft.spent - self._value.price(self._sequences, guessed)
        draft.value += _WEIGHT * (gained - draft.value)
        if draft.sure:
            promised = max(sum(draft.sure), 1e-3)
            draft.trust += _WEIGHT / 2 * (min(right / promised, 1.3) - draft.trust)
        draft.small_pause.learn(paid=right > 0 or draft.value > 0)

    def passed(self, rows: int, seconds: float) -> None:
        """Told what a pass took."""
        self._value.passed(max(self._sequences, 1), rows, seconds, self._drafting)

    def accepted(self, sequence: Sequence, guessed: int, right: int) -> None:
        """Told how many of a sequence's guesses were right."""
        self.guessed += guessed
        self.right += right
        sequence.drafted += guessed
        sequence.drafted_right += right
        self._value.accepted(right)
        draft = self._drafts[sequence.request.id]
        if draft.match is not None:
            draft.match.learn(guessed, right)
            draft.match_pause.learn(paid=right > 0)
        else:
            self._learn_of_small(draft, guessed, right)

    def ended(self, sequence: Sequence) -> None:
        """Told that a sequence has ended; what it wrote may come again."""
        request = sequence.request
        if self._drafts.pop(request.id, None) is not None and self._ngrams and not request.alone:
            self.histories.of(request.cache_salt).add(request.prompt_ids, sequence.ids)
        if self._small is not None:
            self._small.forget(sequence)

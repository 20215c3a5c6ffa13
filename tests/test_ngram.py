"""Guesses from text, what passes cost, and how many guesses are worth it."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from pipelines.engine.guess_value import Expectation, GuessValue, Pause
from pipelines.engine.ngram import BREAK, History, NgramIndex
from pipelines.engine.pass_costs import PassCosts


def longest_match(ids: list[int], tail: list[int], own: bool) -> int:
    """The length of the longest match, by trying every place."""
    best = 0
    for place in range(1, len(ids) + (not own)):
        length = 0
        while length < min(24, len(tail), place) and ids[place - 1 - length] == tail[-1 - length]:
            length += 1
        best = max(best, length)
    return best if best >= 3 else 0


def test_the_longest_match_is_found_however_the_ids_came() -> None:
    generator = random.Random(3)
    for _ in range(200):
        ids = [generator.randrange(3) for _ in range(generator.randrange(40))]
        index = NgramIndex()
        rest = list(ids)
        while rest:
            count = generator.randint(1, 6)
            index.extend(rest[:count])
            del rest[:count]
        place, length = index.find(ids, own=True)
        # Only the newest places of a run of three are remembered, so a longer match may be missed, never made up.
        assert length <= longest_match(ids, ids, own=True)
        assert (length > 0) == (longest_match(ids, ids, own=True) > 0)
        assert ids[place - length : place] == ids[len(ids) - length :]


def test_a_guess_goes_on_as_the_text_did() -> None:
    index = NgramIndex()
    index.extend([1, 2, 3, 4, 5, 6, 9, 2, 3, 4])
    place, length = index.find(index.ids, own=True)
    assert (length, index.after(place, 3)) == (3, [5, 6, 9])
    index.extend([7])
    assert index.find(index.ids, own=True) == (0, 0)


def test_history_ends_guesses_at_the_end_of_a_text_and_forgets() -> None:
    history = History(most=100, context=4)
    history.add([0, 0, 1, 2, 3, 4], [5, 6])
    place, length = history.index.find([1, 2, 3, 4], own=False)
    assert (length, history.index.after(place, 9)) == (4, [5, 6])
    assert BREAK in history.index.ids
    for number in range(40):
        history.add([number] * 4, [number + 100])
    assert len(history.index.ids) <= 106
    assert history.index.find([1, 2, 3, 4], own=False) == (0, 0)


def test_costs_between_measurements_are_straight_lines() -> None:
    costs = PassCosts()
    assert costs.seconds(1) == 0.0
    costs.observe(1, 1.0)
    assert costs.seconds(5) == pytest.approx(1.16)  # taken for granted until it was measured
    costs.observe(9, 3.0)
    assert costs.seconds(5) == pytest.approx(2.0)
    assert costs.seconds(10) > 3.0
    for _ in range(200):
        costs.observe(9, 1.5)
    assert costs.seconds(9) == pytest.approx(1.5, rel=1e-3)
    costs.observe(9, 100.0)  # somebody else had the processor
    assert costs.seconds(9) < 2.0


def test_expectations_follow_outcomes() -> None:
    expectation = Expectation()
    for _ in range(50):
        expectation.learn(guessed=4, right=4)
    assert expectation.probabilities(3) == pytest.approx([1.0, 1.0, 1.0], abs=0.05)
    for _ in range(50):
        expectation.learn(guessed=4, right=1)  # the first is always right, the second never
    assert expectation.probabilities(2) == pytest.approx([1.0, 0.0], abs=0.05)
    for _ in range(50):
        expectation.learn(guessed=4, right=0)
    assert expectation.probabilities(1)[0] < 0.05


def value_where(costs: dict[int, float]) -> GuessValue:
    """A value that knows what passes of so many rows take, with a rate of one token in the first one's time."""
    value = GuessValue()
    for rows, seconds in costs.items():
        value.costs.observe(rows, seconds)
    value.restart(1)
    return value


def test_as_many_guesses_as_pay() -> None:
    cheap = value_where({1: 1.0, 16: 1.15})
    assert cheap.best([0.9, 0.8, 0.5, 0.2, 0.005], 1)[0] == 4
    dear = value_where({1: 1.0, 2: 1.6, 3: 2.2})
    assert dear.best([0.9, 0.5], 1)[0] == 1
    assert dear.best([0.5, 0.2], 1) == (0, 0.0)


def test_a_step_in_what_rows_cost_is_taken_where_it_pays_in_all() -> None:
    steps = value_where({1: 1.0, 2: 1.5, 8: 1.5})
    assert steps.best([0.4], 1)[0] == 0
    assert steps.best([0.4, 0.35, 0.3], 1)[0] == 3


def test_the_faster_the_text_the_dearer_a_row() -> None:
    value = value_where({1: 1.0, 16: 1.15})
    price = value.price(1, 7)
    for _ in range(100):
        value.passed(1, 8, 1.07, 0.03)
        value.accepted(7)
    assert value.rate == pytest.approx(8 / 1.1, rel=0.02)
    assert value.price(1, 7) > 5 * price
    value.restart(1)
    assert value.rate == pytest.approx(1.0)


def test_tries_that_do_not_pay_grow_rare_and_come_back() -> None:
    pause, tries = Pause(), []
    for step in range(400):
        if pause.due():
            tries.append(step)
            pause.learn(paid=False)
    gaps = [later - earlier for earlier, later in pairwise(tries)]
    assert gaps[:5] == [2, 4, 8, 16, 32]
    assert max(gaps) <= 65
    pause.learn(paid=True)
    assert pause.due()

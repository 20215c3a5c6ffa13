"""Sampling: each filter against its definition, and the distribution that results."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.engine.sampling import (
    SamplingParams,
    candidates,
    log_softmax,
    penalize_repetition,
    sample,
    softmax,
    top_k_ids,
)
from weights.errors import UserError

LOGITS = np.log(np.array([0.1, 0.4, 0.05, 0.3, 0.15], np.float32))  # probabilities, shuffled


def kept(**params: float) -> list[int]:
    return candidates(LOGITS, SamplingParams(**({"top_k": 5} | params)))[0].tolist()  # type: ignore[arg-type]


def test_candidates_come_most_probable_first() -> None:
    assert kept() == [1, 3, 4, 0, 2]


def test_top_k_keeps_the_highest_and_breaks_ties_by_id() -> None:
    assert kept(top_k=2) == [1, 3]
    assert top_k_ids(np.array([1, 3, 3, 3, 0], np.float32), 2).tolist() == [1, 2]
    assert top_k_ids(np.array([1, 3], np.float32), 9).tolist() == [1, 0]


def test_top_p_keeps_the_fewest_that_reach_it() -> None:
    assert kept(top_p=0.39) == [1]
    assert kept(top_p=0.41) == [1, 3]
    assert kept(top_p=0.71) == [1, 3, 4]
    assert kept(top_p=1e-9) == [1]


def test_min_p_is_a_share_of_the_most_probable() -> None:
    assert kept(min_p=0.5) == [1, 3]
    assert kept(min_p=1.0) == [1]


def test_temperature_comes_before_top_p() -> None:
    # At temperature 0.5 the probabilities are squared: 0.4^2 / sum of squares = 0.56.
    assert kept(temperature=0.5, top_p=0.55) == [1]
    assert kept(temperature=2.0, top_p=0.55) == [1, 3]


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits() -> None:
    logits = np.array([2.0, -2.0, 1.0], np.float32)
    assert penalize_repetition(logits, [0, 1, 1], 2.0).tolist() == [1.0, -4.0, 1.0]
    assert logits.tolist() == [2.0, -2.0, 1.0]


def test_greedy_needs_no_randomness() -> None:
    for params in (SamplingParams(top_k=1), SamplingParams(top_k=50, temperature=0)):
        assert sample(LOGITS, params, (), np.random.default_rng()) == 1


def test_greedy_respects_the_penalty() -> None:
    params = SamplingParams(repetition_penalty=10.0)
    logits = np.array([3.0, 2.9], np.float32)
    assert sample(logits, params, [0], np.random.default_rng()) == 1


def test_draws_follow_the_probabilities() -> None:
    generator = np.random.default_rng(1)
    params = SamplingParams(top_k=3)
    draws = [sample(LOGITS, params, (), generator) for _ in range(20_000)]
    share = np.bincount(draws, minlength=5) / len(draws)
    expected = np.array([0, 0.4, 0, 0.3, 0.15]) / 0.85
    np.testing.assert_allclose(share, expected, atol=0.012)


def test_the_seed_fixes_the_draws() -> None:
    params = SamplingParams(top_k=5)
    first, second = (
        [sample(LOGITS, params, (), g) for _ in range(50)] for g in (np.random.default_rng(3), np.random.default_rng(3))
    )
    assert first == second


def test_softmax_survives_large_logits() -> None:
    assert softmax(np.array([1e4, 0], np.float32)).tolist() == [1.0, 0.0]
    np.testing.assert_allclose(log_softmax(np.array([[1e4, 1e4]], np.float32)), np.log([[0.5, 0.5]]), atol=1e-6)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("top_k", 0, "--top-k is 0; expected a whole number from 1 up"),
        ("temperature", -0.1, "--temperature is -0.1; expected a number from 0"),
        ("temperature", float("nan"), "--temperature is nan; expected a number from 0"),
        ("temperature", float("inf"), "--temperature is inf; expected a number from 0"),
        ("top_p", 0.0, "--top-p is 0.0; expected a number above 0 to 1"),
        ("min_p", 1.5, "--min-p is 1.5; expected a number from 0 to 1"),
        ("repetition_penalty", 0.0, "--repetition-penalty is 0.0; expected a number above 0"),
        ("max_new_tokens", -2, "--max-new-tokens is -2; expected a whole number from -1 up"),
        ("seed", -1, "--seed is -1; expected a whole number from 0 up"),
        ("stop", ("",), "--stop is an empty string; expected text to stop at: leave it out"),
    ],
)
def test_senseless_parameters_are_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(UserError) as error:
        SamplingParams(**{field: value})  # type: ignore[arg-type]
    assert str(error.value) == message

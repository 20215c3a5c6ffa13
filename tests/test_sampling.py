"""Sampling: each filter against its definition, and the distribution that results."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from fractions import Fraction
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.engine import sampling
from pipelines.engine.sampling import (
    LLAMA_ORDER,
    VLLM_ORDER,
    Candidates,
    NothingToDraw,
    SamplingParams,
    Undecided,
    biased,
    log_softmax,
    penalized,
    sample,
    top_k_ids,
)
from weights.errors import UserError

LOGITS = np.log(np.array([0.1, 0.4, 0.05, 0.3, 0.15], np.float32))  # probabilities, shuffled


def kept(**params: float) -> list[int]:
    found = Candidates.highest(LOGITS, len(LOGITS))
    found.filter(SamplingParams(**({"top_k": 5} | params)))  # type: ignore[arg-type]
    return found.ids.tolist()


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


def test_a_top_k_of_all_tokens_looks_at_no_more_of_them_than_none() -> None:
    for top_k in (0, len(LOGITS), 1 << 30):
        found = Candidates.highest(LOGITS, 2)
        found.filter(SamplingParams(top_k=top_k))
        assert (found.ids.tolist(), found.whole) == ([1, 3], False)
    with pytest.raises(Undecided):
        Candidates.highest(LOGITS, 2).filter(SamplingParams(top_k=len(LOGITS) - 1))


def test_the_order_of_the_filters_is_data() -> None:
    # At temperature 0.5 the probabilities are squared: 0.4^2 / sum of squares = 0.56.
    assert kept(temperature=0.5, top_p=0.55) == [1]
    assert kept(temperature=2.0, top_p=0.55) == [1, 3]
    # llama.cpp puts temperature last: top-p sees the probabilities as they are.
    assert kept(temperature=0.5, top_p=0.55, order=LLAMA_ORDER) == [1, 3]
    # Top-p after top-k sees what top-k has left: 0.4 / 0.7 = 0.57; before it, all of it.
    assert kept(top_k=2, top_p=0.55) == [1]
    assert kept(top_k=2, top_p=0.55, order=("top_p", "top_k")) == [1, 3]
    assert kept(top_k=1, order=("temperature",)) == [1, 3, 4, 0, 2]
    # Min-p leaves 0.4 and 0.3, of which the first has 0.57; without it, 0.4.
    assert kept(min_p=0.5, top_p=0.55) == [1]
    assert kept(min_p=0.5, top_p=0.55, order=LLAMA_ORDER) == [1, 3]


@pytest.mark.parametrize(
    ("order", "options", "expected"),
    [
        (("penalties", "top_k"), {"top_k": 2}, [1, 2]),
        (("top_k", "penalties"), {"top_k": 2}, [1, 0]),
        (("penalties", "top_k"), {"top_k": 1}, [1]),
        (("top_k", "penalties"), {"top_k": 1}, [0]),
        (("temperature", "penalties"), {"temperature": 0}, [0]),
        (("top_k", "penalties", "temperature"), {"top_k": 2, "temperature": 0}, [1]),
        (("top_p", "penalties", "top_k"), {"top_p": 0.9, "top_k": 3}, [1, 0]),
        (("penalties", "temperature"), {"temperature": 0.5, "presence_penalty": 0.15}, [1, 0, 2, 3]),
        (("temperature", "penalties"), {"temperature": 0.5, "presence_penalty": 0.15}, [0, 1, 2, 3]),
        (("temperature", "penalties"), {"temperature": 0.5, "repetition_penalty": 2.0}, [1, 0, 2, 3]),
    ],
)
def test_penalties_have_their_place_in_the_order(
    order: tuple[str, ...], options: dict[str, float], expected: list[int]
) -> None:
    """As in llama.cpp: what other filters have left is penalized where they come before."""
    logits = np.array([3.0, 2.9, 1.0, -1.0] + [-50.0] * 200, np.float32)
    penalty = {} if "repetition_penalty" in options else {"presence_penalty": 5.0}
    params = SamplingParams(order=order, **({"top_k": 0} | penalty | options))  # type: ignore[arg-type]
    drawn = {sample(logits, params, [0], [0], np.random.default_rng(seed)) for seed in range(100)}
    assert drawn == {expected[0]} if params.greedy else drawn <= set(expected)
    found = Candidates.highest(logits if order[0] != "penalties" else penalized(logits, params, [0], [0]), len(logits))
    found.filter(params, ([0], [0]))
    assert found.ids[: len(expected)].tolist() == expected


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits() -> None:
    logits = np.array([2.0, -2.0, 1.0], np.float32)
    assert penalized(logits, SamplingParams(repetition_penalty=2.0), [0, 1], [1]).tolist() == [1.0, -4.0, 1.0]
    assert logits.tolist() == [2.0, -2.0, 1.0]


def test_penalties_count_the_ids_that_they_should() -> None:
    logits = np.zeros(4, np.float32)
    both = SamplingParams(presence_penalty=0.5, frequency_penalty=0.25)
    assert penalized(logits, both, [0, 0], [1, 1, 2]).tolist() == [0, -1.0, -0.75, 0]  # OpenAI's: what was generated
    prompt_too = replace(both, penalize_prompt=True)  # llama.cpp's
    assert penalized(logits, prompt_too, [0, 0], [1, 1, 2]).tolist() == [-1.0, -1.0, -0.75, 0]
    window = replace(prompt_too, penalty_last_n=2)
    assert penalized(logits, window, [0, 0], [1, 1, 2]).tolist() == [0, -0.75, -0.75, 0]
    ones = np.ones(4, np.float32)
    repeated = SamplingParams(repetition_penalty=2.0, penalty_last_n=2)
    assert penalized(ones, repeated, [3, 0], [1]).tolist() == [0.5, 0.5, 1, 1]
    assert not replace(repeated, penalty_last_n=0).penalizes


def test_the_repetition_penalty_counts_the_prompt() -> None:
    params = SamplingParams(repetition_penalty=10.0)
    assert sample(np.array([3.0, 2.9], np.float32), params, [0], [], np.random.default_rng()) == 1


def test_a_bias_moves_and_bans() -> None:
    generator = np.random.default_rng(0)
    assert sample(LOGITS, SamplingParams(logit_bias=((2, 100.0),)), [], [], generator) == 2
    assert sample(LOGITS, SamplingParams(logit_bias=((1, -math.inf),)), [], [], generator) == 3
    drawn = SamplingParams(top_k=0, logit_bias=tuple((i, -math.inf) for i in (0, 1, 2, 3)))
    assert {sample(LOGITS, drawn, [], [], generator) for _ in range(20)} == {4}
    with pytest.raises(NothingToDraw, match="logit_bias bans every token"):
        sample(LOGITS, SamplingParams(logit_bias=tuple((i, -math.inf) for i in range(5))), [], [], generator)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("params", [{"top_k": 1}, {"top_k": 40}, {"top_k": 0, "min_p": 0.1}])
def test_logits_that_are_no_numbers_are_an_error(bad: float, params: dict[str, float]) -> None:
    logits = LOGITS.copy()
    logits[3] = bad
    with pytest.raises(NothingToDraw, match="expected a finite number"):
        sample(logits, SamplingParams(**params), [], [], np.random.default_rng())  # type: ignore[arg-type]


def positive(most: float) -> st.SearchStrategy[float]:
    """Numbers from the smallest up to `most`, the extremes often."""
    ends = [5e-324, 1e-300, 1e-40, 1e-30, 9e-6, 1e-5, 1e-3, 1.0]
    return st.sampled_from([*(end for end in ends if end <= most), most]) | st.floats(5e-324, most)


extreme_logits = st.sampled_from([0.0, 1.0, -1.0, 3e38, -3e38, 1e-45])
any_logit = extreme_logits | st.floats(width=32, allow_nan=False, allow_infinity=False)
any_params = st.fixed_dictionaries(
    {
        "temperature": st.just(0.0) | positive(1e300),
        "top_k": st.sampled_from([-1, 0, 1, 2, 40, 2**31 - 1]),
        "top_p": positive(1.0),
        "min_p": st.just(0.0) | positive(1.0),
        "repetition_penalty": positive(1e300),
        "presence_penalty": st.sampled_from([0.0, 2.0, -2.0, sys.float_info.max, -1e300]),
        "frequency_penalty": st.sampled_from([0.0, 2.0, -2.0, sys.float_info.max, -sys.float_info.max]),
        "penalty_last_n": st.sampled_from([-1, 0, 1, 64]),
        "penalize_prompt": st.booleans(),
        "logit_bias": st.sampled_from([(), ((0, 100.0),), ((0, -math.inf),), ((1, 1e300), (0, -1e300))]),
        "order": st.permutations(VLLM_ORDER).flatmap(lambda o: st.integers(0, 5).map(lambda n: tuple(o[:n]))),
    }
)


@settings(max_examples=400, deadline=None)
@given(st.lists(any_logit, min_size=2, max_size=12), any_params, st.integers(0, 9), st.data())
def test_any_accepted_options_draw_a_token_from_any_finite_logits(
    values: list[float], options: dict[str, object], seed: int, data: st.DataObject
) -> None:
    logits = np.array(values, np.float32)
    params = SamplingParams(**options)  # type: ignore[arg-type]
    ids = st.lists(st.integers(0, len(values) - 1), max_size=6)
    prompt, generated = data.draw(ids), data.draw(ids)
    with np.errstate(all="raise", under="ignore"):
        token = sample(logits, params, prompt, generated, np.random.default_rng(seed))
    assert 0 <= token < len(values)
    assert (token, -math.inf) not in params.logit_bias
    if params.greedy and not (params.penalizes and params.order.index("penalties")):
        expected = biased(logits, params.logit_bias) if params.logit_bias else logits
        expected = penalized(expected, params, prompt, generated) if params.penalizes else expected
        assert not np.isnan(expected).any()
        assert token == int(np.argmax(expected))


@pytest.mark.parametrize("temperature", [0.0, 1e-40, 9.9e-6])
def test_a_temperature_near_zero_is_greedy(temperature: float) -> None:
    for order in (VLLM_ORDER, LLAMA_ORDER):
        params = SamplingParams(top_k=0, temperature=temperature, min_p=0.05, order=order)
        assert sample(LOGITS, params, [], [], np.random.default_rng()) == 1


def test_greedy_needs_no_randomness() -> None:
    for params in (SamplingParams(top_k=1), SamplingParams(top_k=50, temperature=0)):
        assert sample(LOGITS, params, (), (), np.random.default_rng()) == 1


def test_draws_follow_the_probabilities() -> None:
    generator = np.random.default_rng(1)
    params = SamplingParams(top_k=3)
    draws = [sample(LOGITS, params, (), (), generator) for _ in range(20_000)]
    share = np.bincount(draws, minlength=5) / len(draws)
    expected = np.array([0, 0.4, 0, 0.3, 0.15]) / 0.85
    np.testing.assert_allclose(share, expected, atol=0.012)


def test_the_seed_fixes_the_draws() -> None:
    params = SamplingParams(top_k=5)
    first, second = (
        [sample(LOGITS, params, (), (), g) for _ in range(50)]
        for g in (np.random.default_rng(3), np.random.default_rng(3))
    )
    assert first == second


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.1, 1.0, 3.0]), any_params)
def test_what_is_looked_at_first_changes_no_draw(seed: int, spread: float, options: dict[str, object]) -> None:
    """Most draws of the widest spread are within 128 ids, of the least beyond 4 096."""
    source = np.random.default_rng(seed)
    logits = source.standard_normal(9000).astype(np.float32) * np.float32(spread)
    logits[source.integers(0, 9000, 3000)] = source.choice([-np.inf, 0.5, 1.0])  # banned ones, or ties
    params = SamplingParams(**options)  # type: ignore[arg-type]
    drawn = []
    for heads in (sampling.HEADS, ()):
        with mock.patch.object(sampling, "HEADS", heads):
            drawn.append([sample(logits, params, [5, 6], [7], np.random.default_rng(i)) for i in range(5)])
    assert drawn[0] == drawn[1]


def test_draws_of_a_large_vocabulary_follow_the_probabilities() -> None:
    """To its least probable ids: 0 to 8 191 have half of it, the other half is that of 8 192 alone."""
    logits = np.zeros(8193, np.float32)
    logits[8192] = math.log(8192)
    generator, params = np.random.default_rng(1), SamplingParams(top_k=0)
    draws = np.array([sample(logits, params, (), (), generator) for _ in range(4000)])
    assert np.mean(draws == 8192) == pytest.approx(0.5, abs=0.03)
    rest = draws[draws != 8192]
    assert rest.mean() == pytest.approx(4096, abs=250)
    assert rest.max() > 8000


def test_log_softmax_survives_large_logits() -> None:
    np.testing.assert_allclose(log_softmax(np.array([[1e4, 1e4]], np.float32)), np.log([[0.5, 0.5]]), atol=1e-6)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("top_k", -2, "--top-k is -2; expected a whole number from -1 up"),
        ("presence_penalty", float("nan"), "--presence-penalty is nan; expected a finite number"),
        ("logit_bias", ((1, float("inf")),), "--logit-bias is inf; expected a finite number"),
        ("temperature", -0.1, "--temperature is -0.1; expected a number from 0"),
        ("temperature", float("nan"), "--temperature is nan; expected a number from 0"),
        ("temperature", float("inf"), "--temperature is inf; expected a number from 0"),
        ("top_p", 0.0, "--top-p is 0.0; expected a number above 0 to 1"),
        ("min_p", 1.5, "--min-p is 1.5; expected a number from 0 to 1"),
        ("frequency_penalty", Fraction(1, 3), "--frequency-penalty is Fraction(1, 3); expected a finite number"),
        ("temperature", np.float32("inf"), "--temperature is np.float32(inf); expected a number from 0"),
        ("temperature", 10**400, f"--temperature is 1{17 * '0'}...{19 * '0'}; expected a number from 0"),
        ("order", ("top_k", ["p"]), "the filter ['p'] is unknown; expected some of " + ", ".join(VLLM_ORDER)),
        ("order", None, "the order of the filters is None; expected a list of some of " + ", ".join(VLLM_ORDER)),
        ("order", "top_k", "the order of the filters is 'top_k'; expected a list of some of " + ", ".join(VLLM_ORDER)),
        ("ignore_eos", "false", "--ignore-eos is 'false'; expected True or False"),
        ("strip", 0, "--strip is 0; expected True or False"),
        ("repetition_penalty", 0.0, "--repetition-penalty is 0.0; expected a number above 0"),
        ("max_new_tokens", -2, "--max-new-tokens is -2; expected a whole number from -1 up"),
        ("seed", -1, "--seed is -1; expected a whole number from 0 up"),
        ("stop", ("",), "--stop is an empty string; expected text to stop at: leave it out"),
        ("stop", ("a\udcff",), "--stop holds bytes that are no UTF-8, or half a surrogate pair; expected text"),
    ],
)
def test_senseless_parameters_are_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(UserError) as error:
        SamplingParams(**{field: value})  # type: ignore[arg-type]
    assert str(error.value) == message

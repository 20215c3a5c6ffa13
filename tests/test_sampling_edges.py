"""Sampling where parameters meet: orders that leave a filter out, penalties with bans, what a GPU hands back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from test_healing import Words

from pipelines.engine.sampling import (
    Candidates,
    NothingToDraw,
    SamplingParams,
    logits_needed,
    only,
    penalized,
    sample,
    top_k_ids,
)
from pipelines.engine.sequence import Sequence, SequenceRequest
from replit.gpu.top_logits import MOST, TopLogits
from weights.errors import UserError


def floats(*values: float) -> Any:
    return np.array(values, np.float32)


def test_a_filter_that_the_order_leaves_out_is_off() -> None:
    assert not SamplingParams(top_k=1, order=("temperature",)).greedy
    assert not SamplingParams(top_k=0, temperature=0, order=("top_k",)).greedy
    assert SamplingParams(top_k=0, temperature=9.9e-6).greedy
    assert not SamplingParams(top_k=0, temperature=1e-5).greedy
    assert not SamplingParams(presence_penalty=1.0, order=("top_k",)).penalizes
    for penalty in ({"presence_penalty": -1.0}, {"frequency_penalty": -1.0}, {"repetition_penalty": 0.5}):
        assert SamplingParams(**penalty).penalizes  # type: ignore[arg-type]
    with pytest.raises(UserError, match="the filter 'mirostat' is unknown; expected some of penalties, temperature"):
        SamplingParams(order=("top_k", "mirostat"))


@pytest.mark.parametrize(
    ("options", "name"),
    [({"top_k": True}, "top-k"), ({"temperature": True}, "temperature"), ({"logit_bias": ((-1, 1.0),)}, "logit-bias")],
)
def test_what_is_no_number_or_no_id_is_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(UserError, match=f"--{name} is"):
        SamplingParams(**options)


def test_penalties_windows_and_bans() -> None:
    newest = SamplingParams(presence_penalty=0.5, penalty_last_n=1)
    assert penalized(floats(0, 0, 0), newest, [0], [1, 2]).tolist() == [0, 0, -0.5]
    for repetition, frequency, logit in ((5e-324, 1e308, 3.0), (1e308, -1e308, -3e38)):
        endless = SamplingParams(repetition_penalty=repetition, frequency_penalty=frequency)
        assert np.isfinite(penalized(floats(logit, 0), endless, [], [0, 0])).all()  # less infinity, infinity is NaN
    generator = np.random.default_rng(0)
    banned = SamplingParams(logit_bias=((0, -math.inf), (2, 5.0)), presence_penalty=1e300)
    assert sample(floats(0, 0), banned, [], [1], generator) == 1  # as improbable as can be, and not banned; 2 is no id
    with pytest.raises(NothingToDraw, match="banned"):
        only(floats(-math.inf, 0), np.array([0], np.int64))


def test_equal_logits_keep_the_order_of_their_ids() -> None:
    equal = np.zeros(1000, np.float32)
    assert top_k_ids(equal, 5).tolist() == [0, 1, 2, 3, 4]
    two = np.tile(floats(0, 1), 500)
    assert top_k_ids(two, 0).tolist() == [*range(1, 1000, 2), *range(0, 1000, 2)]
    kept = Candidates.highest(floats(1, 1, 0), 3)
    kept.filter(SamplingParams(top_k=0, min_p=1.0))
    assert kept.ids.tolist() == [0, 1]


def test_how_many_logits_decide() -> None:
    assert logits_needed(SamplingParams()) == 1
    assert logits_needed(SamplingParams(logit_bias=((1, 1.0),))) == 0
    assert logits_needed(SamplingParams(presence_penalty=1.0)) == 0
    assert [logits_needed(SamplingParams(top_k=k)) for k in (0, 2, MOST, MOST + 1)] == [0, 2, MOST, 0]
    assert logits_needed(SamplingParams(top_k=40, order=("top_p", "top_k"))) == 0


def test_the_highest_logits_are_enough() -> None:
    logits = np.random.default_rng(1).normal(size=300).astype(np.float32)
    params = SamplingParams(top_k=20, temperature=1.3, top_p=0.9, min_p=0.02)
    ids = top_k_ids(logits, 20)
    top = TopLogits(ids, logits[ids])
    for seed in range(30):
        few, every = (sample(given, params, [], [], np.random.default_rng(seed)) for given in (top, logits))
        assert few == every
    with pytest.raises(NothingToDraw, match="expected a finite number"):
        sample(TopLogits(ids, np.full(20, np.nan, np.float32)), params, [], [], np.random.default_rng())


@pytest.mark.parametrize(("wanted", "room", "drawn"), [(-1, 2, "nu"), (1, 50, "num"), (1, 50, "n\u0100")])
def test_spelling_the_prompt_again_takes_no_more_than_there_is_room_for(wanted: int, room: int, drawn: str) -> None:
    """\u0100 is a token that spells the rest and goes on: it counts as new."""
    words = Words()
    words._token_bytes.append(b"ump")
    request = SequenceRequest("x", [65], SamplingParams(max_new_tokens=wanted), (7,), healing=b"nu")
    sequence = Sequence(request, words, 1 + room)
    tokens: list[int] = []
    for token in [words.vocab_size - 1 if char == "\u0100" else ord(char) for char in drawn + "!!"]:
        rows = np.zeros((1, words.vocab_size), np.float32)
        rows[0, token] = 9
        tokens += [found.id for found in sequence.accept(rows)]
        if sequence.end:
            break
    assert len(tokens) == len(drawn)
    assert sequence.end == "length"

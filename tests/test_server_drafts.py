"""The server checks guesses: its text stays the same and its pages suffice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from running_server import RunningServer


@pytest.mark.parametrize("count", [98, 101, 117, 127, 128, 129])
def test_guesses_that_reach_into_the_next_page(server: RunningServer, count: int) -> None:
    """A page of the cache holds 128 positions; guesses past its end have pages of their own. The text is the same."""
    prompt = ([7, 8, 9, 10] * 40)[:count]
    body = {"prompt": prompt, "max_tokens": 60, "temperature": 0, "ignore_eos": True}
    guessed = server.post("/v1/completions", body).json()
    plain = server.post("/v1/completions", body | {"speculative": False}).json()
    assert guessed["usage"]["completion_tokens_details"]["accepted_prediction_tokens"] > 5
    assert guessed["choices"] == plain["choices"]

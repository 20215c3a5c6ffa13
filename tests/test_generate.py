"""The token loop with a decoder whose next token is known: limits, slots, batches, endings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from pipelines.engine.loop import Request, generate
from pipelines.engine.sampling import SamplingParams

EOS = 9


class Counting:
    """The next token is the last one plus one, modulo 10; it remembers what was asked of it."""

    def __init__(self, slots: int = 1, max_length: int = 100) -> None:
        self.slots, self.max_length = slots, max_length
        self.batches: list[list[int]] = []
        self.lengths: dict[int, int] = {}

    def prefill(self, slot: int, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        self.lengths[slot] = len(ids)
        return self._after(ids[-1])

    def decode(self, slots: Sequence[int], ids: Sequence[int]) -> npt.NDArray[np.float32]:
        self.batches.append(list(slots))
        for slot in slots:
            self.lengths[slot] += 1
            assert self.lengths[slot] < self.max_length  # the last token needs no place in the cache
        return np.stack([self._after(token) for token in ids])

    @staticmethod
    def _after(token: int) -> npt.NDArray[np.float32]:
        return np.eye(10, dtype=np.float32)[(token + 1) % 10]


def run(decoder: Counting, prompts: list[list[int]], **params: object) -> list[Request]:
    sampling = SamplingParams(**params)  # type: ignore[arg-type]
    requests = [Request(p, sampling, np.random.default_rng(0), i) for i, p in enumerate(prompts)]
    for request, token in generate(decoder, requests, EOS):
        assert request.ids[-1] == token
    return requests


def test_ends_at_the_end_of_text_token() -> None:
    (request,) = run(Counting(), [[5]])
    assert (request.ids, request.finish_reason) == ([6, 7, 8], "stop")


def test_ignores_the_end_of_text_token_when_asked() -> None:
    (request,) = run(Counting(), [[7]], ignore_eos=True, max_new_tokens=4)
    assert (request.ids, request.finish_reason) == ([8, 9, 0, 1], "length")


@pytest.mark.parametrize(("limit", "count"), [(0, 0), (1, 1), (3, 3), (-1, 7), (50, 7)])
def test_ends_at_the_first_of_both_limits(limit: int, count: int) -> None:
    (request,) = run(Counting(max_length=10), [[0, 0, 0]], max_new_tokens=limit, ignore_eos=True)
    assert (len(request.ids), request.finish_reason) == (count, "length")


def test_a_freed_slot_goes_to_the_next_prompt() -> None:
    decoder = Counting(slots=2)
    requests = run(decoder, [[6], [0], [5], [7]])
    assert [r.ids for r in requests] == [[7, 8], list(range(1, 9)), [6, 7, 8], [8]]
    assert [r.slot for r in requests] == [0, 1, 0, 0]
    assert max(map(len, decoder.batches)) == 2


def test_a_consumer_can_end_a_request() -> None:
    decoder = Counting(slots=2)
    params = SamplingParams(ignore_eos=True, max_new_tokens=6)
    requests = [Request([i], params, np.random.default_rng(0), i) for i in range(2)]
    for request, token in generate(decoder, requests, EOS):
        if request.index == 0 and token == 2:
            request.finish_reason = "stop"
    assert [r.ids for r in requests] == [[1, 2], [2, 3, 4, 5, 6, 7]]
    assert decoder.batches == [[0, 1]] * 1 + [[1]] * 4


def test_samples_depend_on_their_own_generator_only() -> None:
    class Flat(Counting):
        @staticmethod
        def _after(token: int) -> npt.NDArray[np.float32]:
            return np.zeros(10, np.float32)

    def sampled(slots: int, count: int) -> list[list[int]]:
        params = SamplingParams(top_k=10, max_new_tokens=8, ignore_eos=True)
        requests = [Request([1], params, np.random.default_rng([5, i]), i) for i in range(count)]
        list(generate(Flat(slots), requests, EOS))
        return [r.ids for r in requests]

    assert sampled(1, 3) == sampled(3, 3) == sampled(2, 5)[:3]
    assert sampled(1, 2)[0] != sampled(1, 2)[1]

"""The token loop with a model whose next token is known: limits, slots, batches, endings, guesses."""

from __future__ import annotations

from collections.abc import Sequence as Several

import numpy as np
import numpy.typing as npt
import pytest

from pipelines.engine.loop import run as loop
from pipelines.engine.sampling import SamplingParams
from pipelines.engine.sequence import Sequence, SequenceRequest, Token
from pipelines.engine.slots import Slots, common_length
from weights.errors import UserError

EOS = 9


class Vocabulary:
    control_token_ids = frozenset({EOS})


class Counting:
    """The next token is the last one plus one, modulo 10; it holds ids as a cache would and notes its passes."""

    prompt_chunk = 4

    def __init__(self, slots: int = 1, max_length: int = 100) -> None:
        self.slots, self.max_length = slots, max_length
        self.passes: list[tuple[list[int], list[int]]] = []  # slots, and how many ids each
        self.held: list[list[int]] = [[] for _ in range(slots)]

    def truncate(self, slot: int, length: int) -> None:
        assert length <= len(self.held[slot])
        del self.held[slot][length:]

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        assert length <= len(self.held[source])
        self.held[target] = self.held[source][:length]

    def extend(self, slots: Several[int], ids: Several[Several[int]], rows: Several[int]) -> npt.NDArray[np.float32]:
        self.passes.append((list(slots), [len(part) for part in ids]))
        every = []
        for slot, part in zip(slots, ids, strict=True):
            for token in part:
                self.held[slot].append(token)
                every.append(self.after(self.held[slot]))
            assert len(self.held[slot]) <= self.max_length
        return np.stack([every[row] for row in rows])

    def after(self, ids: Several[int]) -> npt.NDArray[np.float32]:
        return np.eye(10, dtype=np.float32)[(ids[-1] + 1) % 10]


def sequences(model: Counting, prompts: list[list[int]], **params: object) -> list[Sequence]:
    sampling = SamplingParams(**params)  # type: ignore[arg-type]
    requests = [SequenceRequest(str(i), prompt, sampling, (0, i)) for i, prompt in enumerate(prompts)]
    return [Sequence(request, Vocabulary(), model.max_length) for request in requests]


def run(model: Counting, prompts: list[list[int]], **params: object) -> list[Sequence]:
    wanted = sequences(model, prompts, **params)
    for sequence, tokens in loop(Slots(model), wanted):
        assert sequence.ids[len(sequence.ids) - len(tokens) :] == [token.id for token in tokens]
    return wanted


def test_ends_at_the_end_of_text_token() -> None:
    (sequence,) = run(Counting(), [[5]])
    assert (sequence.ids, sequence.end) == ([6, 7, 8], "stop")


def test_ignores_the_end_of_text_token_when_asked() -> None:
    (sequence,) = run(Counting(), [[7]], ignore_eos=True, max_new_tokens=4)
    assert (sequence.ids, sequence.end) == ([8, 9, 0, 1], "length")


@pytest.mark.parametrize(("limit", "count"), [(0, 0), (1, 1), (3, 3), (-1, 7), (50, 7)])
def test_ends_at_the_first_of_both_limits(limit: int, count: int) -> None:
    (sequence,) = run(Counting(max_length=10), [[0, 0, 0]], max_new_tokens=limit, ignore_eos=True)
    assert (len(sequence.ids), sequence.end) == (count, "length")


def test_a_freed_slot_goes_to_the_next_prompt() -> None:
    model = Counting(slots=2)
    found = run(model, [[6], [0], [5], [7]])
    assert [s.ids for s in found] == [[7, 8], list(range(1, 9)), [6, 7, 8], [8]]
    assert max(len(slots) for slots, _ in model.passes) == 2


def test_a_consumer_can_end_a_sequence() -> None:
    model = Counting(slots=2)
    wanted = sequences(model, [[0], [1]], ignore_eos=True, max_new_tokens=6)
    for sequence, tokens in loop(Slots(model), wanted):
        if sequence is wanted[0] and tokens[-1].id == 2:
            sequence.stop()
    assert [s.ids for s in wanted] == [[1, 2], [2, 3, 4, 5, 6, 7]]


def test_samples_depend_on_their_own_seed_only() -> None:
    class Flat(Counting):
        def after(self, ids: Several[int]) -> npt.NDArray[np.float32]:
            return np.zeros(10, np.float32)

    def sampled(slots: int, count: int) -> list[list[int]]:
        return [s.ids for s in run(Flat(slots), [[1]] * count, top_k=10, max_new_tokens=8, ignore_eos=True)]

    assert sampled(1, 3) == sampled(3, 3) == sampled(2, 5)[:3]
    assert sampled(1, 2)[0] != sampled(1, 2)[1]


def read(model: Counting) -> int:
    """Ids that passes with more than one id of a sequence, or with a first one, took."""
    return sum(sum(counts) for _, counts in model.passes)


def test_samples_of_one_prompt_read_it_once() -> None:
    model = Counting(slots=3)
    model.prompt_chunk = 20
    run(model, [[1, 2, 3, 4, 5] * 3] * 3, max_new_tokens=1)
    assert read(model) == 15 + 1 + 1
    assert model.passes[-1][1] == [1, 1]  # the others' last id, together


def test_prompts_are_read_together_and_beside_what_runs() -> None:
    model = Counting(slots=3)
    found = run(model, [[6, 7, 8, 1], [2, 3], [1] * 9], max_new_tokens=3, ignore_eos=True)
    assert [s.ids for s in found] == [[2, 3, 4], [4, 5, 6], [2, 3, 4]]
    counts = [dict(zip(slots, counts, strict=True)) for slots, counts in model.passes]
    assert counts == [{0: 4}, {0: 1, 1: 2, 2: 1}, {0: 1, 1: 1, 2: 2}, {1: 1, 2: 3}, {2: 3}, {2: 1}, {2: 1}]


def test_prompts_have_their_turn_where_others_fill_the_pass() -> None:
    model = Counting(slots=6)
    found = run(model, [[n] for n in range(4)] + [[5, 6, 7, 8, 0, 1]], max_new_tokens=2, ignore_eos=True)
    assert [s.ids for s in found] == [[1, 2], [2, 3], [3, 4], [4, 5], [2, 3]]
    assert [counts for _, counts in model.passes] == [[1, 1, 1, 1], [4], [2], [1, 1, 1, 1, 1]]


def test_log_probabilities_of_a_prompt_read_all_of_it_again() -> None:
    model = Counting(slots=2)
    slots = Slots(model)
    prompt = [1, 2, 3, 4, 5, 6]
    list(loop(slots, sequences(model, [prompt], max_new_tokens=1)))
    model.passes.clear()
    params = SamplingParams(max_new_tokens=1)
    wanted = [Sequence(SequenceRequest("s", prompt, params, (0,), prompt_logprobs=True), Vocabulary(), 100)]
    list(loop(slots, wanted))
    assert read(model) == 6
    assert [scored.token for scored in wanted[0].prompt_logprobs[1:] if scored] == prompt[1:]


def test_a_sequence_that_is_stopped_while_its_prompt_is_read_frees_its_slot() -> None:
    model = Counting(slots=2)
    wanted = sequences(model, [[1], [1] * 30, [3]], max_new_tokens=2, ignore_eos=True)
    for sequence, _ in loop(Slots(model), wanted):
        if sequence is wanted[0]:
            wanted[1].stop()
    assert [s.ids for s in wanted] == [[2, 3], [], [4, 5]]
    assert read(model) < 20


def test_what_was_read_before_is_not_read_again() -> None:
    model = Counting(slots=2)
    slots = Slots(model)
    for prompt, fresh in [([1, 2, 3, 4], 4), ([1, 2, 3, 4, 5], 1), ([1, 2, 7], 1), ([8, 8], 2), ([1, 2, 3], 1)]:
        model.passes.clear()
        list(loop(slots, sequences(model, [prompt], max_new_tokens=1)))
        assert read(model) == fresh, prompt


def test_open_streams_do_not_mix_and_a_missing_slot_is_said() -> None:
    model = Counting(slots=2)
    slots = Slots(model)
    first, second = (loop(slots, sequences(model, [[start]], max_new_tokens=3)) for start in (1, 5))
    turns = [[token.id for _, tokens in (next(first), next(second)) for token in tokens] for _ in range(2)]
    assert turns == [[2, 6], [3, 7]]
    with pytest.raises(UserError, match="all 2 sequences of this model are in use by streams that are still open"):
        list(loop(slots, sequences(model, [[3]])))
    first.close()  # frees its slot
    assert [token.id for _, tokens in loop(slots, sequences(model, [[3]], max_new_tokens=1)) for token in tokens] == [4]
    assert [token.id for _, tokens in second for token in tokens] == [8]


class Guessing:
    def passed(self, rows: int, seconds: float) -> None:
        pass

    def ended(self, sequence: Sequence) -> None:
        pass

    """Guesses right up to a number, then wrong."""

    def __init__(self, right: int) -> None:
        self.right = right
        self.told: list[tuple[int, int]] = []

    def guess(self, wanted: Several[Sequence]) -> list[list[int]]:
        return [[(s.ids[-1] + 1 + i) % 10 for i in range(self.right)] + [0] for s in wanted]

    def accepted(self, sequence: Sequence, guessed: int, accepted: int) -> None:
        self.told.append((guessed, accepted))


@pytest.mark.parametrize("right", [0, 1, 3])
def test_guesses_change_nothing_but_the_number_of_passes(right: int) -> None:
    plain, model, drafter = Counting(), Counting(), Guessing(right)
    expected = run(plain, [[1]], max_new_tokens=6)[0]
    wanted = sequences(model, [[1]], max_new_tokens=6)
    tokens = [token.id for _, found in loop(Slots(model), wanted, drafter) for token in found]
    assert tokens == expected.ids == [2, 3, 4, 5, 6, 7]
    assert wanted[0].end == "length"
    assert drafter.told[0] == (right + 1, right)
    assert len(model.passes) == 1 + -(-5 // (right + 1))
    assert model.held[0] == [1, 2, 3, 4, 5, 6]


def test_logits_that_are_no_numbers_end_their_own_sequence() -> None:
    class Broken(Counting):
        def after(self, ids: Several[int]) -> npt.NDArray[np.float32]:
            row = super().after(ids)
            return np.full_like(row, np.nan) if ids[0] == 4 and len(ids) == 3 else row

    wanted = run(Broken(slots=2), [[4], [0]], max_new_tokens=6)
    assert (wanted[0].end, wanted[0].ids) == ("failed", [5, 6])
    assert wanted[0].error is not None
    assert wanted[0].error.startswith("after 3 tokens, the highest logit is nan; expected a finite number: the model's")
    assert (wanted[1].end, wanted[1].ids) == ("length", [1, 2, 3, 4, 5, 6])


def test_a_prompt_that_is_only_scored_fails_where_its_logits_are_no_numbers() -> None:
    class Broken(Counting):
        def after(self, ids: Several[int]) -> npt.NDArray[np.float32]:
            row = super().after(ids)
            return np.full_like(row, np.nan) if ids[-1] == 5 else row

    slots, params = Slots(Broken(slots=2)), SamplingParams(max_new_tokens=0)
    ends = {}
    for name, prompt in (("b", [4, 5, 6, 7, 8, 0, 1]), ("g", [3, 4, 5])):  # of the last id's logits nothing is told
        request = SequenceRequest(name, prompt, params, (0,), prompt_logprobs=True, top_logprobs=1)
        for sequence, _ in loop(slots, [Sequence(request, Vocabulary(), 100)]):
            ends[name] = sequence.end, sequence.error
    message = "the log-probability of token 2 of the prompt is nan; expected a finite number: the model's weights are "
    assert ends["b"] == ("failed", f"after 7 tokens, {message}damaged or too large")
    assert ends["g"] == ("length", None)


def test_any_fault_ends_its_own_sequence(capsys: pytest.CaptureFixture[str]) -> None:
    class Faulty(Sequence):
        def _next(self, logits: object) -> Token | None:
            raise IndexError("a bug")

    model = Counting(slots=2)
    wanted = sequences(model, [[0], [1]], max_new_tokens=3)
    wanted[0] = Faulty(wanted[0].request, Vocabulary(), model.max_length)
    list(loop(Slots(model), wanted))
    assert (wanted[0].end, wanted[0].error) == ("failed", "an internal error after 1 tokens; see the log")
    assert wanted[1].ids == [2, 3, 4]
    assert "IndexError: a bug" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("first", "second", "length"), [([], [1], 0), ([1, 2], [1, 2], 2), ([1, 2, 3], [1, 2, 4], 2), ([2], [1, 2], 0)]
)
def test_common_length(first: list[int], second: list[int], length: int) -> None:
    assert common_length(first, second) == common_length(second, first) == length
    assert common_length([7] * 1000 + first, [7] * 1000 + second) == 1000 + length

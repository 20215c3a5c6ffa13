"""What is guessed for whom, with a small model that says what it is told to: no pass of a model runs here."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_text_stream import Bytes, with_control

from pipelines.engine.draft_model import WINDOW, DraftModel, same_vocabulary
from pipelines.engine.drafter import MOST_ROWS, Drafter
from pipelines.engine.guess_value import Expectation
from pipelines.engine.ngram import Histories, History, NgramIndex
from pipelines.engine.pass_costs import PassCosts
from pipelines.engine.sampling import SamplingParams
from pipelines.engine.sequence import ALONE, SequenceRequest
from pipelines.engine.sequence import Sequence as EngineSequence
from weights.tokenizers.tokenizer import Tokenizer

ROWS = 200  # ids of the small model


class Successor:
    """A model after whose every id the next higher one follows, with a probability of a half."""

    slots, max_length, prompt_chunk = 2, 1024, 300
    config = SimpleNamespace(vocab_size=ROWS)

    def __init__(self) -> None:
        self.held: list[list[int]] = [[] for _ in range(self.slots)]
        self.read: list[int] = []  # ids of each pass

    def truncate(self, slot: int, length: int) -> None:
        assert length <= len(self.held[slot])
        del self.held[slot][length:]

    def extend(self, slots: Sequence[int], ids: Sequence[Sequence[int]], rows: Sequence[int]) -> Any:
        ((slot,), (part,), (row,)) = slots, ids, rows
        assert 0 < len(part) <= self.prompt_chunk
        assert max(part) < ROWS
        self.held[slot] += part
        assert len(self.held[slot]) <= self.max_length
        self.read.append(len(part))
        logits = np.zeros((1, ROWS), np.float32)
        logits[0, (part[row] + 1) % ROWS] = np.log(ROWS - 1)
        return logits


class Controlled(Bytes):
    """Bytes, of which 100 is a control token."""

    def __init__(self) -> None:
        Tokenizer.__init__(self, [bytes([i]) * (i != 100) for i in range(256)], {100: "<end>"}, Bytes().special)


def sequence(prompt: list[int], name: str = "a", **more: Any) -> EngineSequence:
    request = SequenceRequest(name, prompt, SamplingParams(max_new_tokens=more.pop("wanted", 50)), (0,), **more)
    return EngineSequence(request, Bytes(), 2048)


def draft() -> tuple[DraftModel, Successor]:
    model: Any = Successor()
    return DraftModel(model, Controlled(), Controlled()), model


def always(_: float) -> bool:
    return True


def test_the_small_model_goes_on_from_what_it_has_read() -> None:
    small, model = draft()
    text = sequence([5, 6, 7])
    guessed, sure = small.guess(text, 4, always)
    assert guessed == [8, 9, 10, 11]
    assert sure == pytest.approx([1 / 2, 1 / 4, 1 / 8, 1 / 16])
    assert model.read == [3, 1, 1, 1]  # the last guess is not read: nothing is looked for after it
    text.ids += [8, 9, 50]
    assert small.guess(text, 1, always)[0] == [51]
    assert (model.read[4:], model.held[0]) == ([1], [5, 6, 7, 8, 9, 50])  # what was guessed wrong is cut off
    assert small.guess(text, 1, always)[0] == [51]  # nothing new: the last id runs again
    assert small.guess(text, 3, lambda probability: probability > 0.2)[0] == [51, 52]
    text.ids += [97]
    assert small.guess(text, 9, always)[0] == [98, 99]  # a control token is not guessed
    text.ids += [98, 99]
    asked: list[float] = []
    assert small.guess(text, 9, lambda probability: not asked.append(probability)) == ([], [])
    assert asked == pytest.approx([1 / 2])  # but the pass that found it counts as a try, else nothing would be learned
    text.ids += [ROWS]
    assert small.guess(text, 9, always) == ([], [])  # the small model has no row for it
    text.ids += [11]
    assert small.guess(text, 1, always)[0] == [12]
    assert model.held[0] == [11]


def test_places_of_the_small_model_are_given_back() -> None:
    small, model = draft()
    first, second, third = (sequence([20 * number, 1, 2, 3], str(number)) for number in range(3))
    assert all(small.guess(text, 1, always)[0] for text in (first, second))
    assert small.guess(third, 1, always) == ([], [])
    small.forget(third)
    small.forget(second)
    small.forget(second)
    assert small.guess(third, 1, always)[0] == [4]
    small.forget(first)
    small.forget(third)
    model.read.clear()
    small.guess(sequence([40, 1, 2, 3, 4], "third again"), 1, always)
    assert model.read == [1]  # in the place that holds the most of it


def test_of_a_long_text_the_end_is_read() -> None:
    small, model = draft()
    ids = [number % 90 for number in range(700)]
    text = sequence(ids)
    assert small.guess(text, 1, always)[0] == [(ids[-1] + 1) % 90]
    assert model.read == [300, 212]
    assert model.held[0] == ids[-WINDOW:]
    text.ids += [number % 90 for number in range(700, 1200)]
    small.guess(text, 1, always)  # all of it is more than the small model may hold: the window moves on
    assert model.held[0] == [number % 90 for number in range(1200 - WINDOW, 1200)]


def drafter(seconds: float = 1.0, **more: Any) -> Drafter:
    """One that knows what a pass takes, and that rows cost nothing."""
    found = Drafter(**more)
    for rows in range(1, 40):
        found._value.costs.observe(rows, seconds)
    found._value.restart(1)
    return found


REPEATED = [1, 2, 3, 4, 5, 6, 7, 8, 9] * 3


def test_text_that_repeats_itself_is_guessed_as_far_as_it_may_go_on() -> None:
    assert Drafter().guess([sequence(REPEATED)]) == [[]]  # before a pass has told what passes cost
    assert drafter().guess([sequence(REPEATED)]) == [REPEATED[:9]]
    assert drafter().guess([sequence(REPEATED, wanted=4)]) == [[1, 2, 3]]  # and the pass brings one of its own
    assert drafter().guess([sequence(REPEATED, wanted=1)]) == [[]]
    assert drafter().guess([sequence(REPEATED, speculative=False), sequence(REPEATED, "b")]) == [
        [],
        [1, 2, 3, 4, 5, 6, 7],
    ]
    assert drafter(ngrams=False).guess([sequence(REPEATED)]) == [[]]
    many = [sequence(REPEATED, str(number)) for number in range(MOST_ROWS)]
    assert drafter().guess(many) == [[]] * MOST_ROWS
    rows = sum(map(len, drafter().guess(many[:5]))) + 5
    assert 5 < rows <= MOST_ROWS


def test_what_is_generated_counts_too_and_what_came_of_guesses() -> None:
    guesses, text = drafter(), sequence([30, 31, 32, 33, 34, 35])
    assert guesses.guess([text]) == [[]]
    text.ids += [30, 31, 32]
    assert guesses.guess([text]) == [[33, 34, 35, 30, 31, 32]]
    guesses.accepted(text, 6, 2)
    text.ids += [33, 34, 40]
    assert (guesses.guessed, guesses.right, text.drafted, text.drafted_right) == (6, 2, 6, 2)
    text.ids += [30, 31, 32]
    assert guesses.guess([text])[0][:1] == [33]


def told(guesses: Drafter, salt: str | None) -> list[int]:
    """What is guessed after the beginning of a text that was generated before."""
    asked = sequence([70, 71, 72], "asked", cache_salt=salt)
    (found,) = guesses.guess([asked])
    guesses._drafts.pop("asked")
    return found


def test_what_was_generated_is_told_to_those_who_share_and_to_no_others() -> None:
    for salt, shared in ((None, [None]), ("one", ["one"]), (ALONE + "x", [])):
        guesses = drafter()
        text = sequence([60, 70, 71, 72], cache_salt=salt)
        guesses.guess([text])
        text.ids += [73, 74]
        guesses.ended(text)
        guesses.ended(text)  # a second time changes nothing
        assert not guesses._drafts
        for number in range(20):  # those who are alone take nobody's place
            alone = sequence([1], "alone", cache_salt=f"{ALONE}{number}")
            guesses.guess([alone])
            guesses.ended(alone)
        for other in (None, "one", "two", ALONE + "x", ALONE + "y"):
            assert told(guesses, other) == ([73, 74] if other in shared else []), (salt, other)


class Told:
    """In the place of a small model: says what it is told, and how sure it is."""

    def __init__(self, sure: list[float]) -> None:
        self.sure, self.asked, self.forgotten = sure, 0, 0
        self.worth: set[bool] = set()

    def guess(self, _: EngineSequence, most: int, worth: Any) -> tuple[list[int], list[float]]:
        self.asked += 1
        sure = [share for share in self.sure[:most] if worth(share) or self.worth.add(False)]  # type: ignore[func-returns-value]
        return [9] * len(sure), sure

    def forget(self, _: EngineSequence) -> None:
        self.forgotten += 1


def test_a_small_model_is_asked_where_text_tells_less() -> None:
    small: Any = Told([0.9, 0.8, 0.7])
    guesses, text = drafter(small=small), sequence([40, 41, 42])
    assert guesses.guess([text]) == [[9, 9, 9]]
    guesses.accepted(text, 3, 3)
    repeated = sequence(REPEATED, "b")
    assert guesses.guess([repeated]) == [REPEATED[:9]]  # which is worth more
    assert small.asked == 1
    guesses.ended(text)
    assert small.forgotten == 1


def test_a_small_model_that_is_wrong_is_asked_more_and_more_rarely() -> None:
    small: Any = Told([0.9, 0.8, 0.7])
    guesses, text = dear(drafter(small=small), 0.1), sequence([40, 41, 42], wanted=500)
    for number in range(100):
        (found,) = guesses.guess([text])
        guesses.passed(1 + len(found), 1.0)
        if found:
            guesses.accepted(text, len(found), 0)
        text.ids.append(100 + number)
    assert 1 < small.asked < 60
    unsure: Any = Told([1e-9])  # which takes longer to say so than passes take here
    guesses, text = dear(drafter(1e-7, small=unsure), 10.0, 1e-7), sequence([40, 41, 42], wanted=500)
    for number in range(100):
        assert guesses.guess([text]) == [[]]
        text.ids.append(100 + number)
    assert 1 < unsure.asked < 60
    assert unsure.worth == {False}


def dear(guesses: Drafter, share: float = 10.0, seconds: float = 1.0) -> Drafter:
    """Where each row more costs so much of a pass."""
    for rows in range(2, 40):
        for _ in range(200):
            guesses._value.costs.observe(rows, seconds * (1 + share * (rows - 1)))
    return guesses


def test_a_repetition_that_does_not_pay_is_tried_now_and_then() -> None:
    guesses, text, tries = dear(drafter()), sequence(REPEATED, wanted=500), 0
    for _ in range(100):
        (found,) = guesses.guess([text])
        assert len(found) <= 1
        if found:
            tries += 1
            guesses.accepted(text, 1, 0)
    assert 2 < tries < 20


def test_what_passes_and_guesses_bring_is_learned() -> None:
    guesses, text = drafter(), sequence(REPEATED)
    (found,) = guesses.guess([text])
    rate, match = guesses._value.rate, guesses._drafts["a"].match
    assert match is not None
    further = match.further
    guesses._drafting = 1.0
    guesses.passed(1, 1.0)
    assert guesses._value.rate < rate  # the time for guessing counts
    rate = guesses._value.rate
    guesses.accepted(text, len(found), 2)
    assert guesses._value.rate > rate
    assert match.further < further  # the second was right and the third was not


class Spelled(Bytes):
    """Bytes, and one word."""

    def __init__(self) -> None:
        super().__init__()
        self._token_bytes = [*self._token_bytes, b"import"]


def test_a_small_model_with_another_vocabulary_reads_the_same_text() -> None:
    model: Any = Successor()
    small = DraftModel(model, Controlled(), Spelled())
    assert not small.same_vocabulary
    text = sequence([*b"x ", 256])
    assert small.guess(text, 3, always)[0] == [*b"uvw"]
    text.ids += "\u00e9".encode()[:1]
    small.guess(text, 1, always)
    assert bytes(model.held[0]) == b"x import"  # half a character waits for the rest
    model.config = SimpleNamespace(vocab_size=256)
    text.ids += [*"\u00e9".encode()[1:], 48, 49]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "ROWS", 256)
        assert small.guess(text, 2, always)[0] == [*b"23"]
        text.ids += [50]
        assert small.guess(text, 2, always)[0] == [*b"34"]
    assert bytes(model.held[0]).decode() == "x import\u00e90123"
    long = sequence([*b"0123456789" * 400], "long")
    assert small.guess(long, 2, always)[0] == [*b":;"]
    assert len(model.held[1]) <= 4 * WINDOW
    assert small.guess(long, 2, always)[0] == [*b":;"]


def test_which_vocabularies_are_the_same() -> None:
    assert same_vocabulary(Bytes(), Bytes())
    assert not same_vocabulary(Spelled(), Bytes())
    assert not same_vocabulary(Bytes(), Spelled())
    assert not same_vocabulary(with_control(), Bytes())
    assert same_vocabulary(Bytes(), with_control())
    other = Bytes()
    other.encode = lambda text, parse_special=True: [0]  # type: ignore[method-assign]
    assert not same_vocabulary(Bytes(), other)


def test_matches_are_the_newest_of_the_longest() -> None:
    index = NgramIndex()
    for follower in range(10, 20):
        index.extend([1, 2, 3, follower])
    index.extend([1, 2, 3])
    assert index.after(index.find(index.ids, own=True)[0], 1) == [19]
    index.extend([11, 1, 2, 3])  # a longer match, not the newest; older than is remembered by the run alone
    assert index.find([9, 9, 1, 2, 3], own=False)[1] == 3
    many = NgramIndex()
    many.extend([7] * 100)
    assert many.find(many.ids, own=True)[1] == 24
    few = NgramIndex()
    few.extend([5])
    assert few.find([5], own=False) == (0, 0)


def test_histories_are_bounded_and_those_used_last_stay() -> None:
    kept = Histories(most_salts=3)
    for salt in ("a", "b", "c", "a", "d"):
        kept.of(salt).add([1], [ord(salt)])
    assert {salt: ord(salt) in kept.of(salt).index.ids for salt in ("a", "c", "d")} == {"a": True, "c": True, "d": True}
    assert ord("b") not in kept.of("b").index.ids
    kept.of("e").add([], list(range(12_000)))
    assert len(kept.of("e").index.ids) <= 10_000
    history = History(context=2)
    history.add([1, 2, 3, 4], [5])
    assert history.index.ids == [3, 4, 5, -1]


def test_costs_and_expectations_at_their_ends() -> None:
    costs = PassCosts()
    for rows, seconds in ((8, 2.0), (4, 1.0), (12, 4.0)):
        costs.observe(rows, seconds)
    assert [costs.seconds(rows) for rows in (1, 5, 10)] == pytest.approx([1.0, 1.25, 3.0])
    expectation = Expectation()
    further = expectation.further
    expectation.learn(guessed=4, right=0)
    assert expectation.first == pytest.approx(0.4 * 4 / 5)  # the first outcomes count more
    assert expectation.further == further  # of what was never reached nothing is learned
    value = drafter()._value
    for rows, seconds in ((1, 1.0), (4, 2.0), (5, 1.5), (6, 3.0)):
        for _ in range(60):
            value.costs.observe(rows, seconds)
    value.restart(4)
    assert value.rate == pytest.approx(4 / 2.0, rel=1e-3)
    assert value.price(4, 1) == 0.0  # what costs less than nothing was measured by chance
    assert value.price(4, 2) == pytest.approx(2.0, rel=1e-2)

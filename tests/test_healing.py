"""Token healing: prompts that end inside a token go on as if they did not."""

from __future__ import annotations

import numpy as np
import pytest
from test_text_stream import Bytes

from pipelines.engine.healing import Healing, Spelling
from pipelines.engine.sampling import SamplingParams
from pipelines.engine.sequence import Sequence, SequenceRequest
from pipelines.pipeline import Pipeline
from pipelines.prompts.gap import Gap
from pipelines.prompts.healing import split_text, taken_back
from pipelines.text.chain import SequenceText

HEADS = [
    "def add(a, b):\n", "def is_even(n):\n", "def read_lines(path):\n", "def main():\n", "def area(width, height):\n",
    "def first(values):\n", "def square(x):\n", "def load(path):\n", "def count_words(text):\n",
    "def greet(name):\n", "def maximum(a, b):\n", "def to_list(items):\n",
]  # fmt: skip


class Words(Bytes):
    """Single bytes, and a few words."""

    MORE = (b"import", b" numpy", b" num", b"return", b"    ", b"        ", b" n", "é".encode())

    def __init__(self) -> None:
        super().__init__()
        self._token_bytes = [*self._token_bytes, *self.MORE]


def test_tokens_are_taken_back_while_one_spans_the_cut() -> None:
    words = Words()
    assert taken_back(words, [*b"x", *b" nump"]) == (5, b" nump")
    assert taken_back(words, [*b"x =", *b"retu"]) == (4, b"retu")
    assert taken_back(words, [*b"x:\n", 260]) == (1, b"    ")
    assert taken_back(words, [*b"a = 1"]) == (0, b"")
    assert taken_back(words, []) == (0, b"")
    assert taken_back(words, [*b" num", 1, *b"py"]) == (0, b"")


def test_a_text_is_cut_between_characters() -> None:
    words = Words()
    assert split_text(words, "x = retu") == ("x = ", b"retu", 4)
    assert split_text(words, "é") == ("é", b"", 0)
    assert split_text(words, "") == ("", b"", 0)
    assert split_text(words, "ééretu") == ("éé", b"retu", 4)


def test_what_may_follow_spells_the_rest() -> None:
    words = Words()
    known = Spelling(words)
    texts = sorted(words.token_bytes(int(token)) for token in known.following(b" nu"))
    assert texts == [b" ", b" n", b" num", b" numpy"]
    healing = Healing(words, b" nu")
    assert healing.take(262)
    assert healing.rest == b"u"
    assert [words.token_bytes(int(token)) for token in healing.allowed()] == [b"u"]
    assert healing.take(ord("u"))
    assert healing.rest == b""


def test_no_way_that_leads_nowhere_is_taken() -> None:
    """Without a token for single bytes, not every beginning can be gone on from."""

    class Few(Bytes):
        def __init__(self) -> None:
            super().__init__()
            self._token_bytes = [b"ab", b"abc", b"a", b"cd"]

    known = Spelling(Few())
    assert sorted(map(int, known.following(b"abc"))) == [0, 1]
    assert sorted(map(int, known.following(b"ab"))) == [0, 1]  # after "a" nothing begins with "b"


@pytest.mark.parametrize("guesses", [[], [ord("n"), ord("u")], [ord("x"), ord("u")]])
def test_a_sequence_spells_before_it_goes_on(guesses: list[int]) -> None:
    """Also where several tokens are accepted at once; what was guessed wrong does not count."""
    words = Words()
    request = SequenceRequest("x", [65], SamplingParams(max_new_tokens=2, temperature=1), (7,), healing=b"nu")
    sequence = Sequence(request, words, 100)
    assert sequence.logits_needed == 0
    wanted = [ord("n"), ord("u"), ord("m"), ord("!")]  # what the model would write; it likes z most of all
    drawn: list[int] = []
    while sequence.end is None:
        rows = np.zeros((1 + len(guesses), 256 + len(Words.MORE)), np.float32)
        for row, token in enumerate(wanted[len(drawn) : len(drawn) + len(rows)]):
            rows[row, token] = 5
        rows[:, ord("z")] = 9 if len(drawn) < 2 and not guesses else 0
        drawn += [token.id for token in sequence.accept(rows, guesses)]
        guesses = []
    assert bytes(drawn) == b"num!"
    assert sequence.logits_needed == 1


def test_what_the_prompt_shows_is_not_shown_again() -> None:
    words = Words()
    text = SequenceText(words, hidden=5)
    from pipelines.engine.sequence import Token

    assert text.push([Token(ord(" "))]).text == ""
    assert (text.tokens, text.drawn) == (0, [32])
    assert text.push([Token(257)], "stop").token_ids == [257]


def test_healed_completions_begin_as_the_unhealed_prompts(nano: Pipeline) -> None:
    """With a line's indentation typed, what follows begins as it does without: 11 of 12, and one without healing."""
    same = {True: 0, False: 0}
    for head in HEADS:
        whole = nano.generate(head, max_new_tokens=12).text
        for healing in same:
            prompt = nano.prompt(head + "    ", token_healing=healing)
            found = "".join(piece.text for piece in nano.stream_prompts([prompt], max_new_tokens=12))
            same[healing] += ("    " + found)[:12] == whole[:12]
    assert same[True] >= 11, same
    assert same[False] < same[True]


def test_a_gap_may_be_inside_a_word(nano: Pipeline) -> None:
    gap = Gap("import numpy as np\n\n\ndef f(x):\n    retu", "\n")
    prompt = nano.gap(gap, 8)
    assert prompt.healing.endswith(b"retu")
    assert prompt.tokens == len(nano.gap(gap, 8, token_healing=False).ids)
    text = "".join(piece.text for piece in nano.stream_prompts([prompt], max_new_tokens=8))
    assert text.startswith("rn ")
    assert nano.gap(gap, 0).healing == b""  # only to be read

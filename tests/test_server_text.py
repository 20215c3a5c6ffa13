"""Text of one sequence: limits on lines, and log-probabilities beside what is shown."""

from __future__ import annotations

import pytest
from test_text_stream import Bytes

from pipelines.engine.sequence import Token, TokenLogprob
from pipelines.pipeline import Pipeline
from pipelines.text.chain import SequenceText, token_text
from pipelines.text.limits import LineLimits


def feed(limits: LineLimits, pieces: list[str]) -> str:
    shown = ""
    for piece in pieces:
        shown += limits.push(piece)
        if limits.stopped:
            return shown
    return shown + limits.finish()


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_line_with_less_indentation_ends_the_text(size: int) -> None:
    text = "x = 1\n    y = 2\n\n    if y:\n        z\n  end\nmore"
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    assert feed(LineLimits(4, lambda: False), pieces) == "x = 1\n    y = 2\n\n    if y:\n        z\n"
    assert feed(LineLimits(0, lambda: False), pieces) == text


@pytest.mark.parametrize("size", [1, 3, 100])
def test_time_ends_the_text_at_a_line_end(size: int) -> None:
    text = "one\ntwo\nthree"
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    assert feed(LineLimits(0, lambda: True), pieces) == "one\n"


def test_tokens_of_a_stop_string_are_not_told(nano: Pipeline) -> None:
    text = SequenceText(nano.tokenizer, ["STOP"])
    tokens = []
    shown = ""
    for token in nano.tokenizer.encode("a = 1\nSTOP and more"):
        delta = text.push([Token(token, TokenLogprob(token, -1.0, []))])
        shown += delta.text
        tokens += [scored.logprob.token for scored in delta.scored]
        if delta.finish:
            break
    assert shown == "a = 1\n"
    assert text.stop_text == "STOP"
    assert "".join(token_text(nano.tokenizer, token) for token in tokens) == "a = 1\n"


@pytest.mark.parametrize("size", [1, 2, 100])
def test_lines_end_where_editors_end_them(size: int) -> None:
    """Not at form feeds and other separators, after which nothing may be lost."""
    text = "a\x0c = 1\n    b\x0b\u2028\x85c\rd\n    e\r\n    f"
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    assert feed(LineLimits(4, lambda: False), pieces) == text
    assert feed(LineLimits(4, lambda: False), [*pieces, "\ng"]) == text + "\n"


def test_several_tokens_at_once_give_the_same_text() -> None:
    ids = list(b"    return 1\n\nx = 2\n")
    for cut in range(len(ids)):
        text = SequenceText(Bytes(), ["x ="])
        shown = text.push([Token(i) for i in ids[:cut]]).text
        if not text.stopped:
            shown += text.push([Token(i) for i in ids[cut:]], "length").text
        assert (shown, text.stop_text) == ("    return 1\n\n", "x =")
        assert text.tokens == len("    return 1\n\nx =")  # what came after the stop string does not count


def test_a_part_of_a_character_is_named_by_its_bytes(nano: Pipeline) -> None:
    first, second = nano.tokenizer.encode("é")
    assert token_text(nano.tokenizer, first) == "bytes:\\xc3"
    assert token_text(nano.tokenizer, second) == "bytes:\\xa9"

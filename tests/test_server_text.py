"""Text of one sequence: limits on lines, and log-probabilities beside what is shown."""

from __future__ import annotations

import pytest

pytest.importorskip("starlette", reason="needs the extra serve")

from pipelines.pipeline import Pipeline
from pipelines.server.http.api_error import ApiError
from pipelines.server.process.messages import Step, TokenLogprob
from pipelines.server.sequence_text import LineLimits, SequenceText, token_text


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
    text = SequenceText(nano.tokenizer, ["STOP"], scored=True)
    tokens = []
    shown = ""
    for token in nano.tokenizer.encode("a = 1\nSTOP and more"):
        delta = text.push(Step("x", token, None, TokenLogprob(token, -1.0, [])))
        shown += delta.text
        tokens += [scored.logprob.token for scored in delta.scored]
        if delta.finish:
            break
    assert shown == "a = 1\n"
    assert text.stop_text == "STOP"
    assert "".join(token_text(nano.tokenizer, token) for token in tokens) == "a = 1\n"


def test_a_failed_worker_is_an_error(nano: Pipeline) -> None:
    with pytest.raises(ApiError, match="the model worker has failed"):
        SequenceText(nano.tokenizer, [], scored=False).push(Step("x", None, "failed"))


def test_a_part_of_a_character_is_named_by_its_bytes(nano: Pipeline) -> None:
    first, second = nano.tokenizer.encode("é")
    assert token_text(nano.tokenizer, first) == "bytes:\\xc3"
    assert token_text(nano.tokenizer, second) == "bytes:\\xa9"

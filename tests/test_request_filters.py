"""`completion` and `strip` in requests: the same ends as on the command line, while the text streams."""

from __future__ import annotations

import pytest
from test_text_stream import Bytes

pytest.importorskip("starlette", reason="needs the extra serve")

from pipelines.engine.sequence import Token, TokenLogprob
from pipelines.server.routes.openai.requests import CompletionRequest
from pipelines.text.chain import SequenceText
from pipelines.text.completion_mode import Block, Line, Strip, block_after


def deltas(text: SequenceText, raw: bytes) -> tuple[str, str | None]:
    """All that is shown, and how it finished."""
    shown, finish = "", None
    for i, byte in enumerate(raw):
        delta = text.push([Token(byte)], "length" if i == len(raw) - 1 else None)
        shown, finish = shown + delta.text, delta.finish
        if finish:
            break
    return shown, finish


def test_a_block_ends_a_sequence() -> None:
    filters = [Block(block_after("def f():\n")), Strip()]
    text = SequenceText(Bytes(), ["STOP"], filters)
    assert deltas(text, b"    return 1  \n\nx = 2\n") == ("    return 1", "stop")
    assert text.stopped


def test_a_line_and_what_is_held_back_at_the_end() -> None:
    text = SequenceText(Bytes(), [], [Line()])
    assert deltas(text, b"ab\r") == ("ab\r", "length")
    text = SequenceText(Bytes(), ["STOP"], [Strip()])
    assert deltas(text, b"a STOP") == ("a", "stop")


def test_requests_name_them() -> None:
    body = CompletionRequest(prompt="x", completion="block", strip=True)
    assert (body.completion, body.strip) == ("block", True)
    assert CompletionRequest(prompt="x").completion == "full"


def test_offsets_and_stop_strings_are_those_of_a_file_with_crlf() -> None:
    text = SequenceText(Bytes(), ["\r\n}"], crlf=True)
    tokens = [Token(byte, TokenLogprob(byte, -1.0, [])) for byte in b"a\nb\n\nc\n}"]
    delta = text.push(tokens)
    assert (delta.text, text.stop_text) == ("a\r\nb\r\n\r\nc", "\r\n}")
    assert "".join(delta.text[scored.offset] for scored in delta.scored) == "a\rb\r\rc"
    assert [delta.text[scored.offset :][:2] for scored in delta.scored if scored.logprob.token == 10] == ["\r\n"] * 3

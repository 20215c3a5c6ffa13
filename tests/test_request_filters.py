"""From requests to sampling, text and prompts: the command line's ends of a text, biases, what is kept of a chat."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from test_text_stream import Bytes

pytest.importorskip("starlette", reason="needs the extra serve")

from pipelines.engine.sequence import Token, TokenLogprob
from pipelines.server.routes.ollama.prompts import newest
from pipelines.server.routes.openai.requests import CompletionRequest
from pipelines.server.routes.sampling import biases
from pipelines.text.chain import SequenceText
from pipelines.text.completion_mode import Block, Line, Strip, block_after

if TYPE_CHECKING:
    from pipelines.pipeline import Pipeline


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


@pytest.mark.parametrize(
    ("stated", "text", "bias"),
    [
        ({"5": 1.5}, 5, 1.5),
        ({" +5": -1000}, 5, -100.0),  # what C's strtol and Python's int() read
        ({"5": False}, 5, -math.inf),
        ({"--5": 1}, "--5", 1.0),
        ({"5 ": 1}, "5 ", 1.0),
        ({"\u0665": 1}, "\u0665", 1.0),  # a digit, and no id
        ({"5" * 20: 1}, "5" * 20, 1.0),
        ([[5, -1000]], 5, -1000.0),
        ([["5", False]], "5", -math.inf),
        ([["--5", False]], "--5", -math.inf),
    ],
)
def test_what_is_an_id_and_what_a_text(nano: Pipeline, stated: Any, text: int | str, bias: float) -> None:
    """Names in an object may be ids; in a list a text is a text, as in llama.cpp."""
    body = CompletionRequest(prompt="x", logit_bias=stated)
    ids = [text] if isinstance(text, int) else nano.encode(text)
    assert list(biases(body.logit_bias, nano.tokenizer)) == [(token, bias) for token in ids]


def test_what_ollama_keeps_of_a_chat(nano: Pipeline) -> None:
    """The last message, the system's, then the newest of the others until one does not fit."""
    chat = [("user", "a " * 30), ("system", "s"), ("user", "b " * 300), ("assistant", "c " * 20), ("user", "d")]
    assert newest(nano.tokenizer, chat, 900) == chat
    assert newest(nano.tokenizer, chat, 200) == [chat[1], *chat[3:]]
    assert newest(nano.tokenizer, chat, 30) == [chat[1], chat[4]]
    assert newest(nano.tokenizer, chat, 10) == [chat[4]]
    long = "".join(f"x{i} = {i}\n" for i in range(400))
    ((role, end),) = newest(nano.tokenizer, [chat[0], ("user", long)], 100)
    assert role == "user"
    assert long.endswith("\n" + end)
    assert 50 < len(nano.encode(end)) <= 100

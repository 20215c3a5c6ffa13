"""Pieces of text: whole characters, stop strings that never leak."""

from __future__ import annotations

import random

import pytest

from pipelines.text.stream import TextStream, overlap
from weights.tokenizers.tokenizer import SpecialTokens, Tokenizer


class Bytes(Tokenizer):
    """One token a byte, so that characters are split wherever they can be."""

    def __init__(self) -> None:
        super().__init__([bytes([i]) for i in range(256)], {}, SpecialTokens())

    def encode(self, text: str, *, parse_special: bool = True) -> list[int]:
        return list(text.encode())


def pieces(text: str | bytes, *stop: str) -> tuple[list[str], bool]:
    """All pieces that a text gives, and whether a stop string ended it."""
    stream = TextStream(Bytes(), stop)
    result = []
    for byte in text if isinstance(text, bytes) else text.encode():
        result.append(stream.push(byte))
        if stream.stopped:
            break
    return [*result, stream.finish()], stream.stopped


def test_characters_appear_whole() -> None:
    shown, _ = pieces("aé漢🙂z")
    assert [p for p in shown if p] == ["a", "é", "漢", "🙂", "z"]


def test_bytes_that_are_no_character_are_replaced() -> None:
    assert "".join(pieces(b"a\xff\xe6\xbcb")[0]) == "a\ufffd\ufffdb"
    assert "".join(pieces(b"ok\xf0\x9f")[0]) == "ok\ufffd"


def test_a_stop_string_ends_the_text_before_itself() -> None:
    assert pieces("one\ntwo\n\n\nthree", "\n\n\n") == (
        ["o", "n", "e", "", "\nt", "w", "o", "", "", "", ""],
        True,
    )


def test_a_beginning_of_a_stop_string_that_does_not_go_on_is_shown() -> None:
    shown, stopped = pieces("return x", "return y")
    assert ("".join(shown), stopped) == ("return x", False)


def test_the_earliest_of_several_stop_strings_wins() -> None:
    shown, stopped = pieces("ab class def", "def", "class")
    assert ("".join(shown), stopped) == ("ab ", True)


def test_no_prefix_of_the_shown_text_ever_contains_a_stop_string() -> None:
    generator = random.Random(0)
    for _ in range(2000):
        text = "".join(generator.choice("abé\n") for _ in range(generator.randrange(20)))
        stops = tuple(
            "".join(generator.choice("abé\n") for _ in range(generator.randrange(1, 4)))
            for _ in range(generator.randrange(3))
        )
        shown, stopped = pieces(text, *stops)
        cut = min((i for i in map(text.find, stops) if i >= 0), default=len(text))
        assert "".join(shown) == text[:cut]
        assert stopped == (cut < len(text))


@pytest.mark.parametrize(
    ("text", "stop", "size"), [("xab", "abc", 2), ("abc", "abc", 0), ("aa", "aaa", 2), ("", "a", 0)]
)
def test_overlap(text: str, stop: str, size: int) -> None:
    assert overlap(text, stop) == size


def with_control() -> Bytes:
    tokenizer = Bytes()
    tokenizer.control_texts = {0: "<|end|>"}
    return tokenizer


@pytest.mark.parametrize(
    ("raw", "stop", "shown"),
    [
        (b"ab\0cd", ("<|end|>",), "ab"),
        (b"ab\0cd", ("b<|end|>",), "a"),
        (b"ab\0cd", ("b<|end|>c",), "abcd"),  # what follows a control token is another text
        (b"ab\0cd", (), "abcd"),
        (b"ab<|end|>cd", ("<|end|>",), "ab"),
    ],
)
def test_a_stop_string_may_spell_a_control_token(raw: bytes, stop: tuple[str, ...], shown: str) -> None:
    stream = TextStream(with_control(), stop)
    text = ""
    for byte in raw:
        text += stream.push(byte)
        if stream.stopped:
            break
    assert text + stream.finish() == shown
    assert stream.stopped == (shown != "abcd")


def test_overlaps_with_long_stop_strings_are_the_same() -> None:
    draw = random.Random(3)
    for _ in range(300):
        stop = "".join(draw.choices("ab", [9, 1], k=draw.randint(65, 90)))
        text = "".join(draw.choices("ab", k=draw.randint(0, 9))) + stop[: draw.randint(60, 90)]
        text += "".join(draw.choices("ab", k=draw.randint(0, 3)))
        sizes = range(min(len(text), len(stop) - 1), -1, -1)
        assert overlap(text, stop) == next(size for size in sizes if text.endswith(stop[:size]))

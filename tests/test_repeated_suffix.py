"""Text after the cursor: where a completion repeats it, and its line ends."""

from __future__ import annotations

import time

import pytest

from pipelines.text.line_ends import CrLf, has_crlf
from pipelines.text.repeated_suffix import RepeatedSuffix

CASES = [
    # suffix, completion, what is kept
    (")", "x)", "x"),
    (")\n", "x)\nprint(x)\n", "x"),
    (")\n", "bar(x)", "bar(x)"),  # its own bracket
    ("))\n", "f())", "f()"),
    (")", "x).y(z", "x).y(z"),
    ('"\n', 'hello"', "hello"),
    ('"\n', '"a"', '"a"'),  # its own string
    (": int) -> int:\n", "b: int) -> int:", "b"),
    ("append(x)\n", "data", "data"),  # no word is cut in two
    (" = 3\n", "x == 3", "x == 3"),  # and no operator
    (" = 3\n", "x = 3", "x"),
    ("\n    return x\n", "\n    x += 1\n    return x\n    more", "\n    x += 1"),
    ("\n    return x\n", "\n    if x:\n        return x\n", "\n    if x:\n        return x\n"),
    ("\n}\n", "\n  a();\n}\n\nfoo", "\n  a();"),
    ("\n}\n", "\n  if (a) {\n}\n", "\n  if (a) {\n}\n"),
    ("\n    end\nend\n", "\n    if a\n    end", "\n    if a\n    end"),  # too short to tell
    ("\n\nprint(1)\n", "x = 1\n\n\ny = 2", "x = 1\n\n\ny = 2"),
    ("\n\nprint(1)\n", "x = 1\n\nprint(1)", "x = 1"),
    (", b)", "a, ", "a"),
    (")  # why\n", "x)\nprint(x)\n", "x"),  # the suffix goes on where the line ends
    (");\n", "x)\n", "x"),
    (") {\n", "a, b)\n{\n", "a, b"),
    (", b)  # why\n", "a, b)\n", "a"),
    (", b)  # why\n", "a,\n    c", "a,\n    c"),  # and no bracket tells
    (")  # why\n", "f(\n    x\n)", "f(\n    x\n)"),
    (")  # why\n", "f(x)\n", "f(x)\n"),
    ("\n} // f\n", "\n  a();\n}\n\nfoo", "\n  a();"),
    ("\n} // f\n", "\n  if (a) {\n}\n", "\n  if (a) {\n}\n"),
    ("", "x)", "x)"),
    ("\n", "x\n", "x\n"),
]


@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize(("suffix", "text", "kept"), CASES)
def test_a_repetition_is_cut(suffix: str, text: str, kept: str, size: int) -> None:
    part = RepeatedSuffix(suffix)
    shown = ""
    for start in range(0, len(text), size):
        shown += part.push(text[start : start + size])
        if part.stopped:
            break
    assert shown + part.finish() == kept


LONG = {
    "dashes": ("-" * 60_000, "-" * 18_000),
    "line ends": ("\n" * 60_000, "\n" * 18_000),
    "short lines after a bracket": ("a\n" * 30_000, "(" + "a\n" * 9_000),
    "lines that the suffix ends otherwise": (";" * 999 + ")", (";" * 900 + "\n") * 20),
    "spaces, again and again": (" " * 60_000, (" " * 5_000 + "x") * 4),
}


@pytest.mark.parametrize(("suffix", "text"), LONG.values(), ids=LONG)
def test_long_repetitions_take_no_time(suffix: str, text: str) -> None:
    started = time.process_time()
    part = RepeatedSuffix(suffix)
    shown = "".join(part.push(text[start : start + 45]) for start in range(0, len(text), 45)) + part.finish()
    assert text.startswith(shown)
    assert time.process_time() - started < 3  # 0.5 on a first EPYC; minutes if it grew with the square


def test_a_suffix_repeated_at_length_ends_the_completion() -> None:
    suffix = "\n" + "".join(f"line_{i} = {i}\n" for i in range(200))
    part = RepeatedSuffix(suffix)
    assert part.push("x = 1" + suffix[:1500]) + part.finish() == "x = 1"
    assert part.stopped


def test_a_long_line_repeated_ends_the_completion_wherever_the_limit_falls() -> None:
    for spaces in range(12):
        suffix = "x = [" + " " * spaces + ", ".join(f"value{i}" for i in range(200)) + "]\n"
        part = RepeatedSuffix(suffix)
        assert part.push(suffix) == ""
        assert part.stopped


def test_a_completion_that_ends_in_the_middle_of_its_suffix_has_not_ended_itself() -> None:
    part = RepeatedSuffix("\nreturn total / count\n")
    assert part.push("total = 1\nreturn total") + part.finish() == "total = 1"
    assert not part.stopped  # it came to its length, say


def test_what_is_shown_is_never_taken_back() -> None:
    part = RepeatedSuffix("abc)\n")
    assert [part.push(char) for char in "xabcd"] == ["x", "", "", "", "abcd"]


@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize(
    ("text", "expected"),
    [("a\nb\n", "a\r\nb\r\n"), ("a\r\nb", "a\r\nb"), ("\r\r\n\n", "\r\r\n\r\n"), ("\r", "\r"), ("x", "x")],
)
def test_line_ends_are_written_as_in_the_file(text: str, expected: str, size: int) -> None:
    part = CrLf()
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert "".join(map(part.push, pieces)) + part.finish() == expected


def test_most_line_ends_decide() -> None:
    assert has_crlf("a\r\nb\r\nc\n")
    assert not has_crlf("a\nb\r\nc\n")
    assert not has_crlf("a")

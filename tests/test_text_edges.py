"""Ends of texts where rules meet: clauses, comments, strings, limits, and what several filters hold back at once."""

from __future__ import annotations

import pytest
from test_completion_mode import run
from test_healing import Words
from test_text_stream import Bytes, with_control

from pipelines.engine.plan import Plan
from pipelines.engine.sampling import SamplingParams
from pipelines.engine.sequence import Token, TokenLogprob
from pipelines.prompts.healing import healed
from pipelines.prompts.prompt import Prompt, before_cursor, encode_prompt
from pipelines.text.chain import Delta, ScoredToken, SequenceText, build_chain, token_text
from pipelines.text.completion_mode import Block, Line, Strip, block_after, recent
from pipelines.text.lexer import BRACES, PYTHON, RUST, Language, language_of
from pipelines.text.limits import LineLimits
from pipelines.text.repeated_suffix import RepeatedSuffix
from pipelines.text.stream import TextStream
from weights.tokenizers.tokenizer import FimTokens, SpecialTokens

# Prefix, kept, dropped.
CASES: dict[str, tuple[Language, str, str, str]] = {
    "finally right after try": (PYTHON, "try:\n", "    a\nfinally:\n    b", "\nc"),
    "every clause of try": (PYTHON, "try:\n", "    a\nexcept E:\n    b\nelse:\n    c\nfinally:\n    d", "\ne"),
    "else of for": (PYTHON, "for a in b:\n", "    c\nelse:\n    d", "\ne"),
    "else of while": (PYTHON, "while a:\n", "    c\nelse:\n    d", "\ne"),
    "one else": (PYTHON, "if a:\n    ", "b\nelse:\n    c", "\nelse:\n    d"),
    "with is a header": (PYTHON, "def f():\n    with a:", "\n        b", "\n    c"),
    "finally is a header": (PYTHON, "def f():\n    try:\n        a\n    finally:", "\n        b", "\n    c"),
    "class is a header": (PYTHON, "def f():\n    class A:", "\n        b", "\n    c"),
    "case is a header": (PYTHON, "match x:\n    case 1:", "\n        b", "\n    case 2:\n        c"),
    "a comment under way leads": (PYTHON, "# a", " b\ndef f():\n    return 1", "\nx"),
    "clauses of a statement at the top": (PYTHON, "", "if a:\n    b\nelse:\n    c", "\nd"),
    "an indented comment is in the block": (PYTHON, "def f():\n    x = 1\n", "    # c", "\nz = 1"),
    "else of something farther out": (PYTHON, "def f():\n    if a:\n        ", "b", "\nelse:\n    c"),
    "a form feed is no indentation": (PYTHON, "def f():\n    x", " = 1\n\x0c    y", "\nz"),
    "a comment after a header's colon": (PYTHON, "def g():\n    if a:  # c", "\n        b", "\n    d"),
    "a slice is no header's colon": (PYTHON, "def f():\n    if x[1:2]", ":\n        b", "\n    c"),
    "nor is one of a call that looks like match": (PYTHON, "def f():\n    match(x[1:", "2])\n    y", "\nz"),
    "nor is one in a string": (PYTHON, "def f():\n    if x == ':' and y", ":\n        b", "\n    c"),
    "a suite that is a string": (PYTHON, "def f():\n    if x: 'a'", "\n    return 2", "\nz"),
    "a clause that is all there is": (PYTHON, "if a:\n    ", "b\nelse", ""),
    "a comment inside brackets": (PYTHON, "def f():\n    g(a,  # c\n", "b)\n    return", "\nh()"),
    "strings side by side": (PYTHON, "def f():\n    x = ", "'a''b'\n    return x", "\ny"),
    "a string that is not closed": (PYTHON, "def f():\n", "    x = 'it\n    y", "\nz"),
    "elseif": (BRACES, "if ($a) {\n", "  b();\n} elseif ($c) {\n  d();\n}", "\ne();"),
    "preprocessor lines lead": (BRACES, "", "#define A 1\nint x;", "\nint y;"),
    "templates lead": (BRACES, "", "template <class T>\nT f() {\n}", "\nint y;"),
    "a line that begins with an operator": (BRACES, "", "x = a\n  ? b\n  : c;", "\ny();"),
    "blank lines before a statement": (BRACES, "import a;\n", "\n\nimport b;", "\nimport c;"),
    "a longer name than a clause": (BRACES, "if (a) {\n", "  b();\n}", "\nelse_x();"),
    "what begins like an operator after a block": (BRACES, "if (a) {\n", "  b();\n}", "\n*p = 1;"),
    "a clause of braces that is all there is": (BRACES, "if (a) {\n", "  b();\n} else", ""),
    "throw f(x) is no head": (BRACES, "int f() {\n  throw g(x", ");\n}", "\nint h"),
    "a comment after the end": (BRACES, "if (a) {\n", "  b();\n} // }", "\nd();"),
    "a statement that is a string": (BRACES, "", "'use strict'", "\nlet x;"),
    "a comment that looks closed": (BRACES, "void f() {\n", "  /*/ } */ g();\n}", "\nk"),
    "brackets that are not closed": (BRACES, "void f() {\n", "  g((1;\n}", "\nk"),
    "a bracket right after a lifetime": (RUST, "fn f(x: dyn T + 'a)", " {\n  x\n}", "\n\nfn g()"),
    "a quoted quote": (RUST, "fn f() {\n", "  if c=='\\''{\n    a\n  }\n  b\n}", "\nfn g()"),
    "a string over lines": (RUST, "fn f() {\n", '  g("\n}\n");\n}', "\nfn h()"),
}


@pytest.mark.parametrize("name", CASES)
def test_blocks_where_rules_meet(name: str) -> None:
    language, prefix, kept, dropped = CASES[name]
    assert run("block", prefix, kept + dropped, language) == kept
    for seed in range(3):
        assert run("block", prefix, kept + dropped, language, seed) == kept


def test_samples_of_one_prompt_follow_blocks_of_their_own() -> None:
    block = block_after("def f():\n    g(", PYTHON)
    assert Block(block).push("1)\nx") == "1)"
    assert Block(block).push("1\n2)\n    x\ny") == "1\n2)\n    x"


def test_far_code_is_left_out_by_whole_lines() -> None:
    assert language_of("a.pyi") is PYTHON
    lines = "y = 1\n" * 10_000
    near = recent(lines)
    assert lines.endswith(near)
    assert near.startswith("y = 1\n")
    assert 32_000 < len(near) < 32_768
    prefix = "class A:\n    def f(self):\n" + "        x = 1\n" * 100 + "        "
    assert run("block", prefix, "return 1\n\n    def g(self):", PYTHON) == "return 1"


@pytest.mark.parametrize(
    ("suffix", "text", "kept"),
    [
        (")\n", 'x = ("a\\\\"))', 'x = ("a\\\\")'),  # the backslash is itself escaped
        (".n\n", "0..n", "0..n"),
        ("\n    return\n", "x\n    return\n", "x\n    return\n"),  # one word
        ("\nfinally:\n", "x\nfinally:\n", "x\nfinally:\n"),
        ("\nx = 12\n", "y\nx = 12\n", "y"),
        (")\n", "a)+(b)", "a)+(b)"),
        ("    return x\n", "don't\n    return x\n", "don't\n"),  # a string ends with its line
        ("bc\n", "abc", "abc"),
    ],
)
def test_repetitions_that_tell_and_that_do_not(suffix: str, text: str, kept: str) -> None:
    for size in (1, 100):
        part = RepeatedSuffix(suffix)
        shown = "".join(part.push(text[start : start + size]) for start in range(0, len(text), size))
        assert shown + part.finish() == kept


def test_limits_on_lines() -> None:
    limits = LineLimits(4, lambda: False)
    assert limits.push("x\n\n    y\n") == "x\n\n    y\n"
    assert (limits.push("   "), limits.finish()) == ("", "   ")
    assert (limits.push("z"), limits.stopped, limits.finish()) == ("", True, "")
    assert LineLimits(4, lambda: False).push("x\n  y\n") == "x\n"
    late = False
    timed = LineLimits(0, lambda: late)
    assert timed.push("a\n") == "a\n"
    late = True
    assert (timed.push("b"), timed.stopped) == ("b", False)
    assert (timed.push("c\nd"), timed.stopped) == ("c\n", True)


def scored(raw: bytes) -> list[Token]:
    return [Token(byte, TokenLogprob(byte, -1.0, [])) for byte in raw]


def test_tokens_that_come_together_are_told_like_those_that_come_alone() -> None:
    text = SequenceText(Bytes(), ["STOP"])
    delta = text.push([Token(byte) for byte in b"aSTOPb"], "length")
    assert (delta.text, delta.token_ids, delta.finish) == ("a", [*b"aSTOP"], "stop")
    assert SequenceText(Bytes()).push([], "failed").finish is None
    text = SequenceText(Bytes(), [], [Line(), RepeatedSuffix("abc)\n")])
    assert text.push([Token(byte) for byte in b"xab\ny"]).text == "xab"  # one filter's end is all filters' end
    crlf = SequenceText(Bytes(), [], [RepeatedSuffix("\n}\n")], crlf=True)
    assert crlf.push([Token(byte) for byte in b"a\nb\n}\n"], "length").text == "a\r\nb"
    first, second = Delta("a", [1], [], "length"), Delta("b", [2], [ScoredToken(TokenLogprob(2, -1.0, []), 1)])
    first.join(second)
    assert (first.text, first.token_ids, first.scored, first.finish) == ("ab", [1, 2], second.scored, "length")


def test_log_probabilities_of_what_is_left_out_at_the_end() -> None:
    assert len(SequenceText(Bytes(), [], [Strip()]).push(scored(b"a "), "length").scored) == 2
    assert len(SequenceText(Bytes(), [], [Line()]).push(scored(b"ab\n"), "length").scored) == 2
    hidden = SequenceText(Words(), hidden=3)
    delta = hidden.push([Token(256, TokenLogprob(256, -1.0, []))] * 2, "length")
    assert (delta.text, [token.offset for token in delta.scored]) == ("ortimport", [0, 3])
    assert token_text(with_control(), 0) == "<|end|>"


def test_the_chain_has_all_that_a_plan_asks_for() -> None:
    limits = LineLimits(4, lambda: False)
    prompt = Prompt([1], "x = f(", after=")", healing=b"f(")
    chain = build_chain(Bytes(), Plan(prompt, SamplingParams(), (0,), limits=limits))
    assert chain.push([Token(byte) for byte in b"f(a)"], "length").text == "a"
    chain = build_chain(Bytes(), Plan(Prompt([1], "", crlf=True), SamplingParams(), (0,), limits=limits))
    assert chain.push([Token(byte) for byte in b"a\nb"]).text == "a\r\n"
    assert chain.limited


def test_stop_strings_that_spell_control_tokens_end_at_the_first() -> None:
    stream = TextStream(with_control(), ("<|end|>", "b<|end|>"))
    assert "".join(map(stream.push, b"ab\0")) + stream.finish() == "a"
    assert stream.stop_text == "b<|end|>"


def test_the_code_before_the_cursor_is_the_last_prefix() -> None:
    tokenizer = Bytes()
    tokenizer.special = SpecialTokens(fim=FimTokens(1, 2, 3))
    tokenizer.control_token_ids = frozenset({1, 2, 3})
    assert before_cursor(tokenizer, b"\x01a\x02b\x01pre\x02suf\x03") == "pre"
    assert encode_prompt(tokenizer, "\x01pre\x02suf\x03").before == "pre"
    assert encode_prompt(tokenizer, "plain").before == "plain"


def test_one_token_of_a_prompt_is_never_taken_back() -> None:
    prompt = Prompt([*b"retu"], "retu")
    assert healed(Words(), prompt) == prompt
    assert healed(Words(), Prompt([*b"=retu"], "=retu")).ids == [*b"="]

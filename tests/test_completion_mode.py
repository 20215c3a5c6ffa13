"""Ends of lines and blocks: whole texts, and the same in every way of cutting them into pieces."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_text_stream import Bytes

from pipelines.engine.plan import Plan
from pipelines.engine.sampling import SamplingParams
from pipelines.engine.sequence import Token
from pipelines.prompts.prompt import Prompt, before_cursor
from pipelines.text.chain import build_chain
from pipelines.text.completion_mode import Block, Line, Strip, TextFilter, block_after
from pipelines.text.lexer import BRACES, PYTHON, RUST, Language, guess_language, language_of
from weights.errors import UserError
from weights.tokenizers.tokenizer import FimTokens, SpecialTokens


def completion_filter(mode: str, prefix: str, language: Language | None = None) -> TextFilter:
    return Line() if mode == "line" else Block(block_after(prefix, language))


def run(mode: str, prefix: str, text: str, language: Language | None = None, seed: int | None = None) -> str:
    """The completion that is left of `text`, given in pieces if there is a seed."""
    end = completion_filter(mode, prefix, language)
    shown, position = "", 0
    pieces = random.Random(seed)
    while position < len(text) and not end.stopped:
        step = len(text) if seed is None else pieces.randint(1, 5)
        shown += end.push(text[position : position + step])
        position += step
        assert text.startswith(shown)
    return shown + end.finish()


# Prefix, kept, dropped.
PYTHON_CASES = {
    "body of a header": ("def f(x):\n", "    return x\n\n    # end", "\n\ndef g():\n"),
    "body after its indentation": ("def f(x):\n    ", "y = x\n    return y", "\nprint(f(1))"),
    "on the header's line": ("def f(x):", "\n    return x", "\nf(1)\n"),
    "inside the header": ("def fib(n", "):\n    return n", "\n\nx = 1"),
    "in a nested block": (
        "class A:\n    def f(self):\n        if self.x:\n            ",
        "return 1",
        "\n        return 2\n",
    ),
    "mid-statement in a body": (
        "def f():\n    x = ",
        "1\n    for i in y:\n        g(i)\n    return x",
        "\nz = 3",
    ),
    "after a docstring": ('def f(x):\n    """Doc."""\n', "    return x", "\n\n\ndef g(): pass"),
    "clauses belong": ("if a:\n    ", "b\nelif c:\n    d\nelse:\n    e", "\nf()"),
    "no clause of this statement": ("def f():\n    ", "pass", "\nelse:\n    e"),
    "else belongs to the inner if": (
        "def f():\n    if a:\n        ",
        "b\n    else:\n        c",
        "\n    return d",
    ),
    "try": ("try:\n", "    a\nexcept E:\n    b\nfinally:\n    c", "\nexceptional = 1"),
    "a name that begins like a clause": ("if a:\n    ", "b", "\nelsewhere = 1"),
    "strings hide dedents": ("def f():\n    x = ", '"""a\nb\n"""\n    return x', "\ny"),
    "brackets hide dedents": ("def f():\n    x = ", "[\n1,\n2]\n    return x", "\ny"),
    "backslashes hide dedents": ("def f():\n    x = ", "1 + \\\n2\n    return x", "\ny"),
    "a bracket open at the cursor": ("def f():\n    g(a,\n", "b)\n    return", "\nh()"),
    "a string open at the cursor": ('def f():\n    """Does\n', 'x."""\n    return', "\nh()"),
    "a bracket in a string or comment": ("def f():\n", "    a = '('  # [\n    b", "\nc"),
    "an apostrophe in a comment": ("def f():\n    # don't\n", "    return 1", "\nx = 1"),
    "a colon in a dictionary": ("x = {'a': 1,\n", "     'b': 2}", "\ny = 1"),
    "a tab goes to the next multiple of eight": ("if a:\n    if b:\n        x\n\t", "c\n\td", "\n    e"),
    "top level: one statement": ("import os\n", "x = 1", "\ny = 2"),
    "top level: a function": ("import os\n\n", "def f():\n    return 1\n\n    x", "\n\ndef g():"),
    "top level: decorators and comments lead": ("", "# a\n@b\ndef f():\n    return 1", "\n# c\n"),
    "top level: the rest of a statement": ("x = ", "f(\n1)", "\ny"),
    "a comment at the margin ends": ("def f():\n    ", "return 1", "\n# test\nf()"),
    "dedented first line": ("def f():\n    return 1\n\n", "def g():\n    return 2", "\n\nx"),
    "indented first line": ("def f():\n    x = 1\n", "    return x", "\nf()"),
    "tabs": ("def f():\n\t", "if x:\n\t\ty\n\treturn", "\nz"),
    "one-line suite": ("def f():\n    if x: return 1", "\n    return 2", "\nz"),
    "a walrus is no header's end": ("def f():\n    while x := g(", "1):\n        h(x)", "\n    return 1"),
    "lambda is no header": ("f = lambda x:", " x", "\ny = 1"),
    "match is a name": ("def f():\n    match = 1", "\n    return match", "\nz"),
    "match": ("match x:\n    ", "case 1:\n        a\n    case 2:\n        b", "\nc"),
    "windows line ends": ("def f():\r\n    ", "x = 1\r\n    return x", "\r\ny = 1"),
    "a window without its header": ("        x = 1\n        ", "return x", "\n\n    def g(self):\n"),
    "a window from within a string": (
        '    Doc:\n    text.\n    """\n    def f(x):\n        ',
        "return x",
        "\n\n    y = 1\n",
    ),
    "a window from a string's end on": ('    text."""\n    def f(x):\n        ', "return x", "\n\n    y = 1\n"),
    "a file that begins with a string": (
        "\"\"\"\nDoc.\n\"\"\"\nx = '''\na'''\ndef f(x):\n    ",
        "return x",
        "\n\ny = 1\n",
    ),
    "a file in an attribute's docstring": ('X = "x"\n"""\nThe ', 'x:\n\nand more.\n"""', "\nY = 1\n"),
    "a string that is returned": (
        'def f():\n    return """\n    {}\n    """.format(x)\n\n\ndef g():\n    ',
        "x = 1\n    return x",
        "\n\ny = 1\n",
    ),
    "a string that is returned, open at the cursor": ('def f():\n    return """<', 'a>\nb>\n"""', "\n\ny = 1\n"),
    "nothing ends it": ("def f():\n    ", "return 1\n", ""),
    "no body": ("def f():\n", "", "x = 1"),
}

BRACE_CASES = {
    "body": ("int f(int x) {\n", "  return x;\n}", "\n\nint g() {\n"),
    "body from the head on": ("int f(int x)", " {\n  return x;\n}", "\n\nint g() {\n"),
    "a brace on its own line": ("int f(int x)", "\n{\n  return x;\n}", "\nint g()"),
    "nested braces": ("function f() {\n", "  if (a) {\n    b();\n  }\n}", "\nf();"),
    "around the cursor": ("void f() {\n  int x = ", "3;\n  g(x);\n}", "\nint main"),
    "a statement with its body": (
        "void f() {\n  for (int i = 0; i < n; i++)",
        " {\n    g(i);\n  }",
        "\n  h();\n}",
    ),
    "else on the same line": ("if (a) {\n", "  b();\n} else {\n  c();\n}", "\nd();"),
    "else on the next line": ("if (a) {\n", "  b();\n}\nelse\n{\n  c();\n}", "\nd();"),
    "try": ("try {\n", " a();\n} catch (e) {\n b();\n} finally {\n c();\n}", "\nd();"),
    "a name that begins like a clause": ("if (a) {\n", "  b();\n}", "\nelsewhere();"),
    "what closes the call": ("xs.map(x => {\n", "  return x;\n});", "\nf();"),
    "names that the call takes too": ("useEffect(() => {\n", "  f();\n}, [a, b], c);", "\ng();"),
    "immediately invoked": ("(function () {\n", "  f();\n})();", "\ng();"),
    "two closed at once": ("class A { void f() {", " g(); }", "} class B {"),
    "strings": ("void f() {\n", "  g(\"}\");\n  h('}');\n}", "\nk"),
    "comments": ("void f() {\n", "  // }\n  /* } */ g();\n}", "\nk"),
    "templates": ("function f() {\n", "  g(`\n}\n`);\n}", "\nk"),
    "top level: one statement": ("import a;\n", "import b;", "\nimport c;"),
    "top level: over several lines": ("const x =", "\n  f(\n  1)\n  .g();", "\nlet y"),
    "annotations lead": ("", "@Test\nvoid f() {\n}", "\nvoid g()"),
    "comments lead": ("int x;\n", "// c\n/* d\n */\nint f() {\n}", "\nint y;"),
    "blank lines and comments lead where nothing ends a line": (
        "package a\nimport b\n",
        "\n// c\nfunc f() {\n}",
        "\nvar y",
    ),
    "a comment open at the cursor leads": ("import b\n\n// A ", "c.\nfunc f() {\n}", "\nvar y"),
    "return f(x) is no head": ("int f() {\n  return g(x", ");\n}", "\nint h"),
    "a struct": ("struct A {\n", "  int x;\n};", "\nint y;"),
    "do": ("do {\n", "  x();\n} while (y);", "\nz();"),
    "a name after the brace": ("typedef struct {\n", "  int x;\n} empty_t;", "\nint y;"),
    "from where it is imported": ("import {\n", "  a,\n  b\n} from 'x';", "\nc();"),
    "more on the line of the brace, and the next": ("f({\n", "  a,\n}, {\n  b,\n});", "\ng();"),
    "a statement without braces": ("void f() {\n  if (x)", "\n    return;\n  else\n    g(1);", "\n  h();\n}"),
    "a loop without braces in another": ("", "for (i = 0; i < n; i++)\n  while (g(i))\n    h();", "\nk();"),
    "an else without braces": ("void f() {\n  if (x) {\n    ", "g();\n  } else\n    h();", "\n  k();\n}"),
    "a comment after a statement": ("", "x = 1; // one", "\ny = 2;"),
    "a comment like C's after a statement": ("", "x = 1; /* one */", "\ny = 2;"),
    "of the statement only": ("void f() {\n  if (x)", " return;", "\n}\n"),
}


@pytest.mark.parametrize("name", PYTHON_CASES)
def test_python_blocks(name: str) -> None:
    prefix, kept, dropped = PYTHON_CASES[name]
    assert run("block", prefix, kept + dropped, PYTHON) == kept
    for seed in range(20):
        assert run("block", prefix, kept + dropped, PYTHON, seed) == kept


@pytest.mark.parametrize("name", BRACE_CASES)
def test_brace_blocks(name: str) -> None:
    prefix, kept, dropped = BRACE_CASES[name]
    assert run("block", prefix, kept + dropped, BRACES) == kept
    for seed in range(20):
        assert run("block", prefix, kept + dropped, BRACES, seed) == kept


def test_rust_lifetimes_and_characters() -> None:
    body = "    let c = '}';\n    let q = '\\'';\n    f::<'static>(x)\n}"
    assert run("block", "fn f<'a>(x: &'a str) {\n", body + "\nfn g()", RUST) == body


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("return x\n    y", "return x"),
        ("\n\n    return x\ny", "\n\n    return x"),
        ("f(\n1)", "f("),
        ("x\r\ny", "x"),
        ("no end", "no end"),
        ("\n  \n", "\n  \n"),
        ("", ""),
    ],
)
def test_lines(text: str, kept: str) -> None:
    assert run("line", "", text) == kept
    for seed in range(20):
        assert run("line", "", text, seed=seed) == kept


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab:#\"'\\()[]{};/*@= \t\nelse", max_size=60), st.sampled_from([PYTHON, BRACES, RUST]))
def test_any_text_gives_a_beginning_of_itself_however_it_is_cut(text: str, language: Language) -> None:
    for prefix in ("", "def f():\n    ", "void f() {\n", text[::-1]):
        whole = run("block", prefix, text, language)
        assert text.startswith(whole)
        assert all(run("block", prefix, text, language, seed) == whole for seed in range(3))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="a \n\t", max_size=20), st.integers(0, 99))
def test_strip_leaves_out_trailing_whitespace_only(text: str, seed: int) -> None:
    strip, pieces, position, shown = Strip(), random.Random(seed), 0, ""
    while position < len(text):
        step = pieces.randint(1, 4)
        shown += strip.push(text[position : position + step])
        position += step
    assert shown + strip.finish() == text.rstrip()


def test_languages() -> None:
    assert language_of("src/main.rs") is RUST
    assert language_of("a/b.PY") is language_of(".py") is PYTHON
    assert language_of("Makefile") is None
    assert guess_language("def f(x):\n    return x\n") is PYTHON
    assert guess_language("int f() {\n  return 1;\n") is BRACES
    assert guess_language("pub fn f() {\n    1\n}\n") is RUST
    assert guess_language("") is PYTHON


def test_unknown_modes_are_refused() -> None:
    with pytest.raises(UserError, match=r"--completion is 'word'; expected one of full, line, block"):
        SamplingParams(completion="word")


def chained(text: str, mode: str, strip: bool) -> tuple[str, bool]:
    """What the chain shows of a text after a function's head, and whether the text has ended itself."""
    params = SamplingParams(stop=("STOP",), completion=mode, strip=strip)
    chain = build_chain(Bytes(), Plan(Prompt([1], "def f():\n"), params, (0,)))
    shown = ""
    for byte in text.encode():
        shown += chain.push([Token(byte)]).text
        if chain.stopped:
            return shown, True
    return shown + chain.push([], "length").text, chain.stopped


@pytest.mark.parametrize(
    ("mode", "strip", "shown", "stopped"),
    [
        ("full", False, "    a é\n\nb \n", False),
        ("full", True, "    a é\n\nb", False),
        ("line", False, "    a é", True),
        ("block", True, "    a é", True),
    ],
)
def test_the_stream_of_a_completion(mode: str, strip: bool, shown: str, stopped: bool) -> None:
    assert chained("    a é\n\nb \n", mode, strip) == (shown, stopped)


def test_a_stop_string_goes_first() -> None:
    assert chained("    a\n    STOP\nb", "block", True) == ("    a", True)


def test_the_text_before_the_cursor_of_a_fill_in_the_middle_prompt() -> None:
    tokenizer = Bytes()
    assert before_cursor(tokenizer, b"a b") == "a b"
    tokenizer.special = SpecialTokens(fim=FimTokens(1, 2, 3))
    assert before_cursor(tokenizer, b"a b") == "a b"
    assert before_cursor(tokenizer, b"\x01pre\x02suf\x03") == "pre"
    assert before_cursor(tokenizer, b"\x02suf\x01pre\x03") == "pre"

"""The questions that nano is measured with, drawn by seed from the held-out packages' files without tests.

No model here: `evaluate_nano.py` asks, this module says what is asked and what the answer is.
"""

from __future__ import annotations

import ast
import io
import json
import random
import textwrap
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.filters import parses

CONTEXT_CHARS = 1500  # before the asked line: about 430 tokens
SUFFIX_CHARS = 700


@dataclass(frozen=True)
class Line:
    """A line to be guessed from the text before it (and after it); `target` has no line end."""

    prefix: str
    target: str
    suffix: str


def read_files(path: Path) -> list[str]:
    """Texts of heldout.jsonl, tests left out."""
    with path.open() as f:
        return [row["text"] for row in map(json.loads, f) if not row["test"]]


def function_heads(text: str) -> Iterator[str]:
    """Signature and docstring, dedented, of every function and method that has both and goes on after them."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef) or not ast.get_docstring(node) or len(node.body) < 2:
            continue
        yield textwrap.dedent("\n".join(lines[node.lineno - 1 : node.body[0].end_lineno]))


def completions(files: list[str], count: int, max_chars: int = 1500) -> list[str]:
    """Function heads to complete; those that do not parse by themselves (odd dedents) are left out."""
    heads = [h for text in files for h in function_heads(text) if len(h) <= max_chars and parses(h + "\n")]
    return random.Random(1).sample(heads, count)


def lines(files: list[str], count: int) -> list[Line]:
    """Lines that are not blank and not comments, at least ten lines into a file, each from a random file."""
    rng = random.Random(2)
    found: list[Line] = []
    while len(found) < count:
        rows = rng.choice(files).splitlines(keepends=True)
        if len(rows) < 20:
            continue
        at = rng.randrange(10, len(rows) - 1)
        if rows[at].strip() and not rows[at].lstrip().startswith("#"):
            prefix = "".join(rows[:at])[-CONTEXT_CHARS:]
            suffix = "\n" + "".join(rows[at + 1 :])[:SUFFIX_CHARS]
            found.append(Line(_from_line_start(prefix), rows[at].rstrip(), suffix))
    return found


def _from_line_start(text: str) -> str:
    return text if len(text) < CONTEXT_CHARS else text.split("\n", 1)[1]


def first_line(completion: str) -> str:
    """The first line of a completion that is not blank."""
    return next((row.rstrip() for row in completion.split("\n") if row.strip()), "")


def cut_at_line(text: str) -> str:
    """The text up to its last line end."""
    return text[: text.rfind("\n") + 1]


def cut_at_logical_line(text: str) -> str:
    """The text up to the end of its last statement line, as Python's tokenizer sees it: brackets and strings closed."""
    end = 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NEWLINE and token.line.endswith("\n"):
                end = token.end[0]
    except (tokenize.TokenError, SyntaxError):
        pass
    return "".join(text.splitlines(keepends=True)[:end])

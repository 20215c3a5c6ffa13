"""Single functions, methods and classes as documents of their own.

They teach what stands at the start of a document and that a document ends after it. Half of the docstrings are taken
out and a quarter cut to their first line, so that there is more code than prose.
"""

from __future__ import annotations

import ast
import random
import textwrap
from collections.abc import Iterator

from training.filters import parses

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
METHOD_SHARE = 0.25  # of the methods; the classes show them too
IMPORT_SHARE = 0.3  # of the snippets, with the imports that they use before them


def _imported_names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return set()


def _docstring_edit(node: Definition, lines: list[str], rng: random.Random) -> dict[int, str | None]:
    """Line numbers of the docstring and what replaces them: None takes the line out."""
    choice = rng.random()
    doc = node.body[0]
    if ast.get_docstring(node) is None or len(node.body) < 2 or choice > 0.75 or doc.end_lineno is None:
        return {}
    edit: dict[int, str | None] = dict.fromkeys(range(doc.lineno, doc.end_lineno + 1))
    if choice > 0.5 and doc.lineno < doc.end_lineno:
        first, quote = lines[doc.lineno - 1], '"""'
        if first.strip().startswith(quote) and len(first.strip()) > 10 and first.count(quote) == 1:
            edit[doc.lineno] = first + quote
    elif not lines[doc.end_lineno : doc.end_lineno + 1] or not lines[doc.end_lineno].strip():
        edit[doc.end_lineno + 1] = None  # the blank line after it
    return edit


def _code(node: Definition, lines: list[str], rng: random.Random) -> list[str] | None:
    """The definition's lines with decorators, dedented; None if it is too short, long or wide."""
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    edit = _docstring_edit(node, lines, rng)
    rows = [edit.get(n, lines[n - 1]) for n in range(first, (node.end_lineno or first) + 1)]
    code = textwrap.dedent("\n".join(row for row in rows if row is not None)).split("\n")
    fits = 3 <= len(code) <= 80 and max(map(len, code)) <= 110
    return code if fits and ((node.col_offset == 0 and not edit) or parses("\n".join(code))) else None


def snippets(text: str, rng: random.Random) -> Iterator[str]:
    """The definitions of 3 to 80 lines of a file, each as a document."""
    lines = text.splitlines()
    body = ast.parse(text).body
    imports = [n for n in body if isinstance(n, ast.Import | ast.ImportFrom) and n.lineno == n.end_lineno]
    top = [n for n in body if isinstance(n, Definition)]
    methods = [m for n in top if isinstance(n, ast.ClassDef) for m in n.body if isinstance(m, Definition)]
    for node in [*top, *(m for m in methods if rng.random() < METHOD_SHARE)]:
        code = _code(node, lines, rng)
        if code is None:
            continue
        if rng.random() < IMPORT_SHARE:
            used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            needed = [lines[n.lineno - 1] for n in imports if _imported_names(n) & used]
            code = [*needed, *[""] * rng.choice((1, 2)), *code] if needed else code
        yield "\n".join(code) + "\n"

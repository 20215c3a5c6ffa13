"""The textbook collection (training/textbook) as a newcomer might write it: other names, hints, docstrings, quotes.

Each document runs by itself: what a definition needs is imported above it or, where the document begins with `def`,
inside the function; classes and functions of the same module that it calls stand before or after it.
"""

from __future__ import annotations

import ast
import io
import random
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from training.filters import parses
from training.synonyms import ATTRIBUTES, FUNCTIONS, PAIRS, PARAMETERS, WORDS

TEXTBOOK = Path(__file__).parent / "textbook"
_WAY = re.compile(r"\b([A-Za-z]\w*?)__([a-z]+)\b(?!_)")  # `name__way`: what tells ways to do the same apart
Node = ast.FunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Definition:
    """A function or class: its source, the imports of its module, the module's other definitions by name."""

    name: str
    source: str
    imports: dict[str, str]  # line by imported name
    module: dict[str, str]  # source by name

    @property
    def called(self) -> str:
        """Its name in a document, whatever its way."""
        return _WAY.sub(r"\1", self.name)

    @cached_property
    def node(self) -> Node:
        """The parsed source."""
        node = ast.parse(self.source).body[0]
        assert isinstance(node, Node)
        return node

    def uses(self) -> set[str]:
        """Names that it needs when it runs, without annotations."""
        return {n.id for n in ast.walk(ast.parse(without_hints(self.source))) if isinstance(n, ast.Name)}


def definitions(path: Path) -> Iterator[Definition]:
    """The definitions of one module of the collection."""
    text = path.read_text()
    lines = text.splitlines()
    imports: dict[str, str] = {}
    module: dict[str, str] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            start = lines[node.lineno - 1].split("import")[0]
            imports |= {a.name: f"{start}import {a.name}" for a in node.names if a.name != "annotations"}
        elif isinstance(node, Node):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            module[node.name] = "\n".join(lines[first - 1 : node.end_lineno])
    for name, source in module.items():
        yield Definition(name, source, imports, module)


def collection() -> list[Definition]:
    """All definitions."""
    return [d for path in sorted(TEXTBOOK.glob("*.py")) for d in definitions(path)]


# --- edits of source text -------------------------------------------------------------------------------------------


def _replace(source: str, edits: list[tuple[int, int, int, int, str]]) -> str:
    """Source with spans (first line, column, last line, column) replaced; lines count from 1."""
    lines = source.split("\n")
    for first, start, last, end, text in sorted(edits, reverse=True):
        new = lines[first - 1][:start] + text + lines[last - 1][end:]
        lines[first - 1 : last] = [new]
    return "\n".join(lines)


def _header(node: ast.FunctionDef) -> str:
    """`def name(parameters):` without annotations."""
    args = node.args
    plain = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(plain) - len(args.defaults)) + list(args.defaults)
    parts = [a.arg + (f"={ast.unparse(d)}" if d else "") for a, d in zip(plain, defaults, strict=True)]
    parts += [f"*{args.vararg.arg}"] if args.vararg else []
    parts += [f"**{args.kwarg.arg}"] if args.kwarg else []
    return f"def {node.name}({', '.join(parts)}):".replace("'", '"')


def without_hints(source: str) -> str:
    """The source without annotations; the fields of dataclasses keep theirs."""
    tree = ast.parse(source)
    edits = []
    fields = {id(s) for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.decorator_list for s in n.body}
    lines = source.split("\n")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            last = node.body[0].lineno - 1
            while not lines[last - 1].rstrip().endswith(":"):
                last -= 1
            edits.append((node.lineno, node.col_offset, last, len(lines[last - 1]), _header(node)))
        elif isinstance(node, ast.AnnAssign) and id(node) not in fields and node.value is not None:
            text = f"{ast.unparse(node.target)} = {ast.get_source_segment(source, node.value)}"
            edits.append((node.lineno, node.col_offset, node.end_lineno or 0, node.end_col_offset or 0, text))
    return _replace(source, edits)


def summary(node: Node) -> str:
    """First line of the docstring."""
    return (ast.get_docstring(node) or "").split("\n")[0]


def with_docstring(source: str, choice: str) -> str:
    """The source with its whole docstring (`full`), one line of it (`line`), in a comment (`comment`) or none."""
    node = ast.parse(source).body[0]
    assert isinstance(node, Node)
    doc = node.body[0]
    if choice == "full" or not isinstance(doc, ast.Expr) or doc.end_lineno is None:
        return source
    lines = source.split("\n")
    after = doc.end_lineno
    if choice == "line":
        lines[doc.lineno - 1 : after] = [f'    """{summary(node)}"""']
        return "\n".join(lines)
    if after < len(lines) and not lines[after].strip():
        after += 1
    lines[doc.lineno - 1 : after] = []
    return "\n".join([*([f"# {summary(node)}"] if choice == "comment" else []), *lines])


def renamed(source: str, names: dict[str, str]) -> str:
    """The source with variables, parameters, functions and classes renamed; attributes keep their names."""
    edits = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and node.id in names:
            edits.append((node.lineno, node.col_offset, node.lineno, node.col_offset + len(node.id), names[node.id]))
        elif isinstance(node, ast.arg) and node.arg in names:
            edits.append((node.lineno, node.col_offset, node.lineno, node.col_offset + len(node.arg), names[node.arg]))
        elif isinstance(node, Node) and node.name in names:
            start = node.col_offset + (4 if isinstance(node, ast.FunctionDef) else 6)
            edits.append((node.lineno, start, node.lineno, start + len(node.name), names[node.name]))
    return _replace(source, edits)


def with_single_quotes(source: str) -> str:
    """The source with its short strings in single quotes."""
    edits = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        text = token.string
        if token.type == tokenize.STRING and text[0] == '"' and not text.startswith('"""') and "'" not in text:
            edits.append((*token.start, *token.end, f"'{text[1:-1]}'"))
    return _replace(source, [(a, b, c, d, t) for a, b, c, d, t in edits])


# --- choices --------------------------------------------------------------------------------------------------------


def new_names(node: ast.FunctionDef, rng: random.Random) -> dict[str, str]:
    """Other names for some parameters that a newcomer might use for what these are."""
    taken = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} | {
        a.arg for a in ast.walk(node) if isinstance(a, ast.arg)
    }
    parameters = [a.arg for a in node.args.args]
    hints = [ast.unparse(a.annotation) if a.annotation else "" for a in node.args.args]
    names: dict[str, str] = {}
    if tuple(parameters[:2]) in (("a", "b"), ("first", "second")):
        kind = "list" if hints[0].startswith("list") else "str" if hints[0] == "str" else "number"
        names = dict(zip(parameters, rng.choice(PAIRS[kind]), strict=False))
    for parameter in parameters:
        if parameter in PARAMETERS and parameter not in names:
            names[parameter] = rng.choice(PARAMETERS[parameter])
    fits = len(set(names.values())) == len(names) and not taken & set(names.values())
    return names if fits else {}


def new_name(name: str, rng: random.Random) -> str:
    """Another name for a function: one of its own synonyms, or a word exchanged."""
    if name in FUNCTIONS and rng.random() < 0.8:
        return rng.choice(FUNCTIONS[name])
    words = [rng.choice(WORDS[w]) if w in WORDS and rng.random() < 0.6 else w for w in name.split("_")]
    return "_".join(words)


def rewritten(source: str, rng: random.Random) -> str:
    """The source with some names and quotes of its own."""
    node = ast.parse(source).body[0]
    names: dict[str, str] = {}
    if isinstance(node, ast.FunctionDef):
        names = new_names(node, rng) if rng.random() < 0.45 else {}
        if rng.random() < 0.3:
            names[node.name] = new_name(node.name, rng)
    elif rng.random() < 0.5:
        for attribute, others in ATTRIBUTES.items():
            new = rng.choice(others)
            if f"self.{attribute}" in source and not re.search(rf"\b{new}\b", source):
                source = re.sub(rf"\bself\.{attribute}\b", f"self.{new}", source)
    source = renamed(source, names) if names else source
    return with_single_quotes(source) if rng.random() < 0.3 else source


def _imports_inside(source: str, imports: list[str]) -> str:
    """A function with its imports as its first lines, after the docstring."""
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef)
    has_doc = ast.get_docstring(node) is not None
    first = node.body[0]
    start = min([first.lineno, *(d.lineno for d in getattr(first, "decorator_list", ()))])
    at = (first.end_lineno or 0) if has_doc else start - 1
    lines = source.split("\n")
    return "\n".join([*lines[:at], *(f"    {line}" for line in imports), *lines[at:]])


def variant(definition: Definition, rng: random.Random) -> str:
    """One document of a definition."""
    weights = (60, 22, 10, 8) if isinstance(definition.node, ast.FunctionDef) else (75, 15, 5, 5)
    source = with_docstring(definition.source, rng.choices(("none", "line", "full", "comment"), weights)[0])
    others = [definition.module[n] for n in definition.uses() if n in definition.module and n != definition.name]
    others = [with_docstring(other, "none") for other in others]
    based = isinstance(definition.node, ast.ClassDef) and bool(definition.node.bases)
    above = based or rng.random() < 0.4
    parts = [source, *others]
    hints = {n.id for part in parts for n in ast.walk(ast.parse(part)) if isinstance(n, ast.Name)}
    needs = {n.id for part in parts for n in ast.walk(ast.parse(without_hints(part))) if isinstance(n, ast.Name)}
    typed = rng.random() < 0.3 and (above or not (hints - needs) & set(definition.imports))
    if not typed:
        parts = [without_hints(part) for part in parts]
    imports = sorted(definition.imports[n] for n in (hints if typed else needs) if n in definition.imports)
    parts[0] = rewritten(parts[0], rng)
    future = "from __future__ import annotations\n" if typed and definition.name in hints else ""
    if imports and not above and len(parts) == 1 and isinstance(definition.node, ast.FunctionDef):
        parts[0] = _imports_inside(parts[0], imports)
        imports = []
    if above:
        parts = parts[1:] + parts[:1]
    head = future + "\n".join(imports) + ("\n\n\n" if imports else "")
    return _WAY.sub(r"\1", head + "\n\n\n".join(parts)) + "\n"


def _with_test(definition: Definition, rng: random.Random) -> str:
    """The definition as it is named here, followed by its examples as a test or a call."""
    text = variant(definition, rng)
    name = definition.called
    examples = re.findall(rf"^ +>>> ({definition.name}\(.*\))\n +(\S.*)$", definition.source, re.MULTILINE)
    if not examples or f"def {name}(" not in text:
        return text
    call, value = (_WAY.sub(r"\1", part) for part in examples[0])
    if parses(value) and rng.random() < 0.5:
        return f"{text}\n\ndef test_{name}():\n    assert {call} == {value}\n"
    return f'{text}\n\nif __name__ == "__main__":\n    print({call})\n'


def document(all_definitions: list[Definition], at: int, rng: random.Random) -> str:
    """A document that begins with one definition: mostly alone, sometimes with a test, or others of its module."""
    choice, definition = rng.random(), all_definitions[at]
    if choice < 0.08:
        return _with_test(definition, rng)
    if choice < 0.2:
        near = all_definitions[max(0, at - 8) : at + 9]
        joined = [definition, *rng.sample(near, min(len(near), rng.randint(1, 2)))]
        return "\n\n".join(variant(d, rng) for d in joined)
    return variant(definition, rng)

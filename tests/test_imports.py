"""Imports point down, pipelines to refact to replit to weights, in no circle; and are cheap where they must be."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What each package may import of ours; `weights` also keeps clear of MAX and torch.
ALLOWED = {
    "weights": {"weights"},
    "replit": {"replit", "weights"},
    "refact": {"refact", "replit", "weights"},
    "pipelines": {"pipelines", "refact", "replit", "weights"},
}
OURS = {*ALLOWED, "tests", "training", "benchmarks"}
FILES = [file for package in ALLOWED for file in sorted((ROOT / package).rglob("*.py"))]


def imported(source: str, package: str) -> set[str]:
    """The first names of all modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(package if node.level else (node.module or "").split(".")[0])
    return names


def upward(source: str, package: str) -> set[str]:
    found = imported(source, package)
    wrong = (found & OURS) - ALLOWED[package]
    return wrong | (found & {"max"} if package == "weights" else set())


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_file_imports_upward(file: Path) -> None:
    package = file.relative_to(ROOT).parts[0]
    assert not upward(file.read_text(), package)


def test_an_upward_import_is_found() -> None:
    assert upward("def f():\n    from replit.config import x\n", "weights") == {"replit"}
    assert upward("import max.graph", "weights") == {"max"}
    assert upward("import max.graph\nfrom weights import hub", "replit") == set()
    assert upward("from pipelines.commands.cli import main", "replit") == {"pipelines"}
    assert upward("import training.train", "pipelines") == {"training"}


def modules() -> dict[str, Path]:
    """All modules of the tree by the name under which they are imported; a package has its own name."""
    files = {file: file.relative_to(ROOT) for folder in OURS for file in sorted((ROOT / folder).rglob("*.py"))}
    names = {".".join(inside.with_suffix("").parts): file for file, inside in files.items()}
    return {name.removesuffix(".__init__").removeprefix("tests."): file for name, file in names.items()}


def imported_modules(source: str, known: Collection[str]) -> set[str]:
    """The modules among `known` that a file imports, wherever in it: in functions and for types too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            # a name that is no module comes from the package itself
            found |= below & set(known) | ({node.module} if below - set(known) else set())
    return found & set(known)


def circle(graph: Mapping[str, Collection[str]]) -> list[str]:
    """The modules of one circle, [] if there is none."""
    left = {module: set(targets) for module, targets in graph.items()}
    while ready := [module for module, targets in left.items() if not targets]:
        for module in ready:
            del left[module]
        for targets in left.values():
            targets -= set(ready)
    if not left:
        return []
    path = [min(left)]  # each of what is left imports another one of it
    while (following := min(left[path[-1]])) not in path:
        path.append(following)
    return path[path.index(following) :]


def test_imports_make_no_circle() -> None:
    """Not even lazy ones, nor those for types alone."""
    files = modules()
    graph = {name: imported_modules(file.read_text(), files) for name, file in files.items()}
    assert sum(map(len, graph.values())) > 2 * len(graph)  # it did read them
    assert not circle(graph)


def test_a_circle_is_found() -> None:
    known = {"p", "p.a", "p.b", "p.c"}
    lazy = imported_modules("def f():\n    from p.b import x\n", known)
    typed = imported_modules("if TYPE_CHECKING:\n    from p import a, c\n", known)
    assert (lazy, typed) == ({"p.b"}, {"p.a", "p.c"})
    assert circle({"p": set(), "p.a": lazy, "p.b": typed, "p.c": {"p"}}) == ["p.a", "p.b"]
    assert circle({"p": set(), "p.a": {"p.b"}, "p.b": {"p.c"}, "p.c": {"p"}}) == []
    assert circle({"p": imported_modules("import p", known)}) == ["p"]


def test_no_folder_of_pipelines_is_too_full() -> None:
    """At most 12 files: who reads a folder's list shall see what it is about."""
    folders = Counter(
        file.parent.relative_to(ROOT).as_posix() for file in FILES if file.is_relative_to(ROOT / "pipelines")
    )
    assert {folder: count for folder, count in folders.items() if count > 12} == {}
    assert folders["pipelines"] > 1  # it did see them


def test_only_the_command_line_knows_the_server() -> None:
    """And of it no more than the options and the starts: none imports the extra's packages. On Ray all of it runs."""
    outside = [file for file in FILES if not {"server", "scale"} & set(file.relative_to(ROOT).parts)]
    users = {file.name: set(re.findall(r"pipelines\.server[.\w]*", file.read_text())) for file in outside}
    assert {name: found for name, found in users.items() if found} == {
        "cli.py": {"pipelines.server.options", "pipelines.server.serve"},
        "batch.py": {"pipelines.server.offline.feed", "pipelines.server.offline.run", "pipelines.server.options"},
    }


@pytest.mark.parametrize(
    "module",
    [
        "weights",
        "replit",
        "weights.files.checkpoint",
        "weights.quantization",
        "weights.tokenizers.tokenizer",
        "weights.tokenizers.load",
        "weights.hub",
        "replit.config",
    ],
)
def test_reading_weights_imports_nothing_heavy(module: str) -> None:
    """Start-up time: these are loaded by every command, the libraries only where they are used."""
    code = f"import sys, {module}; print(*(name for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"max", "tokenizers", "huggingface_hub", "gguf", "torch", "transformers", "safetensors"}
    assert not loaded & heavy
    if module in ("weights", "replit"):
        assert "numpy" not in loaded

"""Which source files are worth learning from, and the text that is kept of them.

Works on one file at a time; duplicates between files are the business of `dedup.py`.
"""

from __future__ import annotations

import ast
import re
import warnings

_SKIP_DIRS = re.compile(
    r"(^|/)(_?vendor(ed)?|_vendored_packages|extern(s|als?)?|third_party|site-packages|node_modules|migrations|alembic"
    r"|locales?|l10n|fixtures|testdata|test_data|data|_generated|generated)(/|$)"
)
_SKIP_FILES = re.compile(r"(_pb2(_grpc)?|_version|versioneer|_build_info|_parser_tables|lextab|parsetab)\.pyi?$")
_GENERATED = re.compile(
    r"do not (edit|modify)|auto-?(matically )?generated|generated (by|from|with)|@generated", re.IGNORECASE
)
_TEST = re.compile(r"(^|/)(tests?|testing|unittests?|functional)(/|$)|(^|/)(test_[^/]*|[^/]*_tests?|conftest)\.py$")
_LEGAL = re.compile(r"licen[cs]e|copyright|all rights reserved|SPDX", re.IGNORECASE)
_BLOB = re.compile(r"[A-Za-z0-9+/=\\]{200,}")

MIN_BYTES, MAX_BYTES = 200, 200_000


def is_test(path: str) -> bool:
    """True for test code, which is sampled less."""
    return _TEST.search(path) is not None


def strip_header(text: str) -> str:
    """Drops the leading comment lines if they speak of licences: the same dozen lines in thousands of files."""
    lines = text.splitlines(keepends=True)
    end = 0
    while end < len(lines) and (lines[end].startswith("#") or not lines[end].strip()):
        end += 1
    header = "".join(lines[:end])
    return "".join(lines[end:]) if _LEGAL.search(header) else text


def reject_reason(path: str, text: str) -> str | None:
    """Why a file is left out, or None if it is kept."""
    if _SKIP_DIRS.search(path):
        return "vendored or data folder"
    if _SKIP_FILES.search(path):
        return "generated name"
    if not MIN_BYTES <= len(text) <= MAX_BYTES:
        return "size"
    if _GENERATED.search(text[:600]):
        return "generated"
    lines = text.splitlines()
    if max(map(len, lines)) > 1000 or len(text) / len(lines) > 80:
        return "long lines"
    if _BLOB.search(text):
        return "data blob"
    if sum(c.isdigit() for c in text) > 0.15 * len(text):
        return "numbers"
    if sum(not c.isascii() for c in text) > 0.05 * len(text):
        return "not ASCII"
    return None if parses(text) else "does not parse"


def parses(text: str) -> bool:
    """True if this Python accepts the text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    return True


def clean(raw: bytes) -> str | None:
    """Text of a file with Unix line ends, no licence header, no trailing blanks; None if it is not UTF-8."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
    text = strip_header(text.replace("\r\n", "\n").replace("\t", "    ").lstrip("\ufeff"))
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n") + "\n"

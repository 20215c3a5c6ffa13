"""Brackets, strings and comments of source text, one character at a time, so that a stream can be followed.

Not a parser: regular expression literals of JavaScript and nested template strings are read as plain text.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import PurePath

_OPENING = {")": "(", "]": "[", "}": "{"}


@dataclass(frozen=True)
class Language:
    """How a family of languages marks strings, comments and blocks."""

    name: str
    line_comment: str
    block_comments: bool
    quotes: str
    triple_quotes: bool
    multiline_quotes: str = ""
    lifetimes: bool = False  # Rust: 'a is a lifetime, 'a' a character


PYTHON = Language("python", "#", False, "\"'", True)
BRACES = Language("braces", "//", True, "\"'`", False, "`")
RUST = Language("rust", "//", True, '"', False, '"', True)

_BY_SUFFIX = {".py": PYTHON, ".pyi": PYTHON, ".rs": RUST} | dict.fromkeys(
    (
        ".c .h .cc .cpp .cxx .hpp .cs .css .d .dart .go .java .js .jsx .kt .m .mjs .php .scala .swift .ts .tsx .zig"
    ).split(),
    BRACES,
)


def language_of(path: str) -> Language | None:
    """The language that a file's name, or its ending alone, tells, None for an unknown one."""
    return _BY_SUFFIX.get(PurePath(path).suffix.lower() or path.lower())


def guess_language(text: str) -> Language:
    """The language of a piece of code: braces where more lines end in { } ; than Python would have."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    braces = sum(line.endswith(("{", "}", ";", "*/")) for line in lines)
    python = sum(line.endswith((":", '"""')) for line in lines)
    if braces <= python:
        return PYTHON
    rust = any(line.lstrip().startswith(("fn ", "pub ", "impl", "let mut ", "use ")) for line in lines)
    return RUST if rust else BRACES


class Lexer:
    """The state after the characters that were fed."""

    def __init__(self, language: Language) -> None:
        self.language = language
        self.brackets: list[str] = []
        self.quote = ""  # the quotes that end the string we are in
        self.comment = ""  # "line", "block" or ""
        self.escaped = False  # after a backslash
        self._previous = ""
        self._empty = ""  # the quote of an empty string that was just closed: a third one makes it triple
        self._run = 0  # quotes in a row inside a triple-quoted string
        self._literal = 0  # Rust: characters that may still belong to 'x'

    def __deepcopy__(self, memo: dict[int, object]) -> Lexer:
        """Of very many brackets too in no time."""
        twin = copy.copy(self)
        twin.brackets = self.brackets[:]
        return twin

    @property
    def in_code(self) -> bool:
        """Whether the next character is neither in a string nor in a comment."""
        return not self.quote and not self.comment

    @property
    def continues(self) -> bool:
        """Whether a line break now would not end a statement."""
        if self.comment:
            return self.comment == "block" or bool(self.brackets)
        multiline = len(self.quote) == 3 or self.quote in self.language.multiline_quotes
        return (bool(self.quote) and multiline) or bool(self.brackets) or self.escaped

    def feed(self, char: str) -> bool:
        """Takes one character; whether it is code (a bracket, a word, an operator) rather than text."""
        if self.comment:
            self._in_comment(char)
            return False
        if self.quote:
            self._in_string(char)
            return False
        if self._literal:
            return self._in_rust_literal(char)
        return self._in_code(char)

    def _in_comment(self, char: str) -> None:
        end = "\n" if self.comment == "line" else "*/"
        self._previous += char
        if self._previous.endswith(end):
            self.comment, self._previous = "", ""
        else:
            self._previous = char

    def _in_string(self, char: str) -> None:
        if self.escaped:
            self.escaped, self._run = False, 0
        elif char == "\\":
            self.escaped, self._run = True, 0
        elif char == self.quote[0]:
            self._run += 1
            if self._run == len(self.quote):
                self._empty = char if self._previous == "open" else ""
                self.quote, self._run = "", 0
        else:
            self._run = 0
            if char == "\n" and len(self.quote) == 1 and self.quote not in self.language.multiline_quotes:
                self.quote = ""  # a string that was never closed
        self._previous = ""

    def _in_rust_literal(self, char: str) -> bool:
        self._literal -= 1
        if self._literal and char == "\\":
            self.quote, self.escaped, self._literal = "'", True, 0
            return False
        if not self._literal and char != "'":
            return self._in_code(char)
        return False

    def _in_code(self, char: str) -> bool:
        previous, empty = self._previous, self._empty
        self._previous, self._empty, self.escaped = char, "", char == "\\"
        if char == self.language.line_comment or previous + char == self.language.line_comment:
            self.comment = "line"
            return False
        if self.language.block_comments and previous + char == "/*":
            self.comment, self._previous = "block", ""
            return False
        if char in self.language.quotes:
            triple = self.language.triple_quotes and char == empty
            self.quote, self._previous = (char * 3, "") if triple else (char, "open")
            return False
        if self.language.lifetimes and char == "'":
            self._literal = 2
            return False
        if char in "([{":
            self.brackets.append(char)
        elif char in ")]}":
            self._close(_OPENING[char])
        return not char.isspace()

    def _close(self, opening: str) -> None:
        """Closes the innermost bracket of that kind, and those inside it that were never closed."""
        if opening in self.brackets:
            while self.brackets.pop() != opening:
                pass

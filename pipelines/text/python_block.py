"""Where the indented block ends in which a piece of Python is continued."""

from __future__ import annotations

import re
from typing import Literal

from pipelines.text.lexer import PYTHON, Lexer

Verdict = Literal["inside", "undecided", "end"]

_DEEPEST = 500  # deeper than any line
_TAB = 8  # as Python's own tokenizer counts

# What may follow at the same indentation as part of the same statement.
_CLAUSES: dict[str, tuple[str, ...]] = {
    "if": ("elif", "else"),
    "elif": ("elif", "else"),
    "for": ("else",),
    "while": ("else",),
    "async": ("else",),
    "try": ("except", "finally"),
    "except": ("except", "else", "finally"),
    "else": ("finally",),
}
_COMPOUND = frozenset({*_CLAUSES, "def", "class", "finally", "with"})
_SOFT_KEYWORDS = frozenset({"match", "case"})  # names, too: only a colon tells
_TRIPLE = re.compile(r"\"{3}|'{3}")
# A quote: attributes have their docstrings below themselves.
_BEFORE_STRING = re.compile(r"(?:[=(\[{,:+%\"']|\b(?:return|yield))$")
_AFTER_QUOTES = re.compile(r"[ \t]*[^\s)\]},.:;+%#]")  # of a string that begins; others go on with the statement


def open_quotes(text: str) -> str:
    """The quotes of a string that is open where a window on a file begins, "" for none.

    Where a string begins there is text after its quotes, or before them a header, an operator, a bracket or a comment.
    Most of the quotes decide whether the first begins one or ends it.
    """
    votes, first = 0, ""
    for count, found in enumerate(_TRIPLE.finditer(text)):
        first = first or found[0]
        before = text[: found.start()].rstrip("rbfuRBFU")
        code = before.rstrip()
        line = code[code.rfind("\n") + 1 :].lstrip()  # the last that is not blank
        begins = "\n" in before[len(code) :] or not code
        leads = begins and _AFTER_QUOTES.match(text, found.end()) is not None
        if leads or line:
            opens = leads or bool(_BEFORE_STRING.search(line)) or line.startswith("#")
            votes += 1 if opens == (count % 2 == 0) else -1
    return first if votes < 0 else ""


class _Line:
    """A logical line: its indentation, its first word, and whether it is a header so far."""

    def __init__(self, indent: int, first: str) -> None:
        self.indent = indent
        self.word = ""
        self.complete = False  # the first word is over
        self.first = first  # its first character
        self.colon = False  # a colon outside brackets
        self.after_colon = False  # and something after it

    @property
    def is_header(self) -> bool:
        """Whether a suite follows, or is still to be announced by a colon."""
        compound = self.word in _COMPOUND or (self.colon and self.word in _SOFT_KEYWORDS)
        return compound and not self.after_colon

    @property
    def leads(self) -> bool:
        """Comments and decorators belong to what follows them."""
        return self.first in "#@"


class PythonBlock:
    """Follows the code before the cursor with `skip`, then its continuation with `feed`."""

    def __init__(self) -> None:
        self._lexer = Lexer(PYTHON)
        self._enclosing: list[_Line] = []  # lines of rising indentation: the last one and its headers
        self._line: _Line | None = None  # the logical line we are in, None at the start of one
        self._indent = 0
        self._limit: int | None = None  # lines must be indented deeper; None: the next line decides
        self._header: _Line | None = None
        self._pending: _Line | None = None  # a line that may be a clause or the end

    def skip(self, text: str) -> None:
        """Takes the code before the cursor, which may begin anywhere."""
        quotes = open_quotes(text)
        # A line of its own, deeper than any other, so that none is in its block.
        for char in (" " * _DEEPEST + quotes + "\n" if quotes else "") + text:
            self._advance(char)
        self._choose_block()

    def _choose_block(self) -> None:
        if self._line is None and not (self._enclosing and self._enclosing[-1].is_header):
            if self._indent:
                self._enter(self._indent)
            return
        last = self._enclosing[-1]
        if last.is_header:
            self._limit, self._header = last.indent, last
        elif not last.leads:
            self._enter(last.indent)

    def _enter(self, indent: int) -> None:
        """The block that a line of this indentation is in; at the top level, that one statement."""
        headers = [line for line in self._enclosing if line.indent < indent]
        if headers:
            self._header, self._limit = headers[-1], headers[-1].indent
        elif self._enclosing:
            self._header, self._limit = self._enclosing[-1], max(indent - 1, 0)

    def feed(self, char: str) -> Verdict:
        """Whether what came so far, this character included, belongs to the block.

        After "undecided" or at the end of the text, `at_end` tells.
        """
        fresh = self._advance(char)
        if fresh:
            return self._judge(fresh)
        if self._pending is not None:
            return self._judge_clause(self._pending)
        return "inside" if self._line is not None or self._lexer.continues else "undecided"

    def at_end(self) -> bool:
        """Whether an undecided last line belongs to the block after all."""
        if self._pending is None:
            return True
        self._pending.complete = True
        return self._judge_clause(self._pending) == "inside"

    def _judge(self, line: _Line) -> Verdict:
        if self._limit is None:
            if line.indent > 0 or not line.leads:
                self._enter(line.indent)
            return "inside"
        if line.indent > self._limit:
            return "inside"
        return self._judge_clause(line) if line.indent == self._limit else "end"

    def _judge_clause(self, line: _Line) -> Verdict:
        clauses = _CLAUSES.get(self._header.word, ()) if self._header else ()
        if line.complete and line.word in clauses:
            self._header, self._pending = line, None
            return "inside"
        if not line.complete and any(clause.startswith(line.word) for clause in clauses):
            self._pending = line
            return "undecided"
        return "end"

    def _advance(self, char: str) -> _Line | None:
        """Follows one character; the logical line that it begins, if it does."""
        if char == "\n":
            self._newline()
            return None
        if self._line is None:
            if char in " \t\r\f":
                self._indent += _TAB - self._indent % _TAB if char == "\t" else char == " "
                return None
            return self._begin(char)
        was_code = self._lexer.in_code
        code = self._lexer.feed(char)
        self._follow(self._line, char, code or (was_code and not self._lexer.in_code))
        return None

    def _newline(self) -> None:
        continues = self._lexer.continues  # a backslash counts for this line break only
        self._lexer.feed("\n")
        if self._line is not None and continues:
            return
        if self._line is not None:
            self._line.complete = True
        self._line, self._indent = None, 0

    def _begin(self, char: str) -> _Line:
        line = _Line(self._indent, char)
        while self._enclosing and self._enclosing[-1].indent >= line.indent:
            self._enclosing.pop()
        self._enclosing.append(line)
        self._line = line
        self._lexer.feed(char)
        self._follow(line, char, True)
        return line

    def _follow(self, line: _Line, char: str, code: bool) -> None:
        if not line.complete and (char.isalnum() or char == "_"):
            line.word += char
            return
        line.complete = True
        if char == "=" and line.colon and not line.after_colon:
            line.colon = False  # of a `:=`
        elif code and line.colon and self._lexer.comment != "line":
            line.after_colon = True
        elif char == ":" and code and not self._lexer.brackets:
            line.colon = True

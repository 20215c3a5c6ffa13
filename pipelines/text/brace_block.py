"""Where the block or statement ends in which a piece of code of a brace language is continued."""

from __future__ import annotations

import re

from pipelines.text.lexer import Language, Lexer
from pipelines.text.python_block import Verdict

# A statement with a body of its own: a keyword, or what reads like the head of a function.
_HEAD = re.compile(
    r"\s*(?:(?:(?:if|for|while|else|do|try|switch|catch|class|struct|enum|interface|function|fn|func|impl|match|loop"
    r"|trait|union|namespace|module)\b[^{}]*)|(?:(?!return\b|new\b|await\b|throw\b)[\w<>\[\]*&:,~]+\s+)+"
    r"[*&~]?[\w:~]+\s*\([^;{}=]*)$"
)
_LONGEST_HEAD = 2000
# A statement whose body is the next one, in braces or not.
_BARE = re.compile(r"\s*(?:(?:else\s+)?(?:if|for|while)\b\s*(?=\()|(?:else|do)\s*$)")
# What continues a statement whose braces are closed.
_CLAUSES = ("else", "catch", "finally", "elif", "elseif")
# A line that ends or begins so goes on; "{" alone on a line is the body of the line before.
_OPEN_ENDS = frozenset("=,+-*/%&|^?:<>(.\\")
_OPEN_STARTS = frozenset("{.?:&|+*=")
_LEADING = frozenset("@#")


class BraceBlock:
    """Follows the code before the cursor with `skip`, then its continuation with `feed`."""

    def __init__(self, language: Language) -> None:
        self._lexer = Lexer(language)
        self._base = 0  # brackets that stay open at the end of the block
        self._single = False  # one statement, rather than the block around the cursor
        self._begun = False  # the statement has more than comments and annotations
        self._leading = False  # in an annotation or preprocessor line
        self._fresh = True  # no code on this line yet
        self._statement = ""  # the end of its code, strings and comments left out
        self._last, self._earlier = "", ""  # the last two characters of code
        self._closed = False  # the block is over, unless a clause follows
        self._tail = False  # what follows on the line of its brace
        self._broken = False  # and its line as well
        self._word = ""  # a word that may be such a clause

    def skip(self, text: str) -> None:
        """Takes the code before the cursor."""
        for char in text:
            self._follow(char)
        brackets, statement = self._lexer.brackets, self._statement
        self._single = "{" not in brackets or bool(_HEAD.match(statement))
        last_brace = max((i for i, char in enumerate(brackets) if char == "{"), default=-1)
        self._base = last_brace + 1 if self._single else last_brace
        # Where no semicolons end them, lines before the cursor's are other statements.
        self._begun = bool(statement.rpartition("\n")[2].strip()) and not self._leading

    def _follow(self, char: str) -> bool:
        """Reads one character; whether it is code."""
        before = self._lexer.comment
        code = self._lexer.feed(char)
        if self._lexer.comment and not before:  # its first character was taken for code
            self._statement, self._last = self._statement[:-1], self._earlier
        if char == "\n":
            self._fresh, self._leading = True, False
        elif code or not (char.isspace() or before or self._lexer.comment):
            self._leading = self._leading or (self._fresh and char in _LEADING)
            self._fresh, self._earlier, self._last = False, self._last, char
        in_parentheses = self._lexer.brackets[-1:] == ["("]  # the semicolons of a for loop
        if code and char in "{};" and not (char == ";" and in_parentheses):
            self._statement = ""
        elif code or char.isspace():
            self._statement = (self._statement + char)[-_LONGEST_HEAD:]
        return code

    def feed(self, char: str) -> Verdict:
        """Whether what came so far, this character included, belongs to the block."""
        if self._closed and not self._tail and self._lexer.in_code:
            verdict = self._after_close(char)
            if verdict is not None:
                return verdict
        leading = self._leading
        code = self._follow(char)
        depth = len(self._lexer.brackets)
        if depth < self._base and (self._single or (self._tail and char == "}")):
            return "end"  # a bracket that is not this statement's
        if char == "\n":
            self._line_break(depth, leading)
        # A "/" may begin a comment, which begins no statement.
        visible = not char.isspace() and char != "/" and (code or not self._lexer.comment)
        self._begun = self._begun or (visible and not self._leading)
        if code and char == "}" and self._is_end(depth):
            self._close(broken=False)
        return "undecided" if self._broken else "inside"

    def _is_end(self, depth: int) -> bool:
        return depth == self._base if self._single else depth <= self._base

    def _close(self, broken: bool) -> None:
        self._closed, self._broken, self._tail, self._word = True, broken, False, ""

    def _line_break(self, depth: int, leading: bool) -> None:
        """A line break ends a single statement with nothing open, and any closed block."""
        whole = self._single and self._begun and depth == self._base and self._lexer.in_code
        goes_on = self._last in _OPEN_ENDS or leading or awaits_body(self._statement)
        if (self._closed and depth <= self._base) or (whole and not goes_on):
            self._close(broken=True)

    def _after_close(self, char: str) -> Verdict | None:
        """The verdict on a character after the end; None: it belongs to the block and is read as usual."""
        if char.isalpha() or (self._word and char == "_"):
            self._word += char
            if any(clause.startswith(self._word) for clause in _CLAUSES):
                return self._hold(char)
            return self._no_clause()
        if not self._word and char.isspace():
            return None
        if not self._word and not self._broken:
            return "end" if char == "}" else None
        goes_on = self._last not in "};" and char in _OPEN_STARTS
        if self._word not in _CLAUSES and (self._word or not goes_on):
            return self._no_clause()
        if self._word:  # one more statement, with braces or without
            self._single, self._base = True, len(self._lexer.brackets)
        self._closed, self._broken, self._statement, self._word = False, False, self._word, ""
        return None

    def _no_clause(self) -> Verdict | None:
        """What stands on the line of the brace belongs to it: `} name;`, `} while (x);`, `} from "y"`."""
        if self._broken:
            return "end"
        self._tail, self._word = True, ""
        return None

    def _hold(self, char: str) -> Verdict:
        self._lexer.feed(char)
        self._last = char
        return "undecided"

    def at_end(self) -> bool:
        """Whether an undecided end of the text belongs to the block after all."""
        return not self._broken or not self._word or self._word in _CLAUSES


def awaits_body(statement: str) -> bool:
    """Whether a statement's code ends in `if (...)`, `for (...)`, `while (...)`, `else` or `do`, and began so."""
    while (found := _BARE.match(statement)) is not None:
        statement = _after_parentheses(statement[found.end() :])
        if not statement.strip():
            return True
    return False


def _after_parentheses(text: str) -> str:
    """What follows the parentheses that a text begins with."""
    depth = 0
    for index, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0:
            return text[index + 1 :]
    return text

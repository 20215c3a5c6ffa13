"""The files of one evaluation, written line by line so that an interrupted one goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.evaluation.sandbox import Outcome, Status
from weights.errors import UserError

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


class Records:
    """A directory with settings, samples, outcomes and results."""

    def __init__(self, directory: Path, settings: Mapping[str, Any]) -> None:
        """Raises UserError for a directory that cannot be written or is of an evaluation with other settings."""
        self.directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            before = self._path(SETTINGS)
            if before.exists():
                _compare(json.loads(before.read_text()), settings, directory)
            else:
                before.write_text(json.dumps(settings, indent=2) + "\n")
        except (OSError, ValueError) as error:
            raise UserError(f"cannot use {directory} ({error}); expected a directory: give another --output") from None
        self.samples: dict[Key, Sample] = {}
        for line in self._lines(SAMPLES):
            sample = Sample(**line)
            self.samples[sample.task_id, sample.number] = sample
        self.outcomes: dict[Key, Outcome] = {}
        for line in self._lines(OUTCOMES):
            status: Status = line["status"]
            self.outcomes[line["task_id"], line["number"]] = Outcome(status, line["detail"])

    def _path(self, name: str) -> Path:
        return self.directory / name

    def _lines(self, name: str) -> list[dict[str, Any]]:
        """The whole lines of a file; the last one may have been cut off, and is then removed."""
        path = self._path(name)
        if not path.exists():
            return []
        whole, _, rest = path.read_text().rpartition("\n")
        if rest:
            path.write_text(f"{whole}\n" if whole else "")
        try:
            return [json.loads(line) for line in whole.splitlines()]
        except ValueError:
            raise UserError(f"{path} is damaged; expected lines of JSON: give another --output") from None

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
        with self._path(name).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def write_results(self, results: Mapping[str, Any]) -> Path:
        """Writes results.json; its path."""
        path = self._path(RESULTS)
        path.write_text(json.dumps(results, indent=2) + "\n")
        return path


def _compare(before: Mapping[str, Any], now: Mapping[str, Any], directory: Path) -> None:
    for key in {**before, **now}:
        if before.get(key) != now.get(key):
            raise UserError(
                f"{directory} holds an evaluation with {key} {before.get(key)!r}; expected {now.get(key)!r} to go on "
                "with it: give another --output"
            )

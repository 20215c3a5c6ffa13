"""Finds benchmark problems in training files by shared word n-grams.

A file is a hit if it shares a run of `N` words with a problem's prompt and solution together.
"""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

N = 13  # as in the GPT-3 paper, on identifier and operator words
_WORD = re.compile(r"\w+|[^\w\s]")
# Runs made of typing imports and asserts say nothing; a gram needs this many distinct words.
_MIN_DISTINCT = 9


def words(text: str) -> list[str]:
    """Identifiers, numbers and single punctuation marks."""
    return _WORD.findall(text)


def grams(text: str) -> set[int]:
    """Hashes of all runs of N words with enough distinct ones."""
    w = words(text)
    runs = (tuple(w[i : i + N]) for i in range(len(w) - N + 1))
    return {hash(run) for run in runs if len(set(run)) >= _MIN_DISTINCT}


def human_eval(path: Path) -> dict[str, set[int]]:
    """Problem name to the n-grams of prompt and canonical solution, from HumanEval.jsonl.gz."""
    with gzip.open(path, "rt") as f:
        problems = [json.loads(line) for line in f]
    return {p["task_id"]: grams(p["prompt"] + p["canonical_solution"]) for p in problems}


def hits(text: str, problems: dict[str, set[int]]) -> list[str]:
    """Names of the problems that the text shares a run of words with."""
    found = grams(text)
    return [name for name, wanted in problems.items() if not found.isdisjoint(wanted)]

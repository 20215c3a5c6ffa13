"""What a newcomer types first comes out right: the functions are run with assertions (training/first_prompts.py)."""

from __future__ import annotations

import pytest

from pipelines.pipeline import Pipeline
from training.first_prompts import FIRST, OTHERS, Question, ask, holds


@pytest.mark.parametrize(("questions", "least"), [(FIRST, 8), (OTHERS, 5)], ids=["first", "others"])
def test_first_prompts_are_answered_right(nano: Pipeline, questions: tuple[Question, ...], least: int) -> None:
    right = []
    for question in questions:
        _, ended, correct = ask(nano, question)
        right.append(ended and correct)
    assert sum(right) >= least, [q.prompt for q, is_right in zip(questions, right, strict=True) if not is_right]


def test_a_completion_that_leaves_early_is_not_right() -> None:
    assert not holds("def one():", "\n    return 2\nraise SystemExit(0)", "assert one() == 1")
    assert holds("def one():", "\n    return 1", "assert one() == 1")

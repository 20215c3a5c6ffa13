"""The results of an evaluation as JSON and as a table, beside what the model's card says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.evaluation.records import Records
from pipelines.evaluation.run import Task
from pipelines.evaluation.scoring import summarize
from pipelines.known_models import KnownModel


def results_of(
    wanted: Sequence[Task], records: Records, ks: Sequence[int], settings: Mapping[str, Any], known: KnownModel | None
) -> dict[str, Any]:
    """All that is known about an evaluation, for results.json."""
    outcomes = {task.key: records.outcomes[task.key] for task in wanted}
    by_task: dict[str, list[bool]] = {}
    for (task_id, _), outcome in outcomes.items():
        by_task.setdefault(task_id, []).append(outcome.passed)
    published = known is not None and known.human_eval is not None and settings["benchmark"] == "humaneval"
    return {
        "settings": dict(settings),
        "problems": len(by_task),
        "samples": len(outcomes),
        "scores": summarize(by_task, ks),
        "published": {"pass@1": known.human_eval / 100, "source": known.human_eval_source}
        if published and known and known.human_eval
        else None,
        "outcomes": dict(Counter(outcome.status for outcome in outcomes.values())),
        "right_samples": {task_id: sum(passed) for task_id, passed in by_task.items()},
    }


def table(results: Mapping[str, Any]) -> list[str]:
    """The scores in percent, line by line."""
    published = results["published"]
    rows = [("", results["settings"]["model"], "published")]
    for name, score in results["scores"].items():
        measured = f"{100 * score['score']:.1f} ± {100 * score['standard_error']:.1f}"
        known = f"{100 * published[name]:.1f}" if published and name in published else "-"
        rows.append((name, measured, known))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    ends = ", ".join(f"{count} {status}" for status, count in sorted(results["outcomes"].items()))
    lines.append(f"{results['problems']} problems, {results['samples']} samples: {ends}")
    if published:
        lines.append(f"published: {published['source']}")
    return lines

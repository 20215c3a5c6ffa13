"""`replit inspect`: what a model file holds, what is missing, and what running it would take.

Imports only click at the top: the command line loads this module to print its help.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from pipelines.terminal.options import PathText, shared
from pipelines.terminal.report import visible
from weights.embedded_models import EMBEDDED
from weights.files.paths import exists
from weights.written import WRITTEN


@click.command()
@click.argument("source", type=PathText(), metavar="FILE|DIR|REPO")
@click.option(
    "--quantization-encoding",
    "encoding",
    type=click.Choice(WRITTEN, case_sensitive=False),
    help="What it would be run with [default: the file's own encoding].",
)
@click.option(
    "--max-length",
    type=click.IntRange(1),
    default=512,
    show_default=True,
    metavar="N",
    help="Longest sequence in tokens that memory is counted for.",
)
@shared("allow_longer", "config_path", "tokenizer_path")
@click.option(
    "--max-cache-batch-size",
    "batch",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Sequences at once that memory is counted for.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def inspect(
    source: str, encoding: str | None, as_json: bool, config_path: str | None, tokenizer_path: str | None, **run: Any
) -> None:
    """Show a model's configuration, tokenizer and tensors, and the memory to run it.

    FILE may also be a serialized model. Of a hub repository's weights only the headers are
    downloaded, unless it holds PyTorch files only. The exit status is 1 if anything is missing.
    """
    config, tokenizer = (Path(path) if path else None for path in (config_path, tokenizer_path))
    report = _report(source, config, tokenizer, encoding, run)
    click.echo(json.dumps(report, indent=2) if as_json else "\n".join(map(visible, _text(report))))
    if report["problems"]:
        raise SystemExit(1)


def _report(
    source: str, config: Path | None, tokenizer: Path | None, encoding: str | None, run: dict[str, Any]
) -> dict[str, Any]:
    from pipelines.commands.convert import open_source
    from pipelines.inspection import Run, inspect_compiled, inspect_model
    from replit.runtime.compiled_file import is_compiled_file
    from weights.tensor import Encoding

    if is_compiled_file(Path(source)):
        return inspect_compiled(Path(source))
    here = source in EMBEDDED or exists(source)
    with nullcontext() if here else tempfile.TemporaryDirectory() as folder:
        headers = Path(folder) if folder else None
        problems: list[str] = []
        checkpoint, _ = open_source(source, headers, config, problems)
        wanted = Run(Encoding(encoding) if encoding else None, **run)
        remote = headers is not None and checkpoint.path.is_relative_to(headers)
        report = inspect_model(checkpoint, wanted, problems, tokenizer, headers_only=remote)
        if remote:
            report["file"]["path"] = source
        return report


def _text(report: dict[str, Any]) -> Iterator[str]:
    file = report["file"]
    parts = f" in {file['parts']} files" if file.get("parts", 1) > 1 else ""
    yield f"{file['path']}: {file['format']}, {file['bytes']:,} bytes{parts}"
    for title in ("general", "config", "tokenizer", "compiled_for"):
        if report.get(title):
            yield from _section(title.replace("_", " "), report[title])
    if "parameters" in report:
        yield from _stored(report)
    yield ""
    yield f"tensors ({len(report['tensors'])})"
    for tensor in report["tensors"]:
        yield "  " + _tensor(tensor)
    if report.get("run"):
        yield from _run(report["run"])
    yield ""
    if "values" in report:
        yield f"values: {report['values']}"
    yield from report["problems"] or ["nothing is missing"]


def _section(title: str, values: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield title
    for key, value in values.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items() if v is not None)
        if value is not None:
            yield f"  {key.removeprefix('general.'):22} {value}"


def _stored(report: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield f"stored: {report['parameters']:,} parameters"
    for encoding, entry in report["encodings"].items():
        yield f"  {encoding:22} {entry['tensors']} tensors, {entry['bytes']:,} bytes"


def _tensor(tensor: dict[str, Any]) -> str:
    shape = " x ".join(map(str, tensor["shape"]))
    line = f"{tensor['name']:44} {shape:>16}  {tensor['encoding']:8}"
    return f"{line} {tensor['bytes']:>14,}" if "bytes" in tensor else line.rstrip()


def _run(run: dict[str, Any]) -> Iterator[str]:
    memory = run["memory"]
    kinds = ", ".join(f"{count} tensors in {kind}" for kind, count in run["encodings"].items())
    yield ""
    yield f"to run on the {run['device'].upper()}: {kinds}"
    yield from (f"  {note}" for note in run["notes"])
    labels = {
        "weights": "weights",
        "cache": f"cache, {run['batch']} x {run['max_length']}",
        "engine": "engine, activations",
        "total": "total",
        "available": "available here",
    }
    for key, label in labels.items():
        yield f"  {label:22} {memory[key] / 1e6:>10,.0f} MB"
    ready = "is compiled" if run["compiled"] else "compiles at the first start, with up to 1 GB more"
    fits = "fits in memory" if memory["total"] < memory["available"] else "does not fit in memory"
    yield f"  {ready}; {fits}"

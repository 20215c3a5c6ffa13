"""`replit models`: the table of pipelines/known_models.py."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from pipelines.terminal.report import visible


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models(as_json: bool) -> None:
    """List the known models: size, licence, context, abilities, and which are on this machine."""
    from pipelines.known_models import KNOWN, MEBI, where

    if as_json:
        rows = [
            asdict(model) | {"abilities": model.abilities, "bytes": model.bytes, "here": where(model)}
            for model in KNOWN
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    table = [("model", "parameters", "bfloat16", "licence", "context", "abilities", "here")]
    for model in KNOWN:
        parameters = f"{model.parameters / 1e9:.2f} B" if model.parameters > 1e9 else f"{model.parameters / 1e6:.2f} M"
        size = f"{model.bytes / MEBI / 1024:.2f} GiB" if model.bytes > MEBI << 10 else f"{model.bytes / MEBI:.1f} MiB"
        here = "yes" if where(model) else "no"
        abilities = ", ".join(model.abilities)
        table.append((model.name, parameters, size, model.licence, str(model.context), abilities, here))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(visible("  ".join(cells).rstrip()))

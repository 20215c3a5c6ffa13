"""`replit fill`: completes at a position of a file, with what stands before and after it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from pipelines.terminal.options import MODEL, SAMPLING, chosen, load_model, shared
from pipelines.terminal.read_text import read_text
from weights.errors import UserError


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--line", required=True, type=int, metavar="N", help="Line of the cursor, from 1.")
@click.option(
    "--column",
    required=True,
    type=int,
    metavar="M",
    help="Column of the cursor in characters, from 1; it stands before that character.",
)
@shared("completion", "suffix_first", completion="block")
@click.option(
    "--token-healing/--no-token-healing",
    default=True,
    show_default=True,
    help="Let the cursor be inside a token: spell the end of what precedes it again.",
)
@click.option("--whole-file", is_flag=True, help="Print the file with the completion in it, not the completion alone.")
@shared(*MODEL, "use_gpu", *SAMPLING, "quiet", max_length=1024, max_new_tokens=128, top_k=1, temperature=1.0, top_p=1.0)
def fill(file: Path, line: int, column: int, **options: Any) -> None:
    """Complete at a position of FILE, by a model with fill-in-the-middle.

    replit fill module.py --line 10 --column 5
    """
    from pipelines.engine.sampling import SamplingParams
    from pipelines.prompts.gap import gap_at
    from pipelines.text.lexer import language_of

    sampling = chosen(options, SAMPLING) | {"completion": options["completion"]}
    SamplingParams(**sampling)  # before anything is loaded
    gap = gap_at(read_text(file, options["quiet"]), line, column, str(file), language_of(file.name))
    model = load_model(options)
    prompt = model.gap(
        gap, options["max_new_tokens"], suffix_first=options["suffix_first"], token_healing=options["token_healing"]
    )
    whole = options["whole_file"]
    _write(gap.prefix if whole else "")
    for piece in model.stream_prompts([prompt], **sampling):
        _write(piece.text)
        if piece.error is not None:
            raise UserError(piece.error)
    _write(gap.suffix if whole else "\n")


def _write(text: str) -> None:
    sys.stdout.buffer.write(text.encode("utf-8", errors="replace"))
    sys.stdout.buffer.flush()

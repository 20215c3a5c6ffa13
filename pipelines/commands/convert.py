"""`replit convert`: a model of any source and format to one GGUF file in a chosen encoding.

Imports only click at the top: the command line loads this module to print its help.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from pipelines.terminal.options import PathText, shared
from pipelines.terminal.report import say, visible
from weights.files.paths import exists, is_dir
from weights.written import WRITTEN

if TYPE_CHECKING:
    from replit.decoder.gguf_export import Conversion
    from weights.files.checkpoint import Checkpoint


@click.command()
@click.argument("source", type=PathText(), metavar="SRC")
@click.argument("destination", type=PathText(), metavar="DST")
@click.option(
    "--quantization-encoding",
    "encoding",
    type=click.Choice(WRITTEN, case_sensitive=False),
    default="bfloat16",
    show_default=True,
    help="How matrices are stored; norms stay float32, and the matrix that makes the logits "
    "(the embedding table, where shared) is q8_0 in the quantized ones.",
)
@shared("config_path", "tokenizer_path")
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    metavar="TEXT",
    help="Round weights by what it costs on this text (or .jsonl, or an importance matrix of llama.cpp's imatrix).",
)
@click.option(
    "--save-imatrix",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Write what --calibrate found, as llama.cpp's imatrix does.",
)
@click.option(
    "--adapter",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Merge this LoRA adapter, as the peft library saves it.",
)
@click.option(
    "--fim",
    metavar="TOKENS",
    help="The fill-in-the-middle tokens PREFIX,SUFFIX,MIDDLE[,PAD], as text or as ids [default: the source's].",
)
@click.option(
    "--fim-order",
    type=click.Choice(["prefix-first", "suffix-first"]),
    help="Which part the model wants first [default: as in the source].",
)
@click.option("--check", is_flag=True, help="Compare the result with its source at the end.")
@click.option("--force", is_flag=True, help="Replace what exists: DST, and the file of --save-imatrix.")
def convert(
    source: str,
    destination: str,
    encoding: str,
    config_path: str | None,
    tokenizer_path: str | None,
    fim: str | None,
    fim_order: str | None,
    **options: Any,
) -> None:
    """Convert a model to a GGUF file, quantized or not, or to a safetensors directory.

    SRC is a directory, a safetensors, GGUF or PyTorch file, or a hub repository. DST is the file
    to write, or a directory, in which it is named <Base>-<Size>-v<X.Y>-<Encoding>.gguf. The file
    carries the tokenizer and the configuration; llama.cpp reads it too. A DST that ends in a slash
    and does not exist becomes a directory as the hub has them: model.safetensors, config.json and
    the tokenizer, for transformers. --force replaces a directory only if it holds nothing else.
    """
    from pipelines import conversion as converting
    from replit.decoder import gguf_export
    from replit.decoder.hub_export import takes_directory
    from weights.errors import UserError
    from weights.tensor import Encoding

    checkpoint, name = open_source(source, config=Path(config_path) if config_path else None)
    order = None if fim_order is None else fim_order == "suffix-first"
    tokens = tuple(fim.split(",")) if fim is not None else ()
    path, tokenizer_file = Path(destination), Path(tokenizer_path) if tokenizer_path else None
    if destination.endswith("/") and exists(path) and not is_dir(path):
        raise UserError(f"{path} is a file; expected a directory: leave the slash out, or give another name")
    new = destination.endswith("/") and takes_directory(path, options["force"])
    wanted = converting.Wanted(Encoding(encoding), new, tokenizer_file, fim=tokens, suffix_first=order, **options)
    wanted.refuse_useless()
    plan, tokenizer = converting.planned(checkpoint, name, wanted)
    if not wanted.directory:
        path = gguf_export.destination(plan, path)
    if any(tensor.encoding.is_quantized for tensor in plan.tensors.values()):
        say(visible(f"{source} is quantized already: the original would lose less"))
    with _stoppable(), _progress(plan) as report:
        converting.write(checkpoint, plan, tokenizer, path, wanted, report, lambda line: say(visible(line)))
    size = sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))
    bits = 8 * plan.nbytes / plan.parameters
    say(visible(f"{path}: {size:,} bytes, {bits:.2f} bits a weight"))


def open_source(
    source: str, headers: Path | None = None, config: Path | None = None, problems: list[str] | None = None
) -> tuple[Checkpoint, str]:
    """The model that SRC names, downloaded if need be, and what it is called.

    With `headers`, a folder, only what is needed to open it is downloaded, to there: the weights are missing. `config`
    and `problems` as for `open_checkpoint`.
    """
    from weights.embedded_models import EMBEDDED
    from weights.files.checkpoint import open_checkpoint
    from weights.hub import resolve

    if source in EMBEDDED:
        return open_checkpoint(EMBEDDED[source]), source
    path = resolve(source, encoding=None, headers=headers, argument=True)
    return open_checkpoint(path, config, problems), _name(source)


def _name(source: str) -> str:
    """The last part of a repository or path that is not a format's usual file name."""
    path = Path(source).resolve() if exists(source) else Path(source)
    usual = ("model", "pytorch_model", "ggml-model")
    name = path.parent.name if path.stem.split(".")[0] in usual else path.name
    return name if exists(source) else name.partition("@")[0]


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that the temporary file is removed."""

    def stop(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        say("interrupted: nothing was written")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress(conversion: Conversion) -> Iterator[Callable[[str], None]]:
    """A bar over the source's bytes, and a line for each tensor: what it was and becomes."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("converting"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    total = sum(tensor.nbytes for tensor in conversion.tensors.values())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("converting", total=total)

        def report(name: str) -> None:
            tensor = conversion.tensors[name]
            shape = " x ".join(map(str, tensor.shape))
            stored = conversion.encodings[name]
            line = visible(f"{name:32} {shape:>16}  {tensor.encoding} -> {stored}")
            if console.is_terminal:
                console.print(line, markup=False)  # above the bar
            else:
                say(line)
            bar.advance(task, tensor.nbytes)

        yield report

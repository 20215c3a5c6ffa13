"""Options that several subcommands share, and the model that they name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pipelines.pipeline import Pipeline

Command = TypeVar("Command", bound=Callable[..., Any])
Option = Callable[[Any], Any]

MODEL = (
    "model", "weight_path", "config_path", "tokenizer_path", "quantization_encoding", "max_length", "allow_longer",
    "threads", "mmap", "kv_cache_encoding", "serialized_model_path", "serialized_model_sha256", "draft",
)  # fmt: skip
SAMPLING = ("max_new_tokens", "top_k", "temperature", "top_p", "min_p", "repetition_penalty", "seed", "stop", "strip")


gpu_option: Option = click.option(
    "--use-gpu",
    is_flag=False,
    flag_value="0",
    type=click.IntRange(0),
    metavar="[ID]",
    help="Run on this GPU, in bfloat16 [without ID: 0].",
)


draft_option: Option = click.option(
    "--draft",
    default="auto",
    show_default=True,
    metavar="WHO",
    help="Who guesses tokens that are checked several at a time: none, ngram (the text itself), nano, a model's name, "
    "or auto; the text is the same.",
)

ray_option: Option = click.option(
    "--ray",
    is_flag=False,
    flag_value="auto",
    metavar="[ADDRESS]",
    help="Run on the Ray cluster there, with as many copies of the model as it has room for [without ADDRESS: the one "
    "of RAY_ADDRESS or of this machine, else one of its own].",
)


def model_options(max_length: int) -> Callable[[Command], Command]:
    """The options that choose a model and how it runs."""
    return _together(
        click.option("--model", default="nano", show_default=True, metavar="NAME", help="As for replit."),
        click.option("--weight-path", metavar="PATH", help="As for replit."),
        click.option("--config", "config_path", metavar="PATH", help="As for replit."),
        click.option("--tokenizer", "tokenizer_path", metavar="PATH", help="As for replit."),
        click.option("--quantization-encoding", metavar="E", help="As for replit."),
        click.option("--max-length", default=max_length, show_default=True, metavar="N",
                     help="Longest sequence in tokens, prompt included."),
        click.option("--allow-longer", is_flag=True, help="As for replit."),
        click.option("--threads", type=int, metavar="N", help="As for replit."),
        click.option("--mmap/--no-mmap", default=None, help="As for replit."),
        click.option("--kv-cache-encoding", metavar="E", help="As for replit."),
        click.option("--serialized-model-path", metavar="PATH", help="Load the compiled model from here."),
        click.option("--serialized-model-sha256", metavar="HEX", help="As for replit."),
        draft_option,
        gpu_option,
    )  # fmt: skip


def sampling_options(
    max_new_tokens: int, top_k: int | None, temperature: float, top_p: float
) -> Callable[[Command], Command]:
    """The options that choose tokens, with a command's own defaults."""
    return _together(
        click.option("--max-new-tokens", default=max_new_tokens, show_default=True, metavar="N",
                     help="Most tokens to generate; -1: up to the longest sequence."),
        click.option("--top-k", default=top_k, show_default=top_k is not None, type=int, metavar="K",
                     help="Draw from the K most probable tokens; 1 takes the most probable"
                          + (" [default: all]." if top_k is None else ".")),
        click.option("--temperature", default=temperature, show_default=True, help="As for replit."),
        click.option("--top-p", default=top_p, show_default=True, help="As for replit."),
        click.option("--min-p", default=0.0, show_default=True, help="As for replit."),
        click.option("--repetition-penalty", default=1.0, show_default=True, help="As for replit."),
        click.option("--seed", type=int, metavar="N", help="Makes sampling repeatable."),
        click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be repeated."),
        click.option("--strip", is_flag=True, help="Leave out whitespace at the end."),
    )  # fmt: skip


def _together(*options: Option) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def chosen(options: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The options of one kind."""
    return {name: options[name] for name in names}


def device_name(use_gpu: int | None) -> str:
    """`load`'s device for the value of --use-gpu."""
    return "cpu" if use_gpu is None else f"gpu:{use_gpu}"


def load_model(options: dict[str, Any], max_batch_size: int = 1) -> Pipeline:
    """The model that `model_options` name; what takes long is told unless there is `quiet`."""
    from pipelines.pipeline import load
    from pipelines.terminal.progress import Quiet, Terminal

    progress = Quiet() if options["quiet"] else Terminal()
    device = device_name(options["use_gpu"])
    return load(**chosen(options, MODEL), device=device, max_batch_size=max_batch_size, progress=progress)


def completion_option(default: str) -> Option:
    """`--completion`, where a completion ends."""
    return click.option(
        "--completion",
        type=click.Choice(["full", "line", "block"]),
        default=default,
        show_default=True,
        help="Where to end: not before the model does, with the line, or with the indented block.",
    )

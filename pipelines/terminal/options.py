"""Options that several commands share, each written once, and the model that they name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from weights.written import WRITTEN

if TYPE_CHECKING:
    from pipelines.pipeline import Pipeline

Command = TypeVar("Command", bound=Callable[..., Any])


class FiniteRange(click.FloatRange):
    """A range of numbers without infinity and NaN, which no other check refuses."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See click.ParamType."""
        found: float = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is not finite; expected a number", param, ctx)
        return found


class PathText(click.Path):
    """A path as it was typed, which shells complete; not an empty one, as a variable is that was not set."""

    def __init__(self) -> None:
        super().__init__(readable=False)  # who opens it says why it cannot be read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click.ParamType."""
        if value == "":
            self.fail("the path is empty; expected one", param, ctx)
        return super().convert(value, param, ctx)


# What chooses a model and how it runs, and what chooses tokens, in the order of the help.
MODEL = (
    "model", "weight_path", "config_path", "tokenizer_path", "quantization_encoding", "max_length", "allow_longer",
    "serialized_model_path", "serialized_model_sha256", "threads", "mmap", "kv_cache_encoding", "draft",
)  # fmt: skip
SAMPLING = ("max_new_tokens", "top_k", "temperature", "top_p", "min_p", "repetition_penalty", "seed", "stop", "strip")


def _option(*flags: str, **settings: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    return flags, settings


_OPTIONS = {
    "model": _option("--model", "-m", type=PathText(), default="nano", show_default=True, metavar="NAME",
        help="nano (it ships with the package), a directory, a GGUF file, or a hub repository such as "
             "replit/replit-code-v1_5-3b, with @REVISION after it to pin one."),
    "weight_path": _option("--weight-path", type=PathText(), metavar="PATH",
        help="A GGUF or safetensors file, an index or a directory, or hf://owner/repository/file."),
    "config_path": _option("--config", "config_path", type=PathText(), metavar="PATH",
        help="The model's config.json or its directory [default: in the file, or beside it]."),
    "tokenizer_path": _option("--tokenizer", "tokenizer_path", type=PathText(), metavar="PATH",
        help="tokenizer.json, spiece.model or vocab.json, or its directory [default: in the file, or beside it]."),
    "quantization_encoding": _option("--quantization-encoding", type=click.Choice(WRITTEN, case_sensitive=False),
        help="What to compute with [default: the file's own encoding]."),
    "max_length": _option("--max-length", type=int, show_default=True, metavar="N",
        help="Longest sequence in tokens, prompt included."),
    "allow_longer": _option("--allow-longer", is_flag=True,
        help="Let the longest sequence exceed what the model was trained on."),
    "serialized_model_path": _option("--serialized-model-path", type=PathText(), metavar="PATH",
        help="Load the compiled model from here."),
    "serialized_model_sha256": _option("--serialized-model-sha256", metavar="HEX",
        help="The sha256 that this file must have: it is native code, which loading runs."),
    "threads": _option("--threads", "-t", type=int, metavar="N",
        help="Threads to compute with [default: all cores]."),
    "mmap": _option("--mmap/--no-mmap", default=None,
        help="Keep the weights mapped from the file, or read them [default: read if they fit]."),
    "kv_cache_encoding": _option("--kv-cache-encoding",
        type=click.Choice(["float32", "bfloat16"], case_sensitive=False),
        help="What keys and values are kept in [default: float32, on a GPU bfloat16]."),
    "draft": _option("--draft", default="auto", show_default=True, metavar="WHO",
        help="Who guesses tokens that are checked several at a time: none, ngram (the text itself), nano, a model's "
             "name, or auto; the text is the same."),
    "use_gpu": _option("--use-gpu", is_flag=False, flag_value="0", type=click.IntRange(0), metavar="[ID]",
        help="Run on this GPU, in bfloat16 [without ID: 0]."),
    "ray": _option("--ray", is_flag=False, flag_value="auto", metavar="[ADDRESS]",
        help="Run on the Ray cluster there, with as many copies of the model as it has room for [without ADDRESS: the "
             "one of RAY_ADDRESS or of this machine, else one of its own]."),
    "max_new_tokens": _option("--max-new-tokens", type=int, show_default=True, metavar="N",
        help="Most tokens to generate; -1: up to the longest sequence."),
    "top_k": _option("--top-k", type=int, show_default=True, metavar="K",
        help="Draw from the K most probable tokens; 1 takes the most probable."),
    "temperature": _option("--temperature", type=float, show_default=True,
        help="Divides the logits; 0 is greedy."),
    "top_p": _option("--top-p", type=float, show_default=True,
        help="Draw from the fewest tokens that together have this probability."),
    "min_p": _option("--min-p", default=0.0, show_default=True,
        help="Leave out tokens below this share of the most probable one's probability."),
    "repetition_penalty": _option("--repetition-penalty", default=1.0, show_default=True,
        help="Divides the logits of tokens that were seen."),
    "seed": _option("--seed", type=int, metavar="N", help="Makes sampling repeatable."),
    "stop": _option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be repeated."),
    "strip": _option("--strip", is_flag=True, help="Leave out whitespace at the end."),
    "completion": _option("--completion", type=click.Choice(["full", "line", "block"]), show_default=True,
        help="Where to end: not before the model does, with the line, or with the indented block."),
    "suffix_first": _option("--suffix-first/--prefix-first", default=None,
        help="Which the model reads first [default: as it was trained]."),
    "quiet": _option("--quiet", is_flag=True, help="No progress and notices."),
}  # fmt: skip


def shared(*names: str, **defaults: Any) -> Callable[[Command], Command]:
    """Adds the options of these names; `defaults` are a command's own, a pair where the help calls one otherwise."""

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            flags, settings = _OPTIONS[name]
            if name in defaults:
                default, shown = defaults[name] if isinstance(defaults[name], tuple) else (defaults[name], True)
                settings = settings | {"default": default, "show_default": shown}
            command = click.option(*flags, **settings)(command)
        return command

    return decorate


def chosen(options: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The options of one kind, as far as the command has them."""
    return {name: options[name] for name in names if name in options}


def typed(ctx: click.Context) -> dict[str, str]:
    """The options that the command line gives, by name, as they are written there."""
    return {
        option.name: option.opts[0]
        for option in ctx.command.params
        if option.name is not None and ctx.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
    }


def device_name(use_gpu: int | None) -> str:
    """`load`'s device for the value of --use-gpu."""
    return "cpu" if use_gpu is None else f"gpu:{use_gpu}"


def load_model(options: dict[str, Any], **more: Any) -> Pipeline:
    """The model that options name, with `more` keywords of `load`; what takes long is told unless there is `quiet`."""
    from pipelines.pipeline import load
    from pipelines.terminal.progress import Quiet, Terminal

    progress = Quiet() if options.get("quiet") else Terminal()
    return load(**chosen(options, MODEL), device=device_name(options["use_gpu"]), progress=progress, **more)

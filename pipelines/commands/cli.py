"""The command `replit`: its options, and where each subcommand is. Heavy modules are imported when one runs."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from pipelines.server.options import from_command_line, serve_click_options
from pipelines.terminal import report
from pipelines.terminal.options import completion_option, draft_option, gpu_option
from weights.written import WRITTEN

# Subcommand to "module:attribute".
SUBCOMMANDS: dict[str, str] = {
    "bench": "pipelines.commands.bench:bench",
    "compile": "pipelines.commands.compile:compile_model",
    "convert": "pipelines.commands.convert:convert",
    "evaluate": "pipelines.commands.evaluate:evaluate",
    "fill": "pipelines.commands.fill:fill",
    "inspect": "pipelines.commands.inspect:inspect",
    "models": "pipelines.commands.models:models",
}


class LazyGroup(click.Group):
    """A group that imports a subcommand's module when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, without imports."""
        return sorted(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in SUBCOMMANDS:
            return None
        module, attribute = SUBCOMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=LazyGroup, invoke_without_command=True, context_settings={"max_content_width": 100})
@click.option(
    "--prompt", metavar="TEXT", multiple=True, help="What to complete; repeat it for a batch, - reads standard input."
)
@click.option(
    "--model",
    default="nano",
    show_default=True,
    metavar="NAME",
    help="nano (it ships with the package), a directory, a GGUF file, or a hub repository "
    "such as replit/replit-code-v1_5-3b, with @REVISION after it to pin one.",
)
@click.option(
    "--weight-path",
    metavar="PATH",
    help="A GGUF or safetensors file, an index or a directory, or hf://owner/repository/file.",
)
@click.option(
    "--config",
    "config_path",
    metavar="PATH",
    help="The model's config.json or its directory [default: in the file, or beside it].",
)
@click.option(
    "--tokenizer",
    "tokenizer_path",
    metavar="PATH",
    help="tokenizer.json, spiece.model or vocab.json, or its directory [default: in the file, or beside it].",
)
@click.option(
    "--quantization-encoding",
    type=click.Choice(WRITTEN, case_sensitive=False),
    help="What to compute with [default: the file's own encoding].",
)
@click.option(
    "--max-length", default=512, show_default=True, metavar="N", help="Longest sequence in tokens, prompt included."
)
@click.option("--allow-longer", is_flag=True, help="Let the longest sequence exceed what the model was trained on.")
@click.option(
    "--max-new-tokens",
    default=-1,
    show_default=True,
    metavar="N",
    help="Most tokens to generate; -1: up to the longest sequence.",
)
@click.option(
    "--top-k",
    default=1,
    show_default=True,
    metavar="K",
    help="Draw from the K most probable tokens; 1 takes the most probable.",
)
@click.option("--temperature", default=1.0, show_default=True, help="Divides the logits; 0 is greedy.")
@click.option(
    "--top-p", default=1.0, show_default=True, help="Draw from the fewest tokens that together have this probability."
)
@click.option(
    "--min-p",
    default=0.0,
    show_default=True,
    help="Leave out tokens below this share of the most probable one's probability.",
)
@click.option(
    "--repetition-penalty", default=1.0, show_default=True, help="Divides the logits of tokens that were seen."
)
@click.option("--seed", type=int, metavar="N", help="Makes sampling repeatable.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be repeated.")
@click.option("--ignore-eos", is_flag=True, help="Go on after the end-of-text token.")
@click.option("--num-return-sequences", default=1, show_default=True, metavar="N", help="Completions of each prompt.")
@click.option("--suffix", metavar="TEXT", help="Fill the gap between the prompt and this text.")
@click.option("--suffix-file", metavar="PATH", help="The same, with the text of a file.")
@click.option(
    "--suffix-first/--prefix-first",
    default=None,
    help="Which the model reads first (default: as it was trained).",
)
@click.option(
    "--token-healing",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="Spell the end of the prompt again, which may stop inside a token; auto: where there is a suffix, and on "
    "editors' routes.",
)
@completion_option(default="full")
@click.option("--strip", is_flag=True, help="Leave out whitespace at the end.")
@click.option(
    "--echo-prompt/--no-echo-prompt", default=True, show_default=True, help="Print the prompt before its completion."
)
@click.option(
    "--max-cache-batch-size", default=1, show_default="1, with --serve 16", metavar="N", help="Sequences at once."
)
@click.option("--serialized-model-path", metavar="PATH", help="Load the compiled model from here.")
@click.option("--save-to-serialized-model-path", metavar="PATH", help="Write the compiled model here.")
@click.option("--threads", type=int, metavar="N", help="Threads to compute with [default: all cores].")
@click.option(
    "--mmap/--no-mmap",
    default=None,
    help="Keep the weights mapped from the file, or read them [default: read if they fit].",
)
@click.option(
    "--kv-cache-encoding",
    metavar="E",
    help="Keys and values in float32 or bfloat16 [default: float32, on a GPU bfloat16].",
)
@draft_option
@gpu_option
@click.option("--serve", is_flag=True, help="Serve an OpenAI-compatible API instead.")
@serve_click_options
@click.option("--quiet", is_flag=True, help="No progress, notices and timings.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(package_name="replit-code-max", prog_name="replit")
@click.pass_context
def replit(ctx: click.Context, /, **options: Any) -> None:
    """Complete code with Replit Code models.

    replit --prompt "def fibonacci(n):"
    """
    if ctx.invoked_subcommand is not None:
        return
    if options["serve"]:
        from pipelines.server.serve import serve

        serve(from_command_line(ctx, options))
        return
    from pipelines.commands.complete import complete

    complete(ctx, options)


def main() -> None:
    """Runs the command line and exits with its status."""
    debug = "--debug" in sys.argv
    try:
        status = replit.main(prog_name="replit", standalone_mode=False)
    except BaseException as error:
        status = report.report(error, debug)
    sys.exit(status)

"""The command `replit`: its options, and where each subcommand is. Heavy modules are imported when one runs."""

from __future__ import annotations

import difflib
import importlib
import shlex
from collections.abc import Callable, Sequence
from typing import Any

import click

import pipelines
from pipelines import start
from pipelines.server.options import SERVER_ONLY, from_command_line, serve_click_options
from pipelines.terminal import report
from pipelines.terminal.options import MODEL, SAMPLING, PathText, shared, typed
from weights.errors import UserError

# Subcommand to "module:attribute".
SUBCOMMANDS: dict[str, str] = {
    "batch": "pipelines.commands.batch:batch",
    "bench": "pipelines.commands.bench:bench",
    "compile": "pipelines.commands.compile:compile_model",
    "convert": "pipelines.commands.convert:convert",
    "evaluate": "pipelines.commands.evaluate:evaluate",
    "fill": "pipelines.commands.fill:fill",
    "inspect": "pipelines.commands.inspect:inspect",
    "models": "pipelines.commands.models:models",
    "cache": "pipelines.commands.cache:cache",
}


class LazyGroup(click.Group):
    """A group that imports a subcommand's module when it is named, and knows what people type instead of its names."""

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

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`replit serve ...` is `replit --serve ...`."""
        return super().parse_args(ctx, with_serve(args))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The subcommand. Raises click.UsageError that says what was meant."""
        if args[0] == "help":
            print(ctx.get_help() if args[1:2] in ([], ["serve"]) else self._help_of(ctx, args[1]))
            ctx.exit()
        if args[0] not in SUBCOMMANDS:
            raise click.UsageError(meant(args[0]), ctx)
        return super().resolve_command(ctx, args)

    def _help_of(self, ctx: click.Context, name: str) -> str:
        command = self.get_command(ctx, name)
        if command is None:
            raise click.UsageError(meant(name), ctx)
        with click.Context(command, info_name=name, parent=ctx, max_content_width=100) as own:
            return command.get_help(own)


def with_serve(args: list[str]) -> list[str]:
    """The arguments with `serve`, where it stands for a subcommand, as the option that it is."""
    values = {name for option in replit.params if takes_value(option) for name in option.opts}
    index = 0
    while index < len(args):
        word = args[index]
        if word == "serve":
            return [*args[:index], "--serve", *args[index + 1 :]]
        if word == "--" or not (word.startswith("-") or word.isdigit()):  # a number is --use-gpu's
            break
        index += 2 if word in values else 1
    return args


def takes_value(option: click.Parameter) -> bool:
    """Whether the word after an option belongs to it. --use-gpu may stand alone."""
    return isinstance(option, click.Option) and not option.is_flag and not option.count and option.name != "use_gpu"


# What other programs call them.
_OTHER_NAMES = {
    "run": 'replit --prompt "def f("', "generate": 'replit --prompt "def f("', "complete": 'replit --prompt "def f("',
    "list": "replit models", "ls": "replit models", "show": "replit inspect MODEL", "info": "replit inspect MODEL",
    "benchmark": "replit bench", "eval": "replit evaluate", "infill": "replit fill", "quantize": "replit convert",
    "pull": 'replit --model OWNER/REPOSITORY --prompt "def f("', "server": "replit serve",
    "version": "replit --version",
}  # fmt: skip


def meant(word: str) -> str:
    """What somebody wanted who typed `word` where a subcommand stands."""
    close = difflib.get_close_matches(word.lower(), [*SUBCOMMANDS, "serve"], 1)
    if word.lower() in _OTHER_NAMES:
        return f"there is no command {word!r}; expected: {_OTHER_NAMES[word.lower()]}"
    if close:
        return f"there is no command {word!r}; expected: replit {close[0]}"
    shown = word if len(word) <= 40 else word[:40] + "..."
    return (
        f"{shown!r} is no command ({', '.join(sorted([*SUBCOMMANDS, 'serve']))}); expected, if it is text to "
        f"complete: replit --prompt {shlex.quote(shown)}"
    )


@click.group(cls=LazyGroup, invoke_without_command=True, context_settings={"max_content_width": 100})
@click.option(
    "--prompt",
    "-p",
    metavar="TEXT",
    multiple=True,
    help="What to complete; repeat it for a batch, - reads standard input.",
)
@shared(*MODEL, "use_gpu", max_length=(512, "512, with --serve the model's limit where memory allows"))
@shared(*SAMPLING, "completion", max_new_tokens=-1, top_k=1, temperature=1.0, top_p=1.0, completion="full")
@click.option("--ignore-eos", is_flag=True, help="Go on after the end-of-text token.")
@click.option("--num-return-sequences", default=1, show_default=True, metavar="N", help="Completions of each prompt.")
@click.option("--suffix", metavar="TEXT", help="Fill the gap between the prompt and this text.")
@click.option("--suffix-file", type=PathText(), metavar="PATH", help="The same, with the text of a file.")
@shared("suffix_first")
@click.option(
    "--token-healing",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="Spell the end of the prompt again, which may stop inside a token; auto: where there is a suffix, and on "
    "editors' routes.",
)
@click.option(
    "--echo-prompt/--no-echo-prompt", default=True, show_default=True, help="Print the prompt before its completion."
)
@click.option(
    "--max-cache-batch-size", default=1, show_default="1, with --serve up to 16", metavar="N", help="Sequences at once."
)
@click.option("--save-to-serialized-model-path", type=PathText(), metavar="PATH", help="Write the compiled model here.")
@click.option("--serve", is_flag=True, help="Serve an OpenAI-compatible API instead.")
@serve_click_options
@click.option("--quiet", is_flag=True, help="No progress, notices and timings.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(pipelines.__version__, prog_name="replit")
@click.pass_context
def replit(ctx: click.Context, /, **options: Any) -> None:
    """Complete code with Replit Code models.

    replit --prompt "def fibonacci(n):"
    """
    if ctx.invoked_subcommand is not None:
        early = [flag for name, flag in typed(ctx).items() if name != "debug"]
        if early:
            name, given = ctx.invoked_subcommand, ", ".join(early)
            command = replit.get_command(ctx, name)
            takes = {flag for option in (command.params if command else ()) for flag in option.opts}
            known = [flag for flag in early if flag in takes]
            advice = f"expected after it: replit {name} {known[0]}" if known else "leave it out"
            raise click.UsageError(f"{given} before {name} is lost; {advice}", ctx)
        return
    if options["serve"]:
        from pipelines.server.serve import serve

        serve(from_command_line(ctx, options))
        return
    useless = [flag for name, flag in typed(ctx).items() if name in SERVER_ONLY]
    if useless:
        given = ", ".join(useless)
        raise click.UsageError(f"{given} has no meaning without --serve; leave it out, or add --serve", ctx)
    from pipelines.commands.complete import complete

    complete(ctx, options)


def run(arguments: Sequence[str], interrupted: Callable[[], bool] = lambda: False) -> int:
    """Runs the command line and returns its exit status."""
    debug = "--debug" in arguments
    try:
        status = replit.main(list(arguments), prog_name="replit", standalone_mode=False) or 0
    except BaseException as error:
        if interrupted() and not isinstance(error, (SystemExit, UserError)):
            status = report.INTERRUPTED
        else:
            status = report.report(error, debug)
    return report.finish(status)


def main() -> None:
    """The command as a process, see pipelines/start.py."""
    start.main()

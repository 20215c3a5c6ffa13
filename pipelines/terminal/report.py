"""How errors reach a person at a terminal: one line on standard error, and an exit status."""

from __future__ import annotations

import sys
import traceback

import click

from weights.errors import UserError

FAILURE = 1
USAGE = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def report(error: BaseException, debug: bool) -> int:
    """Prints `error` and returns the exit status; anything unexpected is raised again."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, UserError):
        return _line(str(error), FAILURE)
    if isinstance(error, click.UsageError):
        context = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        return _line(" ".join(error.format_message().split()) + context, USAGE)
    if isinstance(error, click.ClickException):
        return _line(" ".join(error.format_message().split()), error.exit_code)
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        # The reader has gone, as with `| head`: nothing is left to say, nor to flush at exit.
        sys.stdout = None
        return FAILURE
    raise error


def _line(message: str, status: int) -> int:
    print(f"replit: {message}", file=sys.stderr)
    return status

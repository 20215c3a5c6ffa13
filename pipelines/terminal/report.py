"""How errors reach a person at a terminal: one line on standard error, and an exit status."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
import unicodedata
from typing import TextIO

import click

from weights.errors import UserError, reason

FAILURE = 1
USAGE = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
# What a terminal may do with a character instead of showing it: control codes, marks that turn the direction of
# writing or join lines, and half characters.
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def report(error: BaseException, debug: bool) -> int:
    """Prints `error` and returns the exit status; anything unexpected is raised again."""
    if debug:
        with contextlib.suppress(OSError, ValueError):
            traceback.print_exception(error)
    if isinstance(error, UserError):
        return _line(str(error), FAILURE)
    if isinstance(error, click.UsageError):
        context = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        return _line(error.format_message() + context, USAGE)
    if isinstance(error, click.ClickException):
        return _line(error.format_message(), error.exit_code)
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return INTERRUPTED
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else FAILURE if error.code else 0
    if isinstance(error, MemoryError):
        return _line("memory is used up; expected more of it: lower --max-length or --max-cache-batch-size", FAILURE)
    if isinstance(error, BrokenPipeError):
        return FAILURE  # the reader has gone, as with `| head`: nothing is left to say
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return _line(f"{error.filename}: {error.strerror}; expected the path of a file: check the spelling", FAILURE)
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        where = f" {error.filename}" if error.filename else " to standard output"
        return _line(f"cannot write{where}: {reason(error)}; expected a place that takes it", FAILURE)
    if isinstance(error, OSError) and error.errno in _NOT_OURS and error.filename:
        return _line(f"cannot use {error.filename}: {error.strerror}; expected a path that can be used", FAILURE)
    raise error


# The path's owner and the system decide about these.
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF, errno.EIO)


def _line(message: str, status: int) -> int:
    say(f"replit: {visible(' '.join(message.split()))}")
    return status


def say(line: str) -> None:
    """One line on standard error, if anybody can get it."""
    if sys.stderr is None:  # it was closed when the process started
        return
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def visible(text: str) -> str:
    """`text` with everything that a terminal would obey or hide written as an escape; line breaks and tabs too.

    Names in model files and messages of evaluated programs come from strangers.
    """
    return "".join(
        character.encode("unicode_escape", "surrogatepass").decode("ascii")
        if unicodedata.category(character) in _UNSEEN
        else character
        for character in text
    )


def finish(status: int) -> int:
    """Writes out what the standard streams still hold. A failure is said once, and not again by Python's own exit."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            broken = isinstance(error, BrokenPipeError)
            if stream is sys.stdout and not broken and status == 0:
                say(f"replit: cannot write to standard output: {reason(error)}; expected a place that takes it")
            status = status or FAILURE
            _discard(stream)
    return status


def _discard(stream: TextIO) -> None:
    """What is left in a stream's buffer goes nowhere: the interpreter would try again, and complain."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)

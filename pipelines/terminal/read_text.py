"""Text that a person gives in a file or on standard input."""

from __future__ import annotations

import sys
from pathlib import Path

from pipelines.terminal.report import say
from weights.errors import UserError, reason
from weights.files.paths import read_stream

# More than any model reads, and little enough for memory: /dev/zero never ends.
LONGEST = 64 << 20
_BOM = b"\xef\xbb\xbf"


def read_text(path: Path, quiet: bool = False) -> str:
    """A file's text, line ends as they are. Raises UserError for what cannot be read or is not UTF-8."""
    try:
        return _text(read_stream(path, LONGEST + 1), str(path), quiet)
    except OSError as error:
        raise UserError(f"cannot read {path} ({reason(error)}); expected a text file: check the path") from None
    except ValueError as error:  # a name with a null character
        raise UserError(f"cannot read {str(path)!r} ({error}); expected a text file: check the path") from None


def read_stdin(quiet: bool = False) -> str:
    """All of standard input. Raises UserError like `read_text`."""
    try:
        return _text(sys.stdin.buffer.read(LONGEST + 1), "standard input", quiet)
    except OSError as error:
        raise UserError(f"cannot read standard input ({reason(error)}); expected text, or --prompt TEXT") from None


def _text(raw: bytes, name: str, quiet: bool) -> str:
    if len(raw) > LONGEST:
        raise UserError(f"{name} holds more than {LONGEST >> 20} MiB; expected text for a model to read: give less")
    if raw.startswith(_BOM):
        raw = raw[len(_BOM) :]
        if not quiet:
            say(f"{name} begins with a byte order mark, which is left out")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name} is not UTF-8 text ({error.reason} at byte {error.start}); expected UTF-8: convert it"
        ) from None

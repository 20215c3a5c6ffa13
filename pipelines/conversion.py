"""What `replit convert` does beside writing: adapter, calibration, fill-in-the-middle tokens, comparison at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.calibration import inputs_of, token_windows
from pipelines.registry import architecture_of
from replit.decoder import gguf_export, hub_export
from replit.decoder.calibration import compared
from replit.decoder.gguf_export import Conversion
from weights.atomic_write import check_place
from weights.convert import Inputs
from weights.errors import UserError
from weights.files.checkpoint import Checkpoint, open_checkpoint
from weights.files.paths import exists
from weights.quantization.feedback import ENCODINGS
from weights.tensor import Encoding
from weights.tokenizers.gguf_tokenizer import with_fim
from weights.tokenizers.load import FILE_NAMES, load_tokenizer
from weights.tokenizers.tokenizer import Tokenizer

Say = Callable[[str], None]
#: Tokens that --check compares: not of the text that a conversion was calibrated with.
CHECKED_TOKENS = 2048
_CHECKED_MODULE = "argparse.py"


@dataclass(frozen=True)
class Wanted:
    """What a conversion is asked for: a GGUF file or a `directory` of the hub's layout. `fim` as in `with_fim`."""

    encoding: Encoding
    directory: bool = False
    tokenizer: Path | None = None
    adapter: Path | None = None
    calibrate: Path | None = None
    save_imatrix: Path | None = None
    fim: tuple[str, ...] = ()
    suffix_first: bool | None = None
    check: bool = False
    force: bool = False

    @property
    def tokenizer_path(self) -> Path | None:
        """Of another tokenizer than the source's: the one that was given, else the adapter's."""
        if self.tokenizer is None and self.adapter is not None:
            return self.adapter if any(exists(self.adapter / name) for name in FILE_NAMES) else None
        return self.tokenizer

    def refuse_useless(self) -> None:
        """Raise UserError for what would have no effect."""
        if self.save_imatrix is not None and self.calibrate is None:
            raise UserError(
                "--save-imatrix writes what --calibrate finds; expected --calibrate TEXT with it: give both"
            )
        if self.calibrate is not None and self.save_imatrix is None and self.encoding not in ENCODINGS:
            names = ", ".join(sorted(ENCODINGS))
            raise UserError(
                f"--calibrate changes nothing in {self.encoding}; expected one of {names}: choose one with "
                "--quantization-encoding"
            )
        if self.directory and (self.fim or self.suffix_first is not None):
            raise UserError(
                "--fim and --fim-order are keys of GGUF; expected a DST that ends in .gguf: give such a name"
            )
        if self.directory and self.calibrate is not None:
            raise UserError(
                "--calibrate rounds weights to GGUF's blocks; expected a DST that ends in .gguf: give such a name"
            )


def planned(checkpoint: Checkpoint, name: str, wanted: Wanted) -> tuple[Conversion, Tokenizer]:
    """What the new file will hold, everything checked that can be before tensor data is read, and its tokenizer."""
    architecture = architecture_of(checkpoint)
    path = wanted.tokenizer_path
    conversion = gguf_export.plan(
        checkpoint, name, wanted.encoding, architecture, path, wanted.adapter, gguf=not wanted.directory
    )
    keys = with_fim(conversion.tokenizer, wanted.fim, wanted.suffix_first)
    if wanted.adapter is not None:
        checkpoint = gguf_export.resized(checkpoint, conversion.config.vocab_size)
    tokenizer, rows = load_tokenizer(checkpoint, path), conversion.config.vocab_size
    if tokenizer.vocab_size > rows:
        raise UserError(
            f"the adapter leaves {rows} rows of the embedding table for {tokenizer.vocab_size} tokens; expected a row "
            "for each: give its own tokenizer with --tokenizer"
        )
    return replace(conversion, tokenizer=keys), tokenizer


def write(
    checkpoint: Checkpoint,
    conversion: Conversion,
    tokenizer: Tokenizer,
    path: Path,
    wanted: Wanted,
    report: Say,
    say: Say,
) -> None:
    """Write the GGUF file or the directory. See `write_gguf` and `write_directory`."""
    wanted.refuse_useless()
    if wanted.save_imatrix is not None and wanted.calibrate is not None:
        _check_imatrix(wanted.save_imatrix, (path, wanted.calibrate, *checkpoint.files), wanted.force)
    with _inputs(conversion, tokenizer, wanted, say) as inputs:
        if wanted.directory:
            hub_export.write_directory(
                conversion, checkpoint, tokenizer, path, wanted.tokenizer_path, overwrite=wanted.force, report=report
            )
        else:
            gguf_export.write(conversion, path, inputs=inputs, overwrite=wanted.force, report=report)
    if wanted.check:
        say(check(conversion, tokenizer, path))


def _check_imatrix(path: Path, others: tuple[Path, ...], overwrite: bool) -> None:
    """Known before the calibration, which can take an hour, and before what it would be written over is gone."""
    if path.resolve() in [other.resolve() for other in others]:
        raise UserError(f"--save-imatrix names {path}, which is SRC, DST or TEXT; expected a file of its own: give one")
    check_place(path, overwrite)


@contextmanager
def _inputs(conversion: Conversion, tokenizer: Tokenizer, wanted: Wanted, say: Say) -> Iterator[Inputs]:
    if wanted.calibrate is None:
        yield lambda name: None
        return
    with inputs_of(
        wanted.calibrate, conversion.config, conversion.tensors, tokenizer, wanted.save_imatrix, say
    ) as inputs:
        yield inputs


def check(conversion: Conversion, tokenizer: Tokenizer, path: Path) -> str:
    """One line that compares what was written with its source, on a module of Python's own library."""
    text = Path(os.__file__).with_name(_CHECKED_MODULE)
    windows = token_windows(text, tokenizer, CHECKED_TOKENS)
    written = open_checkpoint(path)
    tensors = conversion.architecture.map_weights(written, conversion.architecture.read_config(written))
    same, divergence = compared(conversion.config, conversion.tensors, tensors, windows)
    return (
        f"compared with its source on {sum(map(len, windows)):,} tokens of {text.name}: the same most probable token "
        f"at {same:.1%}, divergence {divergence:.5f} nats a token"
    )

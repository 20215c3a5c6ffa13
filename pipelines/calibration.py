"""The importance matrix of a conversion: read from llama.cpp's file, or made from text with the model itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from replit.decoder.calibration import WINDOW, Calibration
from replit.decoder.config import DecoderConfig
from weights.convert import Inputs
from weights.errors import UserError
from weights.files.imatrix_file import is_imatrix, read_imatrix, write_imatrix
from weights.files.mapped_file import check_regular
from weights.quantization.feedback import ColumnInputs
from weights.tensor import Tensor
from weights.tokenizers.tokenizer import Tokenizer

#: Tokens that are looked at: with half of them nano's q4_k diverges 1.03 to 1.3 times as much (docs/log.md).
TOKENS = 32_768
_LARGEST_TEXT = 64 << 20


@contextmanager
def inputs_of(
    source: Path,
    config: DecoderConfig,
    tensors: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    save_to: Path | None,
    report: Callable[[str], None],
) -> Iterator[Inputs]:
    """What each matrix is multiplied with, from `source`: an importance matrix, a text, or .jsonl with texts.

    What was found in text is written to `save_to` in the end. Raises UserError for a file that is neither, or of
    another model.
    """
    check_regular(source, "text or an importance matrix")
    if is_imatrix(source):
        found = {name: ColumnInputs(squares) for name, squares in read_imatrix(source).items()}
        if save_to is not None:
            raise UserError(
                f"--save-imatrix writes what is found in text, and {source} is an importance matrix already; expected "
                "a text: leave --save-imatrix out"
            )
        _check(source, found, tensors)
        yield found.get
        return
    windows = token_windows(source, tokenizer)
    layers = config.n_layers
    calibration = Calibration(
        config, tensors, windows, lambda layer: report(f"calibrated layer {layer + 1} of {layers}")
    )
    report(f"calibrating with {calibration.tokens:,} tokens of {source}")
    yield calibration.inputs
    if save_to is not None:
        write_imatrix(save_to, calibration.sums, calibration.tokens, source.name, WINDOW)


def token_windows(source: Path, tokenizer: Tokenizer, tokens: int = TOKENS) -> list[list[int]]:
    """Up to `tokens` ids in windows, spread evenly over the text. Raises UserError for too little text."""
    windows: list[list[int]] = []
    for text in _texts(source):
        ids = tokenizer.encode(text, parse_special=False)
        windows += [ids[start : start + WINDOW] for start in range(0, len(ids), WINDOW)]
    windows = [window for window in windows if len(window) > 1]
    if not windows:
        raise UserError(f"{source} holds no text to calibrate with; expected some pages of code: give another file")
    wanted = min(len(windows), max(1, tokens // WINDOW))
    return [windows[index * len(windows) // wanted] for index in range(wanted)]


def _texts(source: Path) -> Iterator[str]:
    try:
        with source.open("rb") as file:
            raw = file.read(_LARGEST_TEXT)
        content = raw.decode("utf-8", "ignore")
        if source.suffix != ".jsonl":
            yield content
            return
        lines = content.split("\n")
        if len(raw) == _LARGEST_TEXT:
            del lines[-1]  # where it is cut off
        for line in filter(str.strip, lines):
            text = json.loads(line)["text"]
            if not isinstance(text, str):
                raise TypeError(f"a text is {text!r}")
            yield text
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(
            f"cannot read text from {source} ({error}); expected UTF-8 text, or a .jsonl file whose lines have a "
            '"text": give such a file'
        ) from None


def _check(source: Path, found: Mapping[str, ColumnInputs], tensors: Mapping[str, Tensor]) -> None:
    for name, inputs in found.items():
        if name not in tensors or tensors[name].shape[-1:] != inputs.squares.shape:
            known = list(tensors[name].shape) if name in tensors else "no such weight"
            raise UserError(
                f"{source}: {name!r} has {inputs.squares.size} columns, the model has {known}; expected the importance "
                "matrix of this model: make one with --calibrate TEXT"
            )

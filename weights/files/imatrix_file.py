"""Importance matrices in llama.cpp's GGUF form: mean squares of the inputs of each weight's columns.

Keys `general.type` "imatrix" and `imatrix.*`; for a weight NAME the tensors NAME.in_sum2 [columns], sums of squares,
and NAME.counts [1], the tokens that they are over.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from weights.atomic_write import written_whole
from weights.errors import UserError
from weights.files.gguf_file import MAGIC, read_gguf
from weights.tensor import Encoding

_SUMS, _COUNTS = ".in_sum2", ".counts"
Squares = Mapping[str, npt.NDArray[np.float32]]


def is_imatrix(path: Path) -> bool:
    """Whether it is a GGUF file at all: text never begins like one."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_imatrix(path: Path) -> Squares:
    """The mean square of each column's inputs, by the weight's name, [columns].

    Raises UserError for a GGUF file that is no importance matrix, or a damaged one.
    """
    file = read_gguf(path)
    if file.metadata.get("general.type") != "imatrix":
        raise UserError(
            f"{path} is a GGUF file of type {file.metadata.get('general.type')!r}; expected 'imatrix': make one with "
            "--calibrate TEXT --save-imatrix FILE, or with llama-imatrix"
        )
    found = {}
    for name, tensor in file.tensors.items():
        if not name.endswith(_SUMS):
            continue
        weight = name.removesuffix(_SUMS)
        counts = file.tensors.get(weight + _COUNTS)
        kinds = {tensor.encoding, counts.encoding if counts else None}
        if counts is None or kinds != {Encoding.FLOAT32} or counts.data.size != 4:
            raise UserError(f"{path}: {weight!r} has no single count of tokens; expected one in float32: make it again")
        sums, count = tensor.data.view("<f4").astype(np.float32), float(counts.data.view("<f4")[0])
        if not np.isfinite(sums).all() or (sums < 0).any() or not 0 < count < np.inf:
            raise UserError(f"{path}: {weight!r} holds sums that are no sums of squares; expected positive numbers")
        found[weight] = sums / np.float32(count)
    if not found:
        raise UserError(f"{path} has no sums for any weight; expected an importance matrix: make it again")
    return found


def write_imatrix(path: Path, sums: Squares, tokens: int, source: str, window: int) -> None:
    """Write `sums` of squares over `tokens` tokens of `source`, in windows of `window`, for llama.cpp to read.

    The file appears when it is whole. Raises UserError where there is no room.
    """
    from gguf import GGUFWriter

    try:
        with written_whole(path) as temporary:
            writer = GGUFWriter(temporary, "")
            writer.kv_data[0].pop("general.architecture", None)  # the writer's own, which such a file has not
            writer.add_string("general.type", "imatrix")
            writer.add_array("imatrix.datasets", [source])
            writer.add_uint32("imatrix.chunk_count", -(-tokens // window))
            writer.add_uint32("imatrix.chunk_size", window)
            for name, values in sums.items():
                writer.add_tensor(name + _SUMS, values)
                writer.add_tensor(name + _COUNTS, np.array([tokens], np.float32))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}); expected room and permission there: give another place"
        ) from None

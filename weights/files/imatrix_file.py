"""llama.cpp's importance matrices: mean squares of the inputs of each weight's columns, written as GGUF.

Keys `general.type` "imatrix" and `imatrix.*`; for a weight NAME the tensors NAME.in_sum2 [columns], sums of squares,
and NAME.counts [1], the tokens that they are over. The form before that, which most published ones have, is read: a
number of entries, then each with its name, a count, and sums over it.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from weights.atomic_write import written_whole
from weights.errors import UserError, reason
from weights.files.gguf_file import MAGIC, read_gguf
from weights.files.mapped_file import map_file
from weights.tensor import Encoding

_SUMS, _COUNTS = ".in_sum2", ".counts"
Sums = npt.NDArray[np.float32]
Squares = Mapping[str, Sums]


def is_imatrix(path: Path) -> bool:
    """Whether a file is GGUF, or an importance matrix of the older form: no text begins like either."""
    with path.open("rb") as file:
        start = file.read(8)
    # Two whole numbers in 32 bits, of entries and of a name's length, have zeros in them.
    return start.startswith(MAGIC) or (len(start) == 8 and start[2:4] == start[6:8] == b"\0\0")


def read_imatrix(path: Path) -> Squares:
    """The mean square of each column's inputs, by the weight's name, [columns].

    Raises UserError for a GGUF file that is no importance matrix, or a damaged one of either form.
    """
    buffer = map_file(path, "an importance matrix")
    entries = _gguf_sums(path) if buffer[: len(MAGIC)] == MAGIC else _older_sums(path, buffer)
    found = {}
    for weight, sums, count in entries:
        squares = sums / np.float32(count) if 0 < count < np.inf else np.full(1, np.nan, np.float32)
        if not np.isfinite(squares).all() or (squares < 0).any():
            raise UserError(f"{path}: {weight!r} holds sums that are no sums of squares; expected positive numbers")
        found[weight] = squares
    if not found:
        raise UserError(f"{path} has no sums for any weight; expected an importance matrix: make it again")
    return found


def _gguf_sums(path: Path) -> Iterator[tuple[str, Sums, float]]:
    """Names, sums and counts."""
    file = read_gguf(path)
    if file.metadata.get("general.type") != "imatrix":
        raise UserError(
            f"{path} is a GGUF file of type {file.metadata.get('general.type')!r}; expected 'imatrix': make one with "
            "--calibrate TEXT --save-imatrix FILE, or with llama-imatrix"
        )
    for name, tensor in file.tensors.items():
        if not name.endswith(_SUMS):
            continue
        weight = name.removesuffix(_SUMS)
        counts = file.tensors.get(weight + _COUNTS)
        kinds = {tensor.encoding, counts.encoding if counts else None}
        if counts is None or kinds != {Encoding.FLOAT32} or counts.data.size != 4:
            raise UserError(f"{path}: {weight!r} has no single count of tokens; expected one in float32: make it again")
        yield weight, tensor.data.view("<f4").astype(np.float32), float(counts.data.view("<f4")[0])


def _older_sums(path: Path, buffer: mmap.mmap) -> Iterator[tuple[str, Sums, float]]:
    """The same of the older form. What follows the entries, the text's name, is not read."""
    position = 4
    try:
        for _ in range(struct.unpack_from("<I", buffer)[0]):
            (length,) = struct.unpack_from("<I", buffer, position)
            name = struct.unpack_from(f"{length}s", buffer, position + 4)[0].decode("utf-8")
            position += 4 + length
            count, columns = struct.unpack_from("<iI", buffer, position)
            yield name, np.frombuffer(buffer, "<f4", columns, position + 8).astype(np.float32), count
            position += 8 + 4 * columns
    except (struct.error, ValueError):
        raise UserError(
            f"{path} is cut off, or no importance matrix; expected one of llama.cpp, or text: make it again"
        ) from None


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
            f"cannot write {path} ({reason(error)}); expected room and permission there: give another place"
        ) from None

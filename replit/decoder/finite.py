"""Refuses a model whose norms or embeddings hold NaN or infinity: one such value makes every text wrong.

The large matrices between them are not read for this; what they make of a sequence shows in its logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from replit.decoder.weight_names import EMBEDDING, OUTPUT
from weights.errors import UserError
from weights.files.mapped_file import release_pages
from weights.quantization import dequantize
from weights.quantization.decode import LAYOUT, Bytes
from weights.tensor import Encoding, Tensor

_CHUNK = 4 << 20  # bytes looked at before their pages go back
# Unsigned and signed integers of an encoding's width, and the bits of infinity: above them, NaN.
_BITS: dict[Encoding, tuple[type[np.unsignedinteger], type[np.signedinteger], int]] = {
    Encoding.FLOAT64: (np.uint64, np.int64, 0x7FF0_0000_0000_0000),
    Encoding.FLOAT32: (np.uint32, np.int32, 0x7F80_0000),
    Encoding.FLOAT16: (np.uint16, np.int16, 0x7C00),
    Encoding.BFLOAT16: (np.uint16, np.int16, 0x7F80),
}


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises UserError, with the file and the tensor, for NaN or infinity in a norm, an embedding or the output.

    `tensors` by canonical name. Of quantized ones the scales are looked at.
    """
    for name, tensor in tensors.items():
        if len(tensor.shape) > 1 and name not in (EMBEDDING, OUTPUT):
            continue
        row = first_not_finite(tensor)
        if row is not None:
            where = f" in row {row}" if len(tensor.shape) > 1 else ""
            raise UserError(
                f"{path}: tensor {tensor.name!r} holds NaN or infinity{where}; expected finite numbers: "
                "the model is damaged, download or convert it again"
            )


def first_not_finite(tensor: Tensor) -> int | None:
    """The first row (of the last dimension) that holds NaN or infinity, None if there is none."""
    rows = tensor.data.reshape(-1, tensor.row_bytes)
    step = max(1, _CHUNK // tensor.row_bytes)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        if _any_not_finite(part, tensor.encoding):
            return start + next(i for i, row in enumerate(part) if _any_not_finite(row, tensor.encoding))
        release_pages(part.reshape(-1))
    return None


def _any_not_finite(data: Bytes, encoding: Encoding) -> bool:
    if not encoding.is_quantized:
        return _above_infinity(data, encoding)
    if encoding not in LAYOUT:  # of the few files that hold these, the values
        count = data.size // encoding.block_bytes * encoding.block_size
        return not np.isfinite(dequantize(data.reshape(-1), encoding, (count,))).all()
    blocks = data.reshape(-1).view(LAYOUT[encoding])
    scales = (name for name, (dtype, *_) in (LAYOUT[encoding].fields or {}).items() if dtype == np.float16)
    return any(_above_infinity(np.ascontiguousarray(blocks[name]), Encoding.FLOAT16) for name in scales)


def _above_infinity(stored: np.ndarray[tuple[int, ...], np.dtype[np.generic]], encoding: Encoding) -> bool:
    """Whether an exponent is all ones, by two maxima: as integers, NaN and infinity end the positive numbers and,
    unsigned, the negative ones."""
    unsigned, signed, infinity = _BITS[encoding]
    sign = 1 << (8 * unsigned().itemsize - 1)
    return bool(stored.view(signed).max() >= infinity or stored.view(unsigned).max() >= infinity + sign)

"""Expands the block formats of GGUF to float32 and encodes float32 to those that we write.

Both directions work on chunks, spread over threads (numpy lets them run side by side). Nothing
here knows files, names or models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from weights.errors import UserError
from weights.quantization import encode, k_quants
from weights.quantization.cores import cores
from weights.quantization.decode import DECODERS, LAYOUT, Array, Bytes
from weights.tensor import Encoding, Tensor

__all__ = ["ENCODABLE", "dequantize", "quantize", "to_float32"]

#: Values handled at once. Smaller chunks fit a cache better but lose more to numpy's cost per call
#: and, with threads, to the interpreter lock (q4_k on two cores: 87 MB/s at 32 Ki, 367 at 256 Ki).
CHUNK = 256 * 1024

ENCODERS: dict[Encoding, Callable[[Array], Bytes]] = {
    Encoding.FLOAT16: encode.float16,
    Encoding.BFLOAT16: encode.bfloat16,
    Encoding.Q8_0: encode.q8_0,
    Encoding.Q4_0: encode.q4_0,
    Encoding.Q4_K: k_quants.q4_k,
    Encoding.Q6_K: k_quants.q6_k,
}

#: Those that gain by knowing which columns matter; 8 bits and floats do not.
WEIGHTED: dict[Encoding, Callable[[Array, Array], Bytes]] = {
    Encoding.Q4_0: encode.q4_0_weighted,
    Encoding.Q4_K: k_quants.q4_k,
    Encoding.Q6_K: k_quants.q6_k,
}

#: The encodings that `quantize` writes.
ENCODABLE: tuple[Encoding, ...] = (Encoding.FLOAT32, *ENCODERS)

#: Largest magnitude that each format holds; the block formats are bound by their float16 scales.
LARGEST: dict[Encoding, float] = {
    Encoding.FLOAT32: float(np.finfo(np.float32).max),
    Encoding.FLOAT16: 65504.0,
    Encoding.BFLOAT16: 3.3895e38,
    Encoding.Q8_0: 65504.0 * 127,
    Encoding.Q4_0: 65504.0 * 8,
    Encoding.Q4_K: 65504.0 * 32,
    Encoding.Q6_K: 65504.0 * 32,
}


def dequantize(data: Bytes, encoding: Encoding, shape: Sequence[int]) -> Array:
    """Expand `data`, the bytes of a tensor (1-D uint8), to a float32 array of `shape`.

    Bit for bit what gguf-py gives. Raises UserError when the bytes do not fill the shape.
    """
    count = math.prod(shape)
    expected = count // encoding.block_size * encoding.block_bytes
    if data.size != expected or count % encoding.block_size:
        raise UserError(
            f"{data.size} bytes for a {encoding} tensor of shape {list(shape)}: expected "
            f"{expected}; the file is damaged or cut short, get it again"
        )
    if encoding is Encoding.FLOAT32:
        return data.view("<f4").reshape(shape).astype(np.float32)
    out = np.empty(count, np.float32)

    def expand(start: int, stop: int) -> None:
        first = start // encoding.block_size * encoding.block_bytes
        last = stop // encoding.block_size * encoding.block_bytes
        out[start:stop] = _expand(data[first:last], encoding)

    _in_chunks(expand, count)
    return out.reshape(shape)


def to_float32(tensor: Tensor) -> Array:
    """A float32 copy of a tensor's elements, quantized blocks expanded."""
    return dequantize(tensor.data, tensor.encoding, tensor.shape)


def _expand(data: Bytes, encoding: Encoding) -> Array:
    if encoding is Encoding.FLOAT16:
        return data.view("<f2").astype(np.float32)
    if encoding is Encoding.FLOAT64:
        with np.errstate(over="ignore"):  # what is beyond float32 is infinity there
            return data.view("<f8").astype(np.float32)
    if encoding is Encoding.BFLOAT16:
        return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # a damaged file's scales may be NaN: so is the result
        if encoding not in DECODERS:
            return _expand_with_gguf_py(data, encoding)
        return DECODERS[encoding](data.view(LAYOUT[encoding])).reshape(-1)


def _expand_with_gguf_py(data: Bytes, encoding: Encoding) -> Array:
    # Imported here: few files hold these formats, which look groups of values up in tables.
    from gguf import GGMLQuantizationType, quants

    rows = data.reshape(-1, encoding.block_bytes)
    values: Array = quants.dequantize(rows, GGMLQuantizationType[encoding.name])
    return values.reshape(-1)


def quantize(array: Array, encoding: Encoding, importance: Array | None = None) -> Bytes:
    """Encode a float32 array [..., columns] as the bytes of a tensor, uint8 [..., bytes a row].

    `importance` [columns], the mean squares of what each column is multiplied with, weights the errors. Raises
    UserError for NaN, infinity, values that the format cannot hold, a row length that its blocks do not divide, and
    encodings that are only read.
    """
    if encoding not in LARGEST:
        known = ", ".join(e for e in ENCODABLE)
        raise UserError(f"{encoding} is read but not written; choose one of {known}")
    columns = array.shape[-1]
    if columns % encoding.block_size:
        raise UserError(
            f"rows of {columns} values: {encoding} needs a multiple of "
            f"{encoding.block_size}; choose {_fitting(columns)}"
        )
    flat = np.ascontiguousarray(array, np.float32).reshape(-1)
    weights = None if importance is None else encode.relative(importance)
    out = np.empty(flat.size // encoding.block_size * encoding.block_bytes, np.uint8)

    def encode_chunk(start: int, stop: int) -> None:
        first = start // encoding.block_size * encoding.block_bytes
        last = stop // encoding.block_size * encoding.block_bytes
        values = flat[start:stop]
        check_range(values, encoding)
        encoder, weighted = ENCODERS.get(encoding), WEIGHTED.get(encoding)
        if weighted is not None and weights is not None:
            places = np.arange(start, stop) % columns
            out[first:last] = weighted(values, weights[places])
        else:
            out[first:last] = encoder(values) if encoder else values.view(np.uint8)

    _in_chunks(encode_chunk, flat.size)
    return out.reshape(*array.shape[:-1], columns // encoding.block_size * encoding.block_bytes)


def _fitting(columns: int) -> str:
    """The encodings that rows of this length allow, for an error message."""
    return ", ".join(e for e in ENCODABLE if columns % e.block_size == 0)


def check_range(values: Array, encoding: Encoding) -> None:
    """Raise UserError for NaN, infinity and values that `encoding` cannot hold."""
    # max and min propagate NaN, and a NaN fails every comparison.
    largest = max(float(values.max()), -float(values.min()))
    if largest <= LARGEST[encoding]:
        return
    if not np.isfinite(values).all():
        raise UserError("holds NaN or infinity: the source is damaged, get it again")
    raise UserError(
        f"holds {largest:.4g}, above {LARGEST[encoding]:.4g}, the largest value of "
        f"{encoding}; choose float32 or bfloat16"
    )


def _in_chunks(work: Callable[[int, int], None], count: int) -> None:
    """Call work(start, stop) for each chunk of `count` values, on every core."""
    starts = range(0, count, CHUNK)
    if len(starts) < 2:
        for start in starts:
            work(start, min(start + CHUNK, count))
        return
    with ThreadPoolExecutor(cores()) as pool:
        for _ in pool.map(lambda start: work(start, min(start + CHUNK, count)), starts):
            pass

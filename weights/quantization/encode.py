"""Encoders of the simple formats: float16, bfloat16, q8_0 and q4_0.

q8_0 and q4_0 equal ggml's reference quantizer bit for bit, so the float32 operations keep its
order. The K-quants, which search for their scales, are in k_quants.py.
"""

from __future__ import annotations

import numpy as np

from weights.quantization.decode import LAYOUT, Array, Bytes
from weights.tensor import Encoding

#: What q4_0's value of greatest magnitude may become in -8..7, with either sign: more than 8 cuts it off.
Q4_0_EXTREMES = (-9.5, -8.8, -8.4, -8.0, -7.6, -7.2, -6.7, -6.2, 8.2, 7.6, 7.3, 7.0, 6.7, 6.3, 5.8)

#: What a column counts that its inputs leave out, as a share of the mean: on another text they may not.
LEAST_IMPORTANCE = 1e-4
LARGEST_FLOAT16 = 65504.0

#: Far below the least float16 (6e-8), and its inverse times any code is still a float32.
SMALLEST_SCALE = 1e-35


def float16(values: Array) -> Bytes:
    return values.astype("<f2").view(np.uint8)


def bfloat16(values: Array) -> Bytes:
    """The upper 16 bits, rounded to nearest, ties to even. No NaN comes here."""
    bits = values.view(np.uint32)
    rounding = ((bits >> 16) & 1) + np.uint32(0x7FFF)
    rounded: Bytes = ((bits + rounding) >> 16).astype("<u2").view(np.uint8)
    return rounded


def inverse(scale: Array) -> Array:
    """1 / scale, and 0 where that may overflow: the scale of a block of zeros, or nearly."""
    result = np.zeros_like(scale)
    np.divide(np.float32(1), scale, out=result, where=np.abs(scale) >= SMALLEST_SCALE)
    return result


def q8_0(values: Array) -> Bytes:
    """Blocks of 32: scale = largest magnitude / 127, rounded half away from zero."""
    x = values.reshape(-1, 32)
    scale = np.abs(np.maximum(x.max(axis=1), -x.min(axis=1))) / np.float32(127)
    scaled = x * inverse(scale)[:, None]
    rounded = np.trunc(scaled)
    # Adding 0.5 before truncating would be off by one just below a half; the difference is exact.
    rounded += np.trunc((scaled - rounded) * np.float32(2))
    blocks = np.empty(len(x), LAYOUT[Encoding.Q8_0])
    blocks["d"] = scale
    blocks["qs"] = rounded
    return blocks.view(np.uint8)


def q4_0(values: Array) -> Bytes:
    """Blocks of 32: the value of largest magnitude becomes -8, the others one of -8..7."""
    x = values.reshape(-1, 32)
    high, low = x.max(axis=1), x.min(axis=1)
    # On a tie ggml keeps whichever sign comes first in the block.
    tied = np.flatnonzero(high == -low)
    extreme = np.where(high > -low, high, low)
    first = np.abs(x[tied]).argmax(axis=1)
    extreme[tied] = x[tied, first]
    scale = extreme / np.float32(-8)
    codes = x * inverse(scale)[:, None]
    codes += np.float32(8.5)
    nibbles = np.minimum(codes.astype(np.uint8), 15)
    return q4_0_blocks(scale, nibbles)


def q4_0_blocks(scale: Array, nibbles: Bytes) -> Bytes:
    """Blocks of codes 0..15, [blocks, 32]."""
    blocks = np.empty(len(scale), LAYOUT[Encoding.Q4_0])
    blocks["d"] = scale
    blocks["qs"] = nibbles[:, :16] | (nibbles[:, 16:] << 4)
    return blocks.view(np.uint8)


def relative(importance: Array) -> Array:
    """`importance` as shares of its mean, since nothing but ratios may count, and none of them nothing at all."""
    mean = float(importance.mean(dtype=np.float64))
    if not mean > 0:
        return np.ones_like(importance)
    shares: Array = np.maximum(importance / mean, LEAST_IMPORTANCE).astype(np.float32)
    return shares


def q4_0_weighted(values: Array, importance: Array) -> Bytes:
    """As q4_0, with the scale of least squared error, that of each value weighted by its `importance`."""
    x = values.reshape(-1, 32)
    scale = q4_0_scale(x, importance.reshape(-1, 32))
    codes = np.clip(np.rint(x * inverse(scale)[:, None]), -8, 7)
    return q4_0_blocks(scale, (codes + np.float32(8)).astype(np.uint8))


def q4_0_scale(x: Array, weight: Array) -> Array:
    """The scale of each row of 32 values, as the file will hold it, of least weighted squared error."""
    extreme = np.take_along_axis(x, np.abs(x).argmax(axis=1)[:, None], axis=1)[:, 0]
    scale, best = np.zeros_like(extreme), np.full_like(extreme, -1)
    for target in Q4_0_EXTREMES:
        codes = np.clip(np.rint(x * (inverse(extreme) * np.float32(target))[:, None]), -8, 7)
        weighted = weight * codes
        wcx, wcc = np.einsum("ij,ij->i", weighted, x), np.einsum("ij,ij->i", weighted, codes)
        fitted = wcx * inverse(wcc)
        gain = fitted * wcx
        better = gain > best
        np.copyto(scale, fitted, where=better)
        np.copyto(best, gain, where=better)
    held: Array = np.clip(scale, -LARGEST_FLOAT16, LARGEST_FLOAT16).astype(np.float16).astype(np.float32)
    return held

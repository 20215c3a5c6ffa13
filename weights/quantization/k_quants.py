"""Encoders of q4_k and q6_k: super-blocks of 256 values whose scales are themselves quantized.

Each run of 32 (q4_k) or 16 (q6_k) values gets the scale, and for q4_k the minimum, of least
weighted squared error: round with some candidate scales, fit each by least squares, keep the
best. A last fit over the super-block follows the rounding of the scales to 6 or 8 bits. Arrays
are transposed, [values of a run, runs], so that numpy goes over long rows.
"""

from __future__ import annotations

import numpy as np

from weights.quantization.decode import LAYOUT, Array, Bytes, Integers
from weights.quantization.encode import inverse
from weights.tensor import Encoding

#: Steps between the least and the greatest value of a run that q4_k tries; it has 15 of them.
#: Fewer than 15 leave codes unused, more cut the extremes off: either may round the rest better.
Q4_K_STEPS = (13.0, 14.0, 14.75, 15.4, 16.25)

#: What the value of greatest magnitude becomes in q6_k's -32..31.
Q6_K_EXTREMES = (-29.5, -30.25, -31.0, -31.5, -32.0, -32.5, -33.0)


def _dot(a: Array, b: Array) -> Array:
    """Sums over each run of the products: [values, runs] twice to [runs]."""
    result: Array = np.einsum("ij,ij->j", a, b)
    return result


def _half(scale: Array) -> Array:
    """`scale` as the file will hold it."""
    return scale.astype(np.float16).astype(np.float32)


def q4_k(values: Array, importance: Array | None = None) -> Bytes:
    """value = d * scale * code - dmin * minimum: 4-bit codes, a 6-bit scale and minimum a run.

    `importance` of each value weights its squared error; without it large values count for more.
    """
    x = np.ascontiguousarray(values.reshape(-1, 32).T)
    if importance is None:
        weight = np.abs(x)
        weight += np.sqrt(_dot(x, x) / np.float32(32))
    else:
        weight = np.ascontiguousarray(importance.reshape(-1, 32).T)
    return pack_q4_k(*fit_q4_k(x, weight))


def fit_q4_k(x: Array, weight: Array) -> tuple[Array, Array, Array, Array, Array]:
    """d, scales, dmin, minima and codes of least weighted squared error; `x` and `weight` are [32, runs]."""
    weighted = weight * x
    sums = weight.sum(axis=0), weighted.sum(axis=0), _dot(weighted, x)
    _, _, _, _, codes = _round_affine(x, *_affine_fit(x, weight, *sums))
    # Once more from the codes so found; the minima then make up for the rounding of the scales.
    scale, _, _ = _solve_affine(x, weight, codes, *sums)
    d, scales = _in_units(scale)
    w, wx, _ = sums
    minimum = ((d[:, None] * scales).reshape(-1) * _dot(weight, codes) - wx) * inverse(w)
    return _round_affine(x, scale, minimum)


def refit_q4_k(x: Array, weight: Array, d: Array, dmin: Array) -> tuple[Array, Array]:
    """Multiples of d and dmin [runs] of least weighted squared error for one run of each row; `x` is [32, runs]."""
    weighted = weight * x
    w, wx = weight.sum(axis=0), weighted.sum(axis=0)
    scale, minimum = _affine_fit(x, weight, w, wx, _dot(weighted, x))
    multiples = np.clip(np.rint(scale * inverse(d)), 0, 63)
    scale = d * multiples
    codes = np.clip(np.rint((x + minimum) * inverse(scale)), 0, 15)
    minimum = (scale * _dot(weight, codes) - wx) * inverse(w)
    return multiples, np.clip(np.rint(minimum * inverse(dmin)), 0, 63)


def pack_q4_k(d: Array, scales: Array, dmin: Array, minima: Array, codes: Array) -> Bytes:
    """The blocks of `fit_q4_k`'s results; codes are [32, runs]."""
    blocks = np.empty(len(d), LAYOUT[Encoding.Q4_K])
    blocks["d"], blocks["dmin"] = d, dmin
    blocks["scales"] = pack_scales(scales.astype(np.uint8), minima.astype(np.uint8))
    pairs = codes.T.astype(np.uint8).reshape(-1, 4, 2, 32)
    blocks["qs"] = pairs[:, :, 0] | (pairs[:, :, 1] << 4)
    return blocks.view(np.uint8)


def _affine_fit(x: Array, weight: Array, w: Array, wx: Array, wxx: Array) -> tuple[Array, Array]:
    """The scale and the (negated) minimum of each run: two arrays [runs].

    `w`, `wx` and `wxx` are the sums of weight, weight * x and weight * x * x over each run.
    """
    low = np.minimum(x.min(axis=0), 0)
    above = x - low
    step = inverse(x.max(axis=0) - low)
    scale, minimum, least = np.zeros_like(low), -low, np.full_like(low, np.inf)
    codes = np.empty_like(x)
    for steps in Q4_K_STEPS:
        np.multiply(above, step * np.float32(steps), out=codes)
        np.rint(codes, out=codes)
        if steps > 15.5:
            np.minimum(codes, 15, out=codes)
        fit = _solve_affine(x, weight, codes, w, wx, wxx)
        better = fit[2] < least
        for kept, new in zip((scale, minimum, least), fit, strict=True):
            np.copyto(kept, new, where=better)
    return scale, minimum


def _solve_affine(x: Array, weight: Array, codes: Array, w: Array, wx: Array, wxx: Array) -> tuple[Array, Array, Array]:
    """Weighted least squares for x = scale * codes - minimum, minimum >= 0, and its error."""
    weighted = weight * codes
    wc, wcc, wcx = weighted.sum(axis=0), _dot(weighted, codes), _dot(weighted, x)
    by_determinant = inverse(w * wcc - wc * wc)
    scale = (w * wcx - wc * wx) * by_determinant
    minimum = (wc * wcx - wcc * wx) * by_determinant
    bound = (minimum < 0) | (by_determinant <= 0)
    scale = np.where(bound, wcx * inverse(wcc), scale)
    minimum = np.where(bound, np.float32(0), minimum)
    return scale, minimum, wxx - scale * wcx + minimum * wx


def _round_affine(x: Array, scale: Array, minimum: Array) -> tuple[Array, Array, Array, Array, Array]:
    """What the file will hold: d, scales, dmin, minima, and the codes nearest to x with them."""
    d, scales = _in_units(scale)
    dmin, minima = _in_units(minimum)
    codes = x + (dmin[:, None] * minima).reshape(-1)
    codes *= inverse((d[:, None] * scales).reshape(-1))
    np.rint(codes, out=codes)
    return d, scales, dmin, minima, np.clip(codes, 0, 15, out=codes)


def _in_units(values: Array) -> tuple[Array, Array]:
    """[runs] as a float16 unit for each super-block and multiples 0..63 of it, [.., 8]."""
    rows = values.reshape(-1, 8)
    unit = _half(np.maximum(rows.max(axis=1), np.float32(0)) / np.float32(63))
    return unit, np.clip(np.rint(rows * inverse(unit)[:, None]), 0, 63)


def pack_scales(scales: Bytes, minima: Bytes) -> Bytes:
    """[super-blocks, 8] 6-bit scales and minima to 12 bytes each; decode.unpack_scales' inverse."""
    first = scales[:, :4] | ((scales[:, 4:] >> 4) << 6)
    second = minima[:, :4] | ((minima[:, 4:] >> 4) << 6)
    third = (scales[:, 4:] & 15) | ((minima[:, 4:] & 15) << 4)
    return np.concatenate([first, second, third], axis=1)


def q6_k(values: Array, importance: Array | None = None) -> Bytes:
    """value = d * scale * code: 6-bit codes of -32..31, a signed 8-bit scale for 16 values. `importance`: see q4_k."""
    x = np.ascontiguousarray(values.reshape(-1, 16).T)
    weight = x * x if importance is None else np.ascontiguousarray(importance.reshape(-1, 16).T)
    return pack_q6_k(*fit_q6_k(x, weight))


def fit_q6_k(x: Array, weight: Array) -> tuple[Array, Array, Array]:
    """d, scales and codes of least weighted squared error; `x` and `weight` are [16, runs]."""
    scale = _linear_fit(x, weight).reshape(-1, 16)
    # The scale of greatest magnitude becomes -128.
    greatest = np.take_along_axis(scale, np.abs(scale).argmax(axis=1)[:, None], axis=1)[:, 0]
    d = _half(greatest / np.float32(-128))
    scales = np.clip(np.rint(scale * inverse(d)[:, None]), -128, 127)
    codes = _linear_codes(x, d, scales)
    weighted = weight * codes
    wcx, wcc = _dot(weighted, x).reshape(-1, 16), _dot(weighted, codes).reshape(-1, 16)
    refit = (scales * wcx).sum(axis=1) * inverse((scales**2 * wcc).sum(axis=1))
    d = _half(np.where(refit == 0, d, refit))
    return d, scales, _linear_codes(x, d, scales)


def refit_q6_k(x: Array, weight: Array, d: Array) -> Array:
    """Multiples of d [runs] of least weighted squared error for one run of each row; `x` is [16, runs]."""
    multiples: Array = np.clip(np.rint(_linear_fit(x, weight) * inverse(d)), -128, 127)
    return multiples


def pack_q6_k(d: Array, scales: Array, codes: Array) -> Bytes:
    """The blocks of `fit_q6_k`'s results; codes are [16, runs]."""
    blocks = np.empty(len(d), LAYOUT[Encoding.Q6_K])
    blocks["d"], blocks["scales"] = d, scales
    blocks["ql"], blocks["qh"] = pack_codes(codes.T.astype(np.int8))
    return blocks.view(np.uint8)


def pack_codes(codes: Integers) -> tuple[Bytes, Bytes]:
    """Codes of q6_k, -32 to 31, 256 after 256, as its fields ql [super-blocks, 2, 64] and qh [.., 2, 32]."""
    bits = (codes + np.int8(32)).view(np.uint8).reshape(-1, 2, 4, 32)
    low, high = bits & 15, bits >> 4
    ql: Bytes = (low[:, :, :2] | (low[:, :, 2:] << 4)).reshape(-1, 2, 64)
    return ql, high[:, :, 0] | high[:, :, 1] << 2 | high[:, :, 2] << 4 | high[:, :, 3] << 6


def _linear_fit(x: Array, weight: Array) -> Array:
    """The scale of each run, signed, [runs]: the best fit of x = scale * codes of -32..31."""
    high, low = x.max(axis=0), x.min(axis=0)
    step = inverse(np.where(high > -low, high, low))
    scale: Array = np.zeros_like(high)
    best = np.full_like(high, -1)
    codes, weighted = np.empty_like(x), np.empty_like(x)
    for extreme in Q6_K_EXTREMES:
        np.multiply(x, step * np.float32(extreme), out=codes)
        np.rint(codes, out=codes)
        if extreme < -31:
            np.clip(codes, -32, 31, out=codes)
        np.multiply(weight, codes, out=weighted)
        wcx, by_wcc = _dot(weighted, x), inverse(_dot(weighted, codes))
        # The fit lowers the weighted squared error by wcx * wcx / wcc.
        gain = wcx * wcx * by_wcc
        better = gain > best
        np.copyto(scale, wcx * by_wcc, where=better)
        np.copyto(best, gain, where=better)
    return scale


def _linear_codes(x: Array, d: Array, scales: Array) -> Array:
    """The codes of -32..31 nearest to x, [16, runs], for the scales as the file holds them."""
    codes: Array = x * inverse((d[:, None] * scales).reshape(-1))
    np.rint(codes, out=codes)
    np.clip(codes, -32, 31, out=codes)
    return codes

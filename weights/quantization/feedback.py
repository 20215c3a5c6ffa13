"""Encodes a matrix column after column, each one making up for the rounding of those before it.

What a column's rounding changes in the outputs, columns that come after it can undo as far as their inputs go together
with its own: Frantar et al. 2022 (GPTQ), with the scales of each group fitted when its turn comes. The formats stay
what they are; only scales and codes are chosen otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weights.quantization import encode, k_quants
from weights.quantization.cores import cores
from weights.quantization.decode import Array, Bytes
from weights.quantization.encode import inverse
from weights.tensor import Encoding

#: Added to the mean products' diagonal, as a share of its mean: what the text did not show may happen all the same.
DAMPING = 0.01


@dataclass(frozen=True)
class ColumnInputs:
    """What a matrix is multiplied with on some text: mean squares of each column's inputs, [columns].

    `products`, the mean products of the inputs of each pair of columns, are [n, n] for one stretch of columns after the
    other; between stretches nothing is made up for. None are in llama.cpp's importance matrices.
    """

    squares: Array
    products: Sequence[Array] = ()


@dataclass(frozen=True)
class Group:
    """A group of columns whose scales are fixed: value = scale * code - minimum, each [rows, runs]."""

    scale: Array
    minimum: Array
    pack: Callable[[Array], Bytes]  # codes [rows, columns] to bytes


@dataclass(frozen=True)
class _Format:
    """Columns of a group and of a run with one scale, the range of codes, and the fit of scales, weighted."""

    columns: int
    run: int
    low: int
    high: int
    fit: Callable[[Array, Array], Group]


def _fit_q4_0(x: Array, weight: Array) -> Group:
    scale = encode.q4_0_scale(x, weight)
    return Group(
        scale[:, None],
        np.zeros_like(scale)[:, None],
        lambda codes: encode.q4_0_blocks(scale, (codes + np.float32(8)).astype(np.uint8)),
    )


def _fit_q4_k(x: Array, weight: Array) -> Group:
    d, scales, dmin, minima, _ = k_quants.fit_q4_k(_runs(x, 32), _runs(weight, 32))
    scale, minimum = d[:, None] * scales, dmin[:, None] * minima
    return Group(scale, minimum, lambda codes: k_quants.pack_q4_k(d, scales, dmin, minima, _runs(codes, 32)))


def _fit_q6_k(x: Array, weight: Array) -> Group:
    d, scales, _ = k_quants.fit_q6_k(_runs(x, 16), _runs(weight, 16))
    scale = d[:, None] * scales
    return Group(scale, np.zeros_like(scale), lambda codes: k_quants.pack_q6_k(d, scales, _runs(codes, 16)))


def _runs(values: Array, run: int) -> Array:
    """[rows, columns] as k_quants wants it: [values of a run, runs]."""
    return np.ascontiguousarray(values.reshape(-1, run).T)


_FORMATS = {
    Encoding.Q4_0: _Format(32, 32, -8, 7, _fit_q4_0),
    Encoding.Q4_K: _Format(256, 32, 0, 15, _fit_q4_k),
    Encoding.Q6_K: _Format(256, 16, -32, 31, _fit_q6_k),
}
#: The encodings that this is for; with 8 bits there is next to nothing to make up for.
ENCODINGS = frozenset(_FORMATS)


def encode_with_feedback(values: Array, encoding: Encoding, products: Sequence[Array]) -> Bytes:
    """`values` [rows, columns] as bytes [rows, bytes a row]; they must be finite and within the encoding's range.

    `products`: see `ColumnInputs`.
    """
    roots = [_root(block) for block in products]
    count = max(1, min(cores(), len(values) // 64))
    bounds = np.linspace(0, len(values), count + 1).astype(int)
    with ThreadPoolExecutor(count) as pool:
        parts = pool.map(
            lambda i: _encode_rows(values[bounds[i] : bounds[i + 1]], _FORMATS[encoding], roots), range(count)
        )
        return np.concatenate(list(parts))


def _root(products: Array) -> Array:
    """The upper Cholesky factor of the inverse, float32 [n, n]."""
    matrix = products.astype(np.float64)
    mean = max(float(np.trace(matrix)) / len(matrix), 1e-30)
    matrix[np.diag_indices(len(matrix))] += DAMPING * mean
    factor: npt.NDArray[np.float64] = np.linalg.cholesky(np.linalg.inv(matrix))
    root: Array = factor.T.astype(np.float32)
    return root


def _encode_rows(values: Array, form: _Format, roots: Sequence[Array]) -> Bytes:
    encoded, start = [], 0
    for root in roots:
        rest = values[:, start : start + len(root)].copy()
        start += len(root)
        importance = np.float32(1) / np.square(np.diagonal(root))
        for first in range(0, len(root), form.columns):
            stop = first + form.columns
            weight = np.broadcast_to(importance[first:stop], (len(rest), form.columns))
            group = form.fit(np.ascontiguousarray(rest[:, first:stop]), np.ascontiguousarray(weight))
            codes, errors = _round_group(rest[:, first:stop].T.copy(), group, form, root[first:stop, first:stop])
            encoded.append(group.pack(np.ascontiguousarray(codes.T)).reshape(len(values), -1))
            rest[:, stop:] -= errors.T @ root[first:stop, stop:]
    return np.concatenate(encoded, axis=1)


def _round_group(columns: Array, group: Group, form: _Format, root: Array) -> tuple[Array, Array]:
    """Codes and what is left over of each column, both [columns, rows]; `columns` is changed."""
    codes, errors = np.empty_like(columns), np.empty_like(columns)
    scale, minimum = np.ascontiguousarray(group.scale.T), np.ascontiguousarray(group.minimum.T)  # [runs, rows]
    by_scale = inverse(scale)
    for i in range(len(columns)):
        run = i // form.run
        column = columns[i]
        np.clip(np.rint((column + minimum[run]) * by_scale[run]), form.low, form.high, out=codes[i])
        errors[i] = (column - (scale[run] * codes[i] - minimum[run])) / root[i, i]
        columns[i + 1 :] -= root[i, i + 1 :, None] * errors[i]
    return codes, errors

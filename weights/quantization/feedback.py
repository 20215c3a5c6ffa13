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


class _Group:
    """A group of columns: value = scale * code - minimum, with a scale and a minimum for each run of a row."""

    columns: int
    run: int
    low: int
    high: int

    def refit(self, run: int, x: Array, weight: Array) -> None:
        """Fit the scale of a run again, to what feedback made of its columns: `x` and `weight` are [run, rows]."""

    def scale(self, run: int) -> tuple[Array, Array]:
        """Scale and minimum of a run, [rows]."""
        raise NotImplementedError

    def pack(self, codes: Array) -> Bytes:
        """[rows, columns] as blocks."""
        raise NotImplementedError


class _Q4_0(_Group):
    columns, run, low, high = 32, 32, -8, 7

    def __init__(self, x: Array, weight: Array) -> None:
        self._scale = encode.q4_0_scale(x, weight)

    def scale(self, run: int) -> tuple[Array, Array]:
        return self._scale, np.zeros_like(self._scale)

    def pack(self, codes: Array) -> Bytes:
        return encode.q4_0_blocks(self._scale, (codes + np.float32(8)).astype(np.uint8))


class _Q4K(_Group):
    columns, run, low, high = 256, 32, 0, 15

    def __init__(self, x: Array, weight: Array) -> None:
        self._d, self._scales, self._dmin, self._minima, _ = k_quants.fit_q4_k(_runs(x, 32), _runs(weight, 32))

    def refit(self, run: int, x: Array, weight: Array) -> None:
        units = self._d, self._dmin
        self._scales[:, run], self._minima[:, run] = k_quants.refit_q4_k(x, weight, *units)

    def scale(self, run: int) -> tuple[Array, Array]:
        return self._d * self._scales[:, run], self._dmin * self._minima[:, run]

    def pack(self, codes: Array) -> Bytes:
        return k_quants.pack_q4_k(self._d, self._scales, self._dmin, self._minima, _runs(codes, 32))


class _Q6K(_Group):
    columns, run, low, high = 256, 16, -32, 31

    def __init__(self, x: Array, weight: Array) -> None:
        self._d, self._scales, _ = k_quants.fit_q6_k(_runs(x, 16), _runs(weight, 16))

    def refit(self, run: int, x: Array, weight: Array) -> None:
        self._scales[:, run] = k_quants.refit_q6_k(x, weight, self._d)

    def scale(self, run: int) -> tuple[Array, Array]:
        return self._d * self._scales[:, run], np.zeros_like(self._d)

    def pack(self, codes: Array) -> Bytes:
        return k_quants.pack_q6_k(self._d, self._scales, _runs(codes, 16))


def _runs(values: Array, run: int) -> Array:
    """[rows, columns] as k_quants wants it: [values of a run, runs]."""
    return np.ascontiguousarray(values.reshape(-1, run).T)


_FORMATS: dict[Encoding, Callable[[Array, Array], _Group]] = {
    Encoding.Q4_0: _Q4_0,
    Encoding.Q4_K: _Q4K,
    Encoding.Q6_K: _Q6K,
}
_COLUMNS = {Encoding.Q4_0: 32, Encoding.Q4_K: 256, Encoding.Q6_K: 256}
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
        parts = pool.map(lambda i: _encode_rows(values[bounds[i] : bounds[i + 1]], encoding, roots), range(count))
        return np.concatenate(list(parts))


def _root(products: Array) -> Array:
    """The upper Cholesky factor of the inverse, float32 [n, n]."""
    matrix = products.astype(np.float64)
    mean = float(np.trace(matrix)) / len(matrix)
    if mean > 0:
        matrix /= mean  # nothing but ratios counts
    matrix[np.diag_indices(len(matrix))] += DAMPING
    factor: npt.NDArray[np.float64] = np.linalg.cholesky(np.linalg.inv(matrix))
    root: Array = factor.T.astype(np.float32)
    return root


def _encode_rows(values: Array, encoding: Encoding, roots: Sequence[Array]) -> Bytes:
    encoded, start, columns = [], 0, _COLUMNS[encoding]
    for root in roots:
        rest = values[:, start : start + len(root)].copy()
        start += len(root)
        importance = np.float32(1) / np.square(np.diagonal(root))
        for first in range(0, len(root), columns):
            stop = first + columns
            weight = np.ascontiguousarray(np.broadcast_to(importance[first:stop], (len(rest), columns)))
            group = _FORMATS[encoding](np.ascontiguousarray(rest[:, first:stop]), weight)
            codes, errors = _round_group(rest[:, first:stop].T.copy(), weight.T, group, root[first:stop, first:stop])
            encoded.append(group.pack(np.ascontiguousarray(codes.T)).reshape(len(values), -1))
            rest[:, stop:] -= errors.T @ root[first:stop, stop:]
    return np.concatenate(encoded, axis=1)


def _round_group(columns: Array, weight: Array, group: _Group, root: Array) -> tuple[Array, Array]:
    """Codes and what is left over of each column, both [columns, rows]; `columns` is changed."""
    codes, errors = np.empty_like(columns), np.empty_like(columns)
    for i in range(len(columns)):
        run, place = divmod(i, group.run)
        if place == 0:
            if i:
                group.refit(run, columns[i : i + group.run], np.ascontiguousarray(weight[i : i + group.run]))
            scale, minimum = group.scale(run)
            by_scale = inverse(scale)
        column = columns[i]
        np.clip(np.rint((column + minimum) * by_scale), group.low, group.high, out=codes[i])
        errors[i] = (column - (scale * codes[i] - minimum)) / root[i, i]
        columns[i + 1 :] -= root[i, i + 1 :, None] * errors[i]
    return codes, errors

"""Panels, the layout of weights in memory that the CPU kernels read as one stream: 32 rows side by side.

See kernels/linear_panels.mojo. The engine lays them out itself (kernels/layout.mojo), row after row of a file becoming
panel after panel while they are read.
"""

from __future__ import annotations

from weights.tensor import Encoding

PANEL = 32  # rows
_WORD = 4  # bytes, the least that stands together


def panels_shape(encoding: Encoding, shape: tuple[int, ...]) -> tuple[int, int]:
    """Panels of a matrix `[rows, columns]`, and the bytes of one: of 32 rows in whole words, whatever there are."""
    rows, columns = shape
    row_bytes = encoding.row_bytes(columns)
    if not encoding.is_quantized:
        row_bytes = -(-row_bytes // _WORD) * _WORD
    return -(-rows // PANEL), row_bytes * PANEL

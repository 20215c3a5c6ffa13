"""Panels by numpy, from their description in replit/cpu/kernels/linear_panels.mojo: what the engine's are held to."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from replit.cpu.panels import PANEL, panels_shape
from weights.tensor import Encoding

Bytes = npt.NDArray[np.uint8]


class Unit(NamedTuple):
    """The bytes of a row's smallest piece, and where in it the two are that are no whole word of four."""

    size: int
    short_at: int | None = None


UNITS = {
    Encoding.FLOAT32: Unit(4),
    Encoding.BFLOAT16: Unit(4),
    Encoding.Q8_0: Unit(34, 0),
    Encoding.Q4_0: Unit(18, 0),
    Encoding.Q4_K: Unit(144),
    Encoding.Q6_K: Unit(210, 208),
}


def panels_of(rows: Bytes, encoding: Encoding, columns: int) -> Bytes:
    """A matrix `[N, bytes of a row]` as `[panels, bytes of a panel]`; the last rows repeat the last one."""
    unit = UNITS[encoding]
    count, size = panels_shape(encoding, (len(rows), columns))
    indices = np.minimum(np.arange(count * PANEL), len(rows) - 1)
    padded = np.pad(rows[indices], ((0, 0), (0, size // PANEL - rows.shape[1])))
    units = padded.reshape(count, PANEL, -1, unit.size)
    start = 2 if unit.short_at == 0 else 0
    words = units[..., start : start + unit.size // 4 * 4].reshape(*units.shape[:3], -1, 4)
    parts = [words.transpose(0, 2, 3, 1, 4).reshape(count, -1)]
    if unit.short_at is not None:
        shorts = units[..., unit.short_at : unit.short_at + 2]
        parts.append(shorts.transpose(0, 2, 1, 3).reshape(count, -1))
    return np.ascontiguousarray(np.concatenate(parts, axis=1))

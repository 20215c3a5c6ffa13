"""Weights laid out in panels when they are read into memory (linear_panels.mojo)."""

import extensibility
from extensibility import InputTensor
from extensibility import _MutableInputTensor as MutableInputTensor
from max.gpu.host import DeviceContext
from std.math import ceildiv

from .linear import format_of, is_encoding
from .linear_formats import Bytes, Format, HALVES, LINE, PANEL, words_of
from .linear_panels import Weights, lay_out
from .threads import in_shares, threads_for


def lay_out_panels[F: Format](rows: Weights, panels: Bytes, panel_bytes: Int):
    """All panels of some rows."""
    comptime UNITS = F.BLOCK // F.UNIT
    var units = panel_bytes // PANEL // F.UNIT_BYTES

    def lay(first: Int, last: Int) {imm}:
        for panel in range(first, last):
            var words = panels.unsafe_offset(panel * panel_bytes)
            var shorts = words.unsafe_offset(units * words_of[F] * HALVES * LINE)
            for unit in range(0, units, UNITS):
                lay_out[F](
                    rows,
                    panel * PANEL,
                    unit,
                    words.unsafe_offset(unit * words_of[F] * HALVES * LINE),
                    shorts.unsafe_offset(unit * 2 * PANEL),
                )

    in_shares(lay, ceildiv(rows.rows, PANEL), threads_for(rows.rows * rows.row_bytes), 8, 1)


@extensibility.register("replit.lay_out")
struct LayOut:
    """Writes `rows`, `[N, bytes of a row]`, to `panels`, `[ceil(N / 32), bytes of a panel]`."""

    @staticmethod
    def execute[
        target: StaticString, encoding: StaticString
    ](
        panels: MutableInputTensor[dtype=DType.uint8, rank=2, ...],
        rows: InputTensor[dtype=DType.uint8, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        comptime assert is_encoding[encoding], "no kernel for this encoding of the weights"
        var weights = Weights(rebind[Bytes](rows.unsafe_ptr()), rows.dim_size(0), rows.dim_size(1))
        var shape = panels.shape()
        lay_out_panels[format_of[encoding]](weights, rebind[Bytes](panels.unsafe_ptr()), shape[1])

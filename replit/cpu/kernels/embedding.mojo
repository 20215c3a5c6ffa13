"""Rows of the token table, expanded to float32."""

import extensibility
from extensibility import InputTensor, OutputTensor

from .linear import Stored, format_of, is_encoding, weights_of
from .linear_formats import Floats, Format, scratch
from .linear_panels import copy_row


def gather[
    F: Format, panels: Bool
](
    output: OutputTensor[dtype=DType.float32, rank=2, ...], ids: InputTensor[rank=1, ...], table: Stored, vocabulary: Int
) raises:
    var width = output.dim_size(1)
    var weights = weights_of[F, panels](table, vocabulary, width)
    var values = rebind[Floats](output.unsafe_ptr())
    var row = scratch(weights.row_bytes)
    for t in range(ids.dim_size(0)):
        var id = Int(ids.unsafe_ptr().unsafe_load(t))
        if id < 0 or id >= vocabulary:
            row.unsafe_free()
            raise Error("token id ", id, " is outside the table of ", vocabulary, " rows")
        copy_row[F, panels](weights, id, row)
        var place = values.unsafe_offset(t * width)
        for unit in range(width // F.UNIT):
            place.unsafe_store(unit * F.UNIT, F.decode(row, unit))
        comptime if F.UNIT == 2:
            if width % 2 == 1:
                var last = row.unsafe_bitcast[BFloat16]().unsafe_load(width - 1)
                place.unsafe_store(width - 1, last.cast[DType.float32]())
    row.unsafe_free()


@extensibility.register("replit.embedding")
struct Embedding:
    """Gathers `table[ids]`: ids `[T]`, output float32 `[T, E]`.

    The table is `[V, E]` in a float type, or `[V, bytes]` in any encoding, or has `rows` of them in panels.
    """

    @staticmethod
    def execute[
        target: StaticString, encoding: StaticString, panels: Bool, rows: Int
    ](
        output: OutputTensor[dtype=DType.float32, rank=2, ...],
        ids: InputTensor[rank=1, ...],
        table: Stored,
    ) raises:
        comptime assert is_encoding[encoding], "no kernel for this encoding of the token table"
        gather[format_of[encoding], panels](output, ids, table, rows if panels else table.dim_size(0))

"""Rows of the token table, expanded to float32."""

import extensibility
from extensibility import InputTensor, OutputTensor
from std.sys import size_of

from .linear import format_of, is_encoding
from .linear_formats import Bytes, Floats, Format


@no_inline
def expand_row[F: Format](row: Bytes, width: Int, output: Floats):
    for group in range(width // F.GROUP):
        output.unsafe_store(group * F.GROUP, F.decode(row, group))


def gather[
    F: Format
](
    output: OutputTensor[dtype=DType.float32, rank=2, ...],
    ids: InputTensor[rank=1, ...],
    table: InputTensor[rank=2, ...],
) raises:
    var vocabulary = table.dim_size(0)
    var width = output.dim_size(1)
    var row_bytes = table.dim_size(1) * size_of[table.dtype]()
    if row_bytes * F.STEP != width * F.WEIGHT_BYTES:
        raise Error("a table with rows of ", row_bytes, " bytes does not hold ", width, " elements")
    var rows = rebind[Bytes](table.unsafe_ptr().unsafe_bitcast[UInt8]())
    var values = rebind[Floats](output.unsafe_ptr())
    for t in range(ids.dim_size(0)):
        var id = Int(ids.unsafe_ptr().unsafe_load(t))
        if id < 0 or id >= vocabulary:
            raise Error("token id ", id, " is outside the table of ", vocabulary, " rows")
        expand_row[F](rows.unsafe_offset(id * row_bytes), width, values.unsafe_offset(t * width))


@extensibility.register("replit.embedding")
struct Embedding:
    """Gathers `table[ids]`: ids `[T]`, output float32 `[T, E]`.

    The table is `[V, E]` in a float type, or `[V, bytes]` in any encoding.
    """

    @staticmethod
    def execute[
        target: StaticString, encoding: StaticString
    ](
        output: OutputTensor[dtype=DType.float32, rank=2, ...],
        ids: InputTensor[rank=1, ...],
        table: InputTensor[rank=2, ...],
    ) raises:
        comptime assert is_encoding[encoding], "no kernel for this encoding of the token table"
        gather[format_of[encoding]](output, ids, table)

"""Rows of the token table, expanded to float32."""

import extensibility
from extensibility import InputTensor, OutputTensor
from std.sys import size_of

from .linear_blocks import BlockFormat
from .linear_formats import BFloat16Format, Bytes, Float32Format, Floats, Format
from .linear_superblocks import SuperblockFormat


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

    The table is `[V, E]` in float32 or bfloat16, or `[V, bytes]` in a quantized `encoding`.
    """

    @staticmethod
    def execute[
        target: StaticString, encoding: StaticString = ""
    ](
        output: OutputTensor[dtype=DType.float32, rank=2, ...],
        ids: InputTensor[rank=1, ...],
        table: InputTensor[rank=2, ...],
    ) raises:
        comptime if table.dtype == DType.float32:
            gather[Float32Format](output, ids, table)
        elif table.dtype == DType.bfloat16:
            gather[BFloat16Format](output, ids, table)
        elif encoding == "q8_0":
            gather[BlockFormat[8]](output, ids, table)
        elif encoding == "q4_0":
            gather[BlockFormat[4]](output, ids, table)
        elif encoding == "q4_k":
            gather[SuperblockFormat[4]](output, ids, table)
        elif encoding == "q6_k":
            gather[SuperblockFormat[6]](output, ids, table)
        else:
            comptime assert False, "no kernel for this encoding of the token table"

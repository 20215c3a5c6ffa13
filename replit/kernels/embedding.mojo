"""Rows of the token table, expanded to float32."""

import extensibility

from extensibility import InputTensor, OutputTensor


@extensibility.register("replit.embedding")
struct Embedding:
    """Gathers `table[ids]`: ids `[T]`, table `[V, E]` float32 or bfloat16, output float32 `[T, E]`."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        output: OutputTensor[dtype=DType.float32, rank=2, ...],
        ids: InputTensor[rank=1, ...],
        table: InputTensor[rank=2, ...],
    ) raises:
        var vocabulary = table.dim_size(0)
        var width = table.dim_size(1)
        for t in range(ids.dim_size(0)):
            var id = Int(ids.unsafe_ptr().unsafe_load(t))
            if id < 0 or id >= vocabulary:
                raise Error("token id ", id, " is outside the table of ", vocabulary, " rows")
            var source = table.unsafe_ptr().unsafe_offset(id * width)
            var row = output.unsafe_ptr().unsafe_offset(t * width)
            for e in range(width):
                row.unsafe_store(e, source.unsafe_load(e).cast[DType.float32]())

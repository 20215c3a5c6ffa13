"""Attention of a block of queries over some of their keys, with the softmax going along.

The keys of a sequence are cut into chunks at fixed places, each with a softmax of its own, which are merged in order: so
the chunks of a long cache are work for several threads, and the result depends neither on who took them nor on how many
queries go together.
"""

from .attention_cache import KEY_BLOCK, Layer
from .attention_products import NEGLIGIBLE, add_values, merge, score, softmax_step
from .linear_formats import COLUMNS, Floats, Sums

comptime CHUNK = 1024
"""Keys of a chunk; a multiple of KEY_BLOCK."""


@fieldwise_init
struct Queries(Copyable, ImplicitlyCopyable, Movable):
    """Rows of a block, (query, head) pairs, heads fastest: the heads of one group, for some tokens of a sequence."""

    var sequence: Int  # its number in the batch
    var kv_head: Int
    var token: Int  # row of the batch of the first query
    var position: Int  # of the first query
    var count: Int


@fieldwise_init
struct Softmax[size: Int](Copyable, ImplicitlyCopyable, Movable):
    """For each row of a block its sum of weighted values, `[rows, size]`, then the maxima, then the sums of weights."""

    var values: Floats
    var rows: Int

    @staticmethod
    def floats(rows: Int) -> Int:
        return rows * (Self.size + 2)

    def value(self, row: Int) -> Floats:
        return self.values.unsafe_offset(row * Self.size)

    def maximum(self, row: Int) -> Floats:
        return self.values.unsafe_offset(self.rows * Self.size + row)

    def total(self, row: Int) -> Floats:
        return self.values.unsafe_offset(self.rows * (Self.size + 1) + row)

    def reset(self):
        for i in range(self.rows * Self.size):
            self.values.unsafe_store(i, 0)
        for row in range(self.rows):
            self.maximum(row).unsafe_store(0, NEGLIGIBLE)
            self.total(row).unsafe_store(0, 0)

    def add(self, other: Self):
        """Those of the keys that follow."""
        for row in range(self.rows):
            merge[Self.size](
                self.value(row),
                self.maximum(row),
                self.total(row),
                other.value(row),
                other.maximum(row).unsafe_load(),
                other.total(row).unsafe_load(),
            )

    def write[dtype: DType](self, layer: Layer[dtype], block: Queries, output: Floats):
        """The attention of the rows, into `output[T, H * D]`."""
        for row in range(self.rows):
            var head = (block.token + row // layer.group) * layer.n_kv_heads * layer.group
            head += block.kv_head * layer.group + row % layer.group
            var factor = Sums(1 / self.total(row).unsafe_load())
            comptime for i in range(0, Self.size, COLUMNS):
                output.unsafe_store(head * Self.size + i, self.value(row).unsafe_load[width=COLUMNS](i) * factor)


struct Space[size: Int]:
    """What a thread needs for blocks of up to so many rows."""

    var storage: List[Float32]
    var rows: Int

    def __init__(out self, rows: Int):
        self.rows = rows
        self.storage = List[Float32](
            unsafe_uninit_length=rows * (Self.size + KEY_BLOCK) + 2 * Softmax[Self.size].floats(rows)
        )

    def queries(self) -> Floats:
        """`[rows, size]`, scaled."""
        return rebind[Floats](self.storage.unsafe_ptr())

    def scores(self) -> Floats:
        """`[rows, KEY_BLOCK]`"""
        return self.queries().unsafe_offset(self.rows * Self.size)

    def chunk(self, rows: Int) -> Softmax[Self.size]:
        """Of the keys of a chunk."""
        return Softmax[Self.size](self.scores().unsafe_offset(self.rows * KEY_BLOCK), rows)

    def sum(self, rows: Int) -> Softmax[Self.size]:
        """Of all chunks."""
        var chunk = self.scores().unsafe_offset(self.rows * KEY_BLOCK)
        return Softmax[Self.size](chunk.unsafe_offset(Softmax[Self.size].floats(self.rows)), rows)


def load_queries[
    size: Int, dtype: DType
](layer: Layer[dtype], block: Queries, qkv: Floats, queries: Floats):
    """The block's queries, scaled, out of `qkv[T, (H + 2K) * D]`."""
    var stride = layer.n_kv_heads * (layer.group + 2) * size
    for row in range(block.count * layer.group):
        var head = block.kv_head * layer.group + row % layer.group
        var query = qkv.unsafe_offset((block.token + row // layer.group) * stride + head * size)
        comptime for i in range(0, size, COLUMNS):
            queries.unsafe_store(row * size + i, query.unsafe_load[width=COLUMNS](i) * layer.scale)


@no_inline
def attend_chunk[
    size: Int, dtype: DType
](layer: Layer[dtype], block: Queries, begin: Int, queries: Floats, scores: Floats, result: Softmax[size]):
    """Attention over the chunk of keys from `begin` on, up to the last that a query sees."""
    result.reset()
    var end = min(begin + CHUNK, block.position + block.count)
    for key in range(begin, end, KEY_BLOCK):
        var keys = layer.keys(block.sequence, key, block.kv_head)
        var next = layer.keys(block.sequence, key + KEY_BLOCK, block.kv_head) if key + KEY_BLOCK < end else keys
        score[dtype, size](result.rows, queries, keys, scores, next)
        for row in range(result.rows):
            var position = block.position + row // layer.group
            var slope = layer.slopes[unsafe_offset=block.kv_head * layer.group + row % layer.group]
            softmax_step[size](
                scores.unsafe_offset(row * KEY_BLOCK),
                position + 1 - key,
                slope * Float32(key - position),
                slope,
                result.value(row),
                result.maximum(row),
                result.total(row),
            )
        var values = keys.unsafe_offset(layer.value_offset)
        var present = min(KEY_BLOCK, end - key)
        add_values[dtype, size](
            result.rows, scores, values, present, result.values, next.unsafe_offset(layer.value_offset)
        )


def attend_all[
    size: Int, dtype: DType
](layer: Layer[dtype], block: Queries, qkv: Floats, output: Floats, space: Space[size]):
    """Attention over all keys, chunk after chunk."""
    var rows = block.count * layer.group
    var sum = space.sum(rows)
    load_queries[size](layer, block, qkv, space.queries())
    sum.reset()
    for begin in range(0, block.position + block.count, CHUNK):
        attend_chunk[size](layer, block, begin, space.queries(), space.scores(), space.chunk(rows))
        sum.add(space.chunk(rows))
    sum.write(layer, block, output)

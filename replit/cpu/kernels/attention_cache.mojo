"""The pages of MAX's key-value cache as the CPU's attention lays them out.

Keys and values of a head are apart from those of the others, `[page, key or value, layer, kv head, …]`: as MAX declares a
page, with the heads of a position together, a head's keys are as far apart as pages of memory are large, which no prefetcher
follows. Keys stand in panels of 16 positions, `[16 positions][element][position]`, like weights (linear_panels.mojo), so
that a query is multiplied with 16 of them at a time; values as `[position][element]`. Nothing else looks into the pages.
"""

from extensibility import InputTensor
from extensibility import _MutableInputTensor as MutableInputTensor

from .linear_formats import Floats

comptime Indices = MutPointer[UInt32, MutUntrackedOrigin]
comptime Elements[dtype: DType] = MutPointer[Scalar[dtype], MutUntrackedOrigin]
comptime KEY_BLOCK = 64
"""Keys scored at a time; divides the page size, so a block never crosses pages."""
comptime KEYS = 16
"""Keys of a panel."""
comptime BLOCK_ROWS = 96
"""Most rows (queries x heads of a group) of a block of queries."""


@fieldwise_init
struct Layer[dtype: DType](Copyable, ImplicitlyCopyable, Movable):
    """One layer of the cache, and its heads."""

    var blocks: Elements[Self.dtype]
    var pages: Indices  # page of each block of positions, [sequences, pages_per_sequence]
    var pages_per_sequence: Int
    var page_size: Int
    var page_stride: Int
    var stride: Int  # to the next layer
    var value_offset: Int  # from keys to their values
    var size: Int  # of a head
    var n_kv_heads: Int
    var group: Int  # query heads of one kv head
    var scale: Float32
    var slopes: Floats  # ALiBi, [heads]

    @inline(.always)
    def head(self, sequence: Int, position: Int, kv_head: Int) -> Elements[Self.dtype]:
        """The keys of a head in the page of a position."""
        var page = Int(self.pages[unsafe_offset=sequence * self.pages_per_sequence + position // self.page_size])
        return self.blocks.unsafe_offset(page * self.page_stride + kv_head * self.page_size * self.size)

    @inline(.always)
    def keys(self, sequence: Int, position: Int, kv_head: Int) -> Elements[Self.dtype]:
        """The panels of keys from a position on that begins one."""
        return self.head(sequence, position, kv_head).unsafe_offset(position % self.page_size * self.size)

    @inline(.always)
    def values(self, sequence: Int, position: Int, kv_head: Int) -> Elements[Self.dtype]:
        """The value of a position; those of the following positions of its page come after it."""
        return self.keys(sequence, position, kv_head).unsafe_offset(self.value_offset)

    def store(self, sequence: Int, position: Int, kv_head: Int, key: Floats, value: Floats):
        """Puts key and value of a position into their page, rounded to its type."""
        var slot = position % self.page_size
        var panel = self.head(sequence, position, kv_head).unsafe_offset(slot // KEYS * KEYS * self.size + slot % KEYS)
        for e in range(self.size):
            panel.unsafe_store(e * KEYS, key.unsafe_load(e).cast[Self.dtype]())
        var place = self.values(sequence, position, kv_head)
        for e in range(self.size):
            place.unsafe_store(e, value.unsafe_load(e).cast[Self.dtype]())

    def following(self, count: Int) -> Self:
        """The layer that many further on."""
        var layer = self
        layer.blocks = self.blocks.unsafe_offset(count * self.stride)
        return layer


def layer_of[
    dtype: DType, //, head_size: Int, n_heads: Int
](
    blocks: MutableInputTensor[dtype=dtype, rank=6, ...],
    page_stride: InputTensor[dtype=DType.int64, rank=1, ...],
    lookup_table: InputTensor[dtype=DType.uint32, rank=2, ...],
    slopes: InputTensor[dtype=DType.float32, rank=1, ...],
    layer_index: UInt32,
    scale: Float32,
) raises -> Layer[dtype]:
    """Raises if a page is no multiple of KEY_BLOCK, or if a group has more query heads than a block has rows."""
    comptime assert head_size % KEYS == 0, "the head size must be a multiple of 16"
    var shape = blocks.shape()
    var n_kv_heads = shape[4]
    var layer_stride = shape[3] * n_kv_heads * head_size
    var stride = Int(page_stride.unsafe_ptr()[unsafe_offset=0])
    var layer = Layer[dtype](
        blocks=rebind[Elements[dtype]](blocks.unsafe_ptr()).unsafe_offset(Int(layer_index) * layer_stride),
        pages=rebind[Indices](lookup_table.unsafe_ptr()),
        pages_per_sequence=lookup_table.shape()[1],
        page_size=shape[3],
        page_stride=stride if stride > 0 else 2 * shape[2] * layer_stride,
        stride=layer_stride,
        value_offset=shape[2] * layer_stride,
        size=head_size,
        n_kv_heads=n_kv_heads,
        group=n_heads // n_kv_heads,
        scale=scale,
        slopes=rebind[Floats](slopes.unsafe_ptr()),
    )
    if layer.page_size % KEY_BLOCK != 0:
        raise Error("the page size must be a multiple of 64")
    if layer.group > BLOCK_ROWS:
        raise Error("more than 96 query heads share one key-value head")
    return layer

"""Activations made ready for a product: normalized, converted, and laid out block after block of the depth."""

from std.math import align_up, ceildiv, sqrt

from .linear_formats import Bytes, Floats, Format, LANES, Vector, scratch

comptime TOGETHER = 32
"""Rows are made up to a multiple of this many, which AMX multiplies together."""


struct Inputs[F: Format](TrivialRegisterPassable):
    """Memory for packed activation rows, `[block][row]` of records, to be freed."""

    var start: Bytes
    var rows: Int
    var depth: Int

    def __init__(out self, rows: Int, depth: Int):
        self.rows = rows
        self.depth = depth
        # AMX reads as many rows from any one on, also where those that go through together end (CHUNK_ROWS)
        var records = ceildiv(depth, Self.F.BLOCK) * align_up(rows, TOGETHER) + TOGETHER
        self.start = scratch(records * Self.F.RECORD)

    def blocks(self) -> Int:
        return ceildiv(self.depth, Self.F.BLOCK)

    def padded(self) -> Int:
        return align_up(self.rows, TOGETHER)

    def place(self, block: Int, row: Int) -> Bytes:
        return self.start.unsafe_offset((block * self.padded() + row) * Self.F.RECORD)

    def units(self, block: Int) -> Int:
        """Of a block; the last one may have fewer, and its last unit fewer elements."""
        return ceildiv(min(Self.F.BLOCK, self.depth - block * Self.F.BLOCK), Self.F.UNIT)

    @no_inline
    def pack(self, x: Floats, norm: Norm, row0: Int, row1: Int):
        """Rows `row0..row1` of `x[rows, depth]`."""
        var space = scratch(4 * self.depth if norm.active() else 1)
        for row in range(row0, row1):
            var source = norm.row(
                x.unsafe_offset(row * self.depth), self.depth, space.unsafe_bitcast[Float32]()
            )
            for block in range(self.blocks()):
                var first = block * Self.F.BLOCK
                var count = min(Self.F.BLOCK, self.depth - first)
                Self.F.pack(source.unsafe_offset(first), count, self.place(block, row))
        space.unsafe_free()


@fieldwise_init
struct Norm(TrivialRegisterPassable):
    """LayerNorm without bias; an `epsilon` below zero means none."""

    var gain: Floats
    var epsilon: Float32

    def active(self) -> Bool:
        return self.epsilon >= 0

    def row(self, x: Floats, count: Int, space: Floats) -> Floats:
        """The row as it is multiplied: `x`, or its norm, written to `space`."""
        if not self.active():
            return x
        normalize(x, count, self, space)
        return space


def normalize(x: Floats, count: Int, norm: Norm, output: Floats):
    """Mean and variance in two passes over the row, which is in the cache."""
    var whole = count // LANES * LANES
    var sums = Vector(0)
    for i in range(0, whole, LANES):
        sums += x.unsafe_load[width=LANES](i)
    var mean = sums.reduce_add()
    for i in range(whole, count):
        mean += x.unsafe_load(i)
    mean /= Float32(count)
    var squares = Vector(0)
    for i in range(0, whole, LANES):
        var d = x.unsafe_load[width=LANES](i) - mean
        squares = d.fma(d, squares)
    var variance = squares.reduce_add()
    for i in range(whole, count):
        variance += (x.unsafe_load(i) - mean) * (x.unsafe_load(i) - mean)
    var scale = 1 / sqrt(variance / Float32(count) + norm.epsilon)
    for i in range(count):
        output.unsafe_store(i, (x.unsafe_load(i) - mean) * scale * norm.gain.unsafe_load(i))

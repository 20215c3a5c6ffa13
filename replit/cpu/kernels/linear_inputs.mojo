"""Activations made ready for a product: normalized, converted and laid out as the tiles read them."""

from std.math import ceildiv, sqrt

from .linear_formats import Bytes, Floats, Format, LANES, Vector, scratch

comptime BLOCK_STEPS = 48 if LANES >= 8 else 64
"""Steps of a row that a tile adds up before its sums go to the output: the weights of a tile and
the activations that pass by fit in a first-level cache of 32 KiB."""


struct Shape[F: Format](TrivialRegisterPassable):
    """Where the blocks of `rows` packed activation rows of `depth` elements lie.

    Block after block, then tile after tile; within a tile the rows are interleaved step by step.
    The elements after the last whole step are a block of one step of their own.
    """

    comptime INPUT_BLOCK = BLOCK_STEPS * Self.F.INPUT_BYTES
    var rows: Int
    var depth: Int
    var blocks: Int
    var tail: Int

    def __init__(out self, rows: Int, depth: Int):
        self.rows = rows
        self.depth = depth
        self.blocks = ceildiv(depth // Self.F.STEP, BLOCK_STEPS)
        self.tail = depth % Self.F.STEP

    def steps(self, block: Int) -> Int:
        return min(BLOCK_STEPS, self.depth // Self.F.STEP - block * BLOCK_STEPS)

    def tile_rows(self, row: Int) -> Int:
        return min(Self.F.TILE_ROWS, self.rows - row // Self.F.TILE_ROWS * Self.F.TILE_ROWS)

    def place(self, block: Int, row: Int) -> Int:
        """The first step of a row; the next is `tile_rows(row) * F.INPUT_BYTES` further."""
        var first = row // Self.F.TILE_ROWS * Self.F.TILE_ROWS
        return (block * self.rows + first) * self.INPUT_BLOCK + (row - first) * Self.F.INPUT_BYTES

    def size(self) -> Int:
        return (self.blocks + 1) * self.rows * self.INPUT_BLOCK


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


@no_inline
def pack_row[F: Format](x: Floats, shape: Shape[F], row: Int, packed: Bytes):
    var advance = shape.tile_rows(row) * F.INPUT_BYTES
    for block in range(shape.blocks):
        var source = x.unsafe_offset(block * BLOCK_STEPS * F.STEP)
        var dest = packed.unsafe_offset(shape.place(block, row))
        for s in range(shape.steps(block)):
            F.pack_step(source.unsafe_offset(s * F.STEP), dest.unsafe_offset(s * advance))
    if shape.tail > 0:
        var last = scratch(4 * F.STEP).unsafe_bitcast[Float32]()
        for i in range(F.STEP):
            var inside = i < shape.tail
            last.unsafe_store(i, x.unsafe_load(shape.depth - shape.tail + i) if inside else 0)
        F.pack_step(last, packed.unsafe_offset(shape.place(shape.blocks, row)))
        last.unsafe_free()


@no_inline
def pack_rows[
    F: Format
](x: Floats, shape: Shape[F], norm: Norm, row0: Int, row1: Int, packed: Bytes):
    var space = scratch(4 * shape.depth if norm.active() else 1)
    for row in range(row0, row1):
        var place = space.unsafe_bitcast[Float32]()
        var source = norm.row(x.unsafe_offset(row * shape.depth), shape.depth, place)
        pack_row(source, shape, row, packed)
    space.unsafe_free()

"""Products x @ w^T for row-major weights: the loops around the register tile, shared by decode and prefill."""

from std.memory import unsafe_stack_allocation, unsafe_memcpy, unsafe_memset_zero
from std.memory.alloc import unsafe_alloc
from std.math import ceildiv, sqrt
from max.algorithm import sync_parallelize
from std.runtime import parallelism_level
from .linear_formats import Bytes, Floats, Format, LANES
from .linear_epilogue import Epilogue
from .linear_tile import tile

comptime BLOCK_BYTES = 4096
"""Bytes of one weight row that a tile reads before its sums are added to the output."""
comptime TILE_ROWS = 3
comptime TILE_COLUMNS = 8
comptime CHUNK_ROWS = 126
"""Activation rows whose block stays in the second-level cache."""
comptime SMALL_ROWS = 16
"""Up to here the weights are streamed once, row after row."""


struct Shape[F: Format](TrivialRegisterPassable):
    """Where the blocks of `rows` packed activation rows of `depth` elements lie."""

    comptime BLOCK_STEPS = BLOCK_BYTES // Self.F.WEIGHT_BYTES
    comptime INPUT_BLOCK = Self.BLOCK_STEPS * Self.F.INPUT_BYTES
    var rows: Int
    var depth: Int
    var blocks: Int
    var tail: Int

    def __init__(out self, rows: Int, depth: Int):
        self.rows = rows
        self.depth = depth
        self.blocks = ceildiv(depth // Self.F.STEP, Self.BLOCK_STEPS)
        self.tail = depth % Self.F.STEP

    def steps(self, block: Int) -> Int:
        return min(Self.BLOCK_STEPS, self.depth // Self.F.STEP - block * Self.BLOCK_STEPS)

    def block(self, block: Int, row: Int) -> Int:
        return (block * self.rows + row) * Self.INPUT_BLOCK

    def size(self) -> Int:
        return (self.blocks + 1) * self.rows * Self.INPUT_BLOCK


@fieldwise_init
struct Norm(TrivialRegisterPassable):
    """LayerNorm without bias; `epsilon` below zero means none."""

    var gain: Floats
    var epsilon: Float32

    def active(self) -> Bool:
        return self.epsilon >= 0


def normalize(x: Floats, count: Int, norm: Norm, output: Floats):
    var sum = SIMD[DType.float32, LANES](0)
    var full = count // LANES * LANES
    for i in range(0, full, LANES):
        sum += x.unsafe_load[width=LANES](i)
    var mean = sum.reduce_add()
    for i in range(full, count):
        mean += x.unsafe_load(i)
    mean /= Float32(count)
    var squares = SIMD[DType.float32, LANES](0)
    for i in range(0, full, LANES):
        var d = x.unsafe_load[width=LANES](i) - mean
        squares = d.fma(d, squares)
    var variance = squares.reduce_add()
    for i in range(full, count):
        variance += (x.unsafe_load(i) - mean) * (x.unsafe_load(i) - mean)
    var scale = 1 / sqrt(variance / Float32(count) + norm.epsilon)
    for i in range(count):
        output.unsafe_store(i, (x.unsafe_load(i) - mean) * scale * norm.gain.unsafe_load(i))


@no_inline
def pack_row[F: Format](x: Floats, shape: Shape[F], row: Int, packed: Bytes):
    for block in range(shape.blocks):
        var source = x.unsafe_offset(block * shape.BLOCK_STEPS * F.STEP)
        var dest = packed.unsafe_offset(shape.block(block, row))
        for s in range(shape.steps(block)):
            F.pack_step(source.unsafe_offset(s * F.STEP), dest.unsafe_offset(s * F.INPUT_BYTES))
    if shape.tail > 0:
        var last = unsafe_stack_allocation[F.STEP, DType.float32, alignment=64]()
        for i in range(F.STEP):
            last.unsafe_store(i, x.unsafe_load(shape.depth - shape.tail + i) if i < shape.tail else 0)
        F.pack_step(rebind[Floats](last), packed.unsafe_offset(shape.block(shape.blocks, row)))


@no_inline
def product[F: Format](
    weights: Bytes, row_bytes: Int, inputs: Bytes, shape: Shape[F],
    output: Floats, width: Int,
    column0: Int, column1: Int, row0: Int, row1: Int, block0: Int, block1: Int,
):
    var n = column0
    while n < column1:
        var full = n + TILE_COLUMNS <= column1
        for block in range(block0, block1):
            var w = weights.unsafe_offset(n * row_bytes + block * BLOCK_BYTES)
            var ahead = BLOCK_BYTES if block + 1 < block1 else TILE_COLUMNS * row_bytes - (block - block0) * BLOCK_BYTES
            var t = row0
            while t < row1:
                var x = inputs.unsafe_offset(shape.block(block, t))
                var y = output.unsafe_offset(t * width + n)
                var rows = min(TILE_ROWS, row1 - t)
                comptime for r in range(1, TILE_ROWS + 1):
                    if rows == r:
                        if full:
                            tile[F, r, TILE_COLUMNS](w, row_bytes, ahead, x, shape.INPUT_BLOCK, shape.steps(block), block == 0, y, width)
                        else:
                            tile[F, r, 1](w, row_bytes, ahead, x, shape.INPUT_BLOCK, shape.steps(block), block == 0, y, width)
                t += rows
        n += TILE_COLUMNS if full else 1


@no_inline
def tail_product[F: Format](
    weights: Bytes, row_bytes: Int, inputs: Bytes, shape: Shape[F],
    output: Floats, width: Int, column0: Int, column1: Int,
):
    """Adds the last elements of rows that are no whole number of steps, padded with zeros."""
    var padded = unsafe_stack_allocation[F.WEIGHT_BYTES, DType.uint8, alignment=64]()
    var offset = shape.depth // F.STEP * F.WEIGHT_BYTES
    for n in range(column0, column1):
        for i in range(F.WEIGHT_BYTES):
            padded.unsafe_store(i, weights.unsafe_load(n * row_bytes + offset + i) if offset + i < row_bytes else 0)
        for t in range(shape.rows):
            tile[F, 1, 1](
                rebind[Bytes](padded), 0, 0, inputs.unsafe_offset(shape.block(shape.blocks, t)), 0, 1,
                shape.blocks == 0, output.unsafe_offset(t * width + n), width)


@no_inline
def linear[F: Format, E: Epilogue](
    x: Floats, weights: Bytes, row_bytes: Int, output: Floats, rows: Int, width: Int, depth: Int, norm: Norm, epilogue: E,
):
    """`output[rows, width] = epilogue(norm(x)[rows, depth] @ weights[width, depth]^T)`."""
    var shape = Shape[F](rows, depth)
    var packed = unsafe_alloc[UInt8](shape.size(), alignment=64)
    var inputs = rebind[Bytes](packed)
    var normed = unsafe_alloc[Float32](depth)
    for t in range(rows):
        var source = x.unsafe_offset(t * depth)
        if norm.active():
            normalize(source, depth, norm, rebind[Floats](normed))
            source = rebind[Floats](normed)
        pack_row(source, shape, t, inputs)

    def chunk(column0: Int, column1: Int) {imm}:
        if rows <= SMALL_ROWS:
            product(weights, row_bytes, inputs, shape, output, width, column0, column1, 0, rows, 0, shape.blocks)
        else:
            for row in range(0, rows, CHUNK_ROWS):
                for block in range(shape.blocks):
                    product(weights, row_bytes, inputs, shape, output, width, column0, column1, row, min(rows, row + CHUNK_ROWS), block, block + 1)
        if shape.tail > 0:
            tail_product(weights, row_bytes, inputs, shape, output, width, column0, column1)
        for t in range(rows):
            epilogue.apply(output.unsafe_offset(t * width + column0), t, column0, column1 - column0)

    var workers = parallelism_level()
    var share = ceildiv(ceildiv(width, workers), TILE_COLUMNS) * TILE_COLUMNS

    def worker(i: Int) {imm}:
        var column0 = min(width, i * share)
        chunk(column0, min(width, column0 + share))

    sync_parallelize(worker, workers)
    packed.unsafe_free()
    normed.unsafe_free()

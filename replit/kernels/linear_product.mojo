"""Products x @ w^T for row-major weights: the loops around the register tile, shared by decode and prefill."""

from std.memory import unsafe_stack_allocation, unsafe_memcpy, unsafe_memset_zero
from std.memory.alloc import unsafe_alloc
from std.atomic import Atomic
from std.math import align_up, ceildiv, sqrt
from max.algorithm import sync_parallelize
from std.runtime import parallelism_level
from .linear_formats import BFloat16Format, Bytes, Floats, Format, LANES
from .linear_epilogue import Epilogue
from .linear_tile import Ahead, Rows, tile

comptime BLOCK_STEPS = 48 if LANES >= 8 else 64
"""Steps of a row that a tile adds up before its sums go to the output; a tile's rows fill half a
32 KiB first-level cache."""
comptime SHARES = 8
"""Shares of the weight rows for each thread: a thread that is held up takes fewer."""
comptime WORTH_A_THREAD = 400_000
"""Bytes of weights that make up for waking a thread (5 microseconds)."""
comptime CHUNK_ROWS = 128
"""Activation rows whose block stays in the second-level cache."""


struct Shape[F: Format](TrivialRegisterPassable):
    """Where the blocks of `rows` packed activation rows of `depth` elements lie.

    Block after block, then tile after tile; within a tile the rows are interleaved step by step.
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
    var advance = shape.tile_rows(row) * F.INPUT_BYTES
    for block in range(shape.blocks):
        var source = x.unsafe_offset(block * BLOCK_STEPS * F.STEP)
        var dest = packed.unsafe_offset(shape.place(block, row))
        for s in range(shape.steps(block)):
            F.pack_step(source.unsafe_offset(s * F.STEP), dest.unsafe_offset(s * advance))
    if shape.tail > 0:
        var last = unsafe_stack_allocation[F.STEP, DType.float32, alignment=64]()
        for i in range(F.STEP):
            last.unsafe_store(i, x.unsafe_load(shape.depth - shape.tail + i) if i < shape.tail else 0)
        F.pack_step(rebind[Floats](last), packed.unsafe_offset(shape.place(shape.blocks, row)))


@no_inline
def tile_block[
    F: Format, N: Int
](
    weights: Rows,
    next: Ahead,
    inputs: Bytes,
    shape: Shape[F],
    block: Int,
    row0: Int,
    row1: Int,
    output: Floats,
    width: Int,
):
    """One block of `N` weight rows times the activation rows `row0..row1`, tile by tile.

    The tiles share the rows to fetch ahead, so that the memory is busy all the time.
    """
    var share = ceildiv(N, ceildiv(row1 - row0, F.TILE_ROWS))
    var fetched = 0
    var t = row0
    while t < row1:
        var count = min(F.TILE_ROWS, row1 - t)
        var ahead = Ahead(
            next.start.unsafe_offset(fetched * next.stride), next.stride, min(share, next.count - fetched)
        )
        fetched += ahead.count
        comptime for r in range(1, F.TILE_ROWS + 1):
            if count == r:
                tile[F, r, N](
                    weights,
                    inputs.unsafe_offset(shape.place(block, t)),
                    shape.steps(block),
                    ahead,
                    block == 0,
                    output.unsafe_offset(t * width),
                    width,
                )
        t += count


@no_inline
def stream[
    F: Format
](
    weights: Bytes,
    row_bytes: Int,
    inputs: Bytes,
    shape: Shape[F],
    output: Floats,
    width: Int,
    column0: Int,
    column1: Int,
):
    """Few activation rows: each weight row is read once, from its start to its end."""
    comptime BLOCK_BYTES = BLOCK_STEPS * F.WEIGHT_BYTES
    var n = column0
    while n < column1:
        var full = n + F.TILE_COLUMNS <= column1
        for block in range(shape.blocks):
            var w = weights.unsafe_offset(n * row_bytes + block * BLOCK_BYTES)
            var next = w.unsafe_offset(BLOCK_BYTES)
            if block + 1 == shape.blocks:
                next = weights.unsafe_offset((n + F.TILE_COLUMNS) * row_bytes)
            var rows = Rows(w, row_bytes, F.WEIGHT_BYTES)
            var y = output.unsafe_offset(n)
            if full:
                tile_block[F, F.TILE_COLUMNS](rows, Ahead(next, row_bytes, F.TILE_COLUMNS), inputs, shape, block, 0, shape.rows, y, width)
            else:
                tile_block[F, 1](rows, Ahead(next, row_bytes, 1), inputs, shape, block, 0, shape.rows, y, width)
        n += F.TILE_COLUMNS if full else 1


@no_inline
def copy_steps[
    F: Format
](weights: Bytes, row_bytes: Int, first: Int, steps: Int, packed: Bytes):
    """Interleaves `TILE_COLUMNS` rows step by step: rows a multiple of 4 KiB apart evict each other."""
    comptime SIZE = F.WEIGHT_BYTES
    for s in range(steps):
        comptime for n in range(F.TILE_COLUMNS):
            var source = weights.unsafe_offset(n * row_bytes + (first + s) * SIZE)
            var dest = packed.unsafe_offset((s * F.TILE_COLUMNS + n) * SIZE)
            dest.unsafe_store(0, source.unsafe_load[width=SIZE]())


@no_inline
def expand_steps[
    F: Format, D: Format
](weights: Bytes, row_bytes: Int, first: Int, steps: Int, rows: Int, packed: Bytes):
    """The same for rows of `F`, expanded to bfloat16 steps of `D`."""
    comptime PARTS = F.GROUP // D.STEP
    for n in range(rows):
        var dest = packed.unsafe_offset(n * D.WEIGHT_BYTES)
        for group in range(first // PARTS, (first + steps) // PARTS):
            var values = F.decode(weights.unsafe_offset(n * row_bytes), group).cast[DType.bfloat16]()
            comptime for i in range(PARTS):
                dest.unsafe_bitcast[BFloat16]().unsafe_store(0, values.slice[D.STEP, offset=i * D.STEP]())
                dest = dest.unsafe_offset(rows * D.WEIGHT_BYTES)


@no_inline
def block_product[
    F: Format, D: Format
](
    weights: Bytes,
    row_bytes: Int,
    inputs: Bytes,
    shape: Shape[D],
    output: Floats,
    width: Int,
    column0: Int,
    column1: Int,
    row0: Int,
    row1: Int,
    block: Int,
):
    """Many activation rows, whose block is in the second-level cache: weights packed tile by tile."""
    comptime SIZE = D.TILE_COLUMNS * BLOCK_STEPS * D.WEIGHT_BYTES
    var space = unsafe_stack_allocation[SIZE, DType.uint8, alignment=64]()
    var packed = rebind[Bytes](space)
    var first = block * BLOCK_STEPS
    var steps = shape.steps(block)
    var n = column0
    while n < column1:
        var full = n + D.TILE_COLUMNS <= column1
        var columns = D.TILE_COLUMNS if full else 1
        var w = weights.unsafe_offset(n * row_bytes)
        var y = output.unsafe_offset(n)
        var rows = Rows(packed, D.WEIGHT_BYTES, columns * D.WEIGHT_BYTES)
        comptime if F.EXPANDED:
            expand_steps[F, D](w, row_bytes, first, steps, columns, packed)
        else:
            if full:
                copy_steps[D](w, row_bytes, first, steps, packed)
            else:
                rows.start = w.unsafe_offset(first * D.WEIGHT_BYTES)
        if full:
            var ahead = w.unsafe_offset(columns * row_bytes + first * D.STEP // F.STEP * F.WEIGHT_BYTES)
            var next = Ahead(ahead, row_bytes, columns)
            tile_block[D, D.TILE_COLUMNS](rows, next, inputs, shape, block, row0, row1, y, width)
        else:
            tile_block[D, 1](rows, Ahead(w, 0, 0), inputs, shape, block, row0, row1, y, width)
        n += columns


@no_inline
def tail_product[
    F: Format
](
    weights: Bytes,
    row_bytes: Int,
    inputs: Bytes,
    shape: Shape[F],
    output: Floats,
    width: Int,
    column0: Int,
    column1: Int,
):
    """Adds the last elements of rows that are no whole number of steps, padded with zeros."""
    var padded = unsafe_stack_allocation[F.WEIGHT_BYTES, DType.uint8, alignment=64]()
    var offset = shape.depth // F.STEP * F.WEIGHT_BYTES
    for n in range(column0, column1):
        for i in range(F.WEIGHT_BYTES):
            padded.unsafe_store(i, weights.unsafe_load(n * row_bytes + offset + i) if offset + i < row_bytes else 0)
        var rows = Rows(rebind[Bytes](padded), 0, 0)
        for t in range(shape.rows):
            tile[F, 1, 1](
                rows,
                inputs.unsafe_offset(shape.place(shape.blocks, t)),
                1,
                Ahead(weights, 0, 0),
                shape.blocks == 0,
                output.unsafe_offset(t * width + n),
                width,
            )


@no_inline
def pack_rows[
    F: Format
](x: Floats, shape: Shape[F], norm: Norm, row0: Int, row1: Int, packed: Bytes):
    var normed = unsafe_alloc[Float32](shape.depth if norm.active() else 1)
    for row in range(row0, row1):
        var source = x.unsafe_offset(row * shape.depth)
        if norm.active():
            normalize(source, shape.depth, norm, rebind[Floats](normed))
            source = rebind[Floats](normed)
        pack_row(source, shape, row, packed)
    normed.unsafe_free()


@no_inline
def product[
    F: Format, D: Format, STREAM: Bool, E: Epilogue
](
    x: Floats,
    weights: Bytes,
    row_bytes: Int,
    output: Floats,
    width: Int,
    shape: Shape[D],
    norm: Norm,
    epilogue: E,
):
    """Packs the activations, then hands shares of the weight rows to the threads."""
    var space = unsafe_alloc[UInt8](shape.size(), alignment=64)
    var packed = rebind[Bytes](space)
    var rows = shape.rows
    # In bytes of weights read: a tile of activation rows costs about as much as a read.
    var work = width * row_bytes * (1 + rows // D.TILE_ROWS)
    var workers = min(parallelism_level(), ceildiv(work, WORTH_A_THREAD))

    if rows <= D.SMALL_ROWS or workers == 1:
        pack_rows(x, shape, norm, 0, rows, packed)
    else:

        def pack(i: Int) {imm}:
            pack_rows(x, shape, norm, rows * i // workers, rows * (i + 1) // workers, packed)

        sync_parallelize(pack, workers)

    var shares = workers * SHARES if workers > 1 else 1
    var share = align_up(ceildiv(width, shares), D.TILE_COLUMNS)
    var next = Atomic(Int64(0))

    def worker(i: Int) {mut next, imm}:
        while True:
            var column0 = Int(next.fetch_add(1)) * share
            if column0 >= width:
                break
            var column1 = min(width, column0 + share)
            comptime if STREAM:
                stream(weights, row_bytes, packed, shape, output, width, column0, column1)
            else:
                for row in range(0, rows, CHUNK_ROWS):
                    for block in range(shape.blocks):
                        block_product[F](
                            weights, row_bytes, packed, shape, output, width, column0, column1,
                            row, min(rows, row + CHUNK_ROWS), block,
                        )
            comptime if STREAM or not F.EXPANDED:
                if shape.tail > 0:
                    tail_product(weights, row_bytes, packed, shape, output, width, column0, column1)
            for t in range(rows):
                var place = output.unsafe_offset(t * width + column0)
                epilogue.apply(place, t, column0, column1 - column0)

    if workers == 1:
        worker(0)
    else:
        sync_parallelize(worker, workers)
    space.unsafe_free()


@no_inline
def linear[
    F: Format, E: Epilogue
](
    x: Floats,
    weights: Bytes,
    row_bytes: Int,
    output: Floats,
    rows: Int,
    width: Int,
    depth: Int,
    norm: Norm,
    epilogue: E,
):
    """`output[rows, width] = epilogue(norm(x)[rows, depth] @ weights[width, depth]^T)`."""
    comptime Dense = BFloat16Format if F.EXPANDED else F
    if rows <= F.SMALL_ROWS:
        product[F, F, True](
            x, weights, row_bytes, output, width, Shape[F](rows, depth), norm, epilogue
        )
    else:
        product[F, Dense, False](
            x, weights, row_bytes, output, width, Shape[Dense](rows, depth), norm, epilogue
        )

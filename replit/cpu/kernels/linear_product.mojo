"""Products x @ w^T for row-major weights: the loops around the register tile.

Few activation rows: weight rows are streamed from memory once. Many: blocks of the activations stay
in the second-level cache, and weights are packed tile by tile. Both add up a row in the same order.
"""

from std.math import align_up, ceildiv

from .linear_amx import HAS_TILES, MANY_ROWS, amx_allowed, amx_product
from .linear_epilogue import Epilogue
from .linear_formats import BFloat16Format, Bytes, Floats, Format, scratch
from .linear_inputs import BLOCK_STEPS, Norm, Shape, pack_rows
from .linear_panels import HAS_PANELS, panel_product
from .threads import (
    SHARES, STREAM_SHARES, WORTH_A_SHARE, Phases, Team, in_shares, on_threads, over_rows, threads_for
)
from .linear_tile import Ahead, Rows, tile
from .linear_weights import Matrix, pack_weights

comptime CHUNK_ROWS = 256
"""Activation rows whose block stays in the second-level cache."""


@fieldwise_init
struct Operands[D: Format](TrivialRegisterPassable):
    """A product of packed activations with `weights`, into `output[shape.rows, width]`."""

    var weights: Matrix
    var inputs: Bytes
    var shape: Shape[Self.D]
    var output: Floats
    var width: Int


@no_inline
def tile_block[
    D: Format, N: Int
](o: Operands[D], weights: Rows, next: Ahead, block: Int, row0: Int, row1: Int, column: Int):
    """One block of `N` weight rows times the activation rows `row0..row1`, tile by tile.

    The tiles share the rows to fetch ahead, so that the memory is busy all the time.
    """
    var share = ceildiv(next.count, ceildiv(row1 - row0, D.TILE_ROWS))
    var fetched = 0
    var t = row0
    while t < row1:
        var count = min(D.TILE_ROWS, row1 - t)
        var start = next.start.unsafe_offset(fetched * next.stride)
        var ahead = Ahead(start, next.stride, min(share, next.count - fetched))
        fetched += ahead.count
        var inputs = o.inputs.unsafe_offset(o.shape.place(block, t))
        var output = o.output.unsafe_offset(t * o.width + column)
        comptime for r in range(1, D.TILE_ROWS + 1):
            if count == r:
                tile[D, r, N](
                    weights, inputs, o.shape.steps(block), ahead, block == 0, output, o.width
                )
        t += count


@no_inline
def stream[F: Format](o: Operands[F], column0: Int, column1: Int):
    """Few activation rows: each weight row is read once, from its start to its end."""
    comptime BLOCK_BYTES = BLOCK_STEPS * F.WEIGHT_BYTES
    var n = column0
    while n < column1:
        var full = n + F.TILE_COLUMNS <= column1
        for block in range(o.shape.blocks):
            var start = o.weights.row(n).unsafe_offset(block * BLOCK_BYTES)
            var next = start.unsafe_offset(BLOCK_BYTES)
            if block + 1 == o.shape.blocks:
                next = o.weights.row(n + F.TILE_COLUMNS)
            var rows = Rows(start, o.weights.row_bytes, F.WEIGHT_BYTES)
            var ahead = Ahead(next, o.weights.row_bytes, F.TILE_COLUMNS if full else 1)
            if full:
                tile_block[F, F.TILE_COLUMNS](o, rows, ahead, block, 0, o.shape.rows, n)
            else:
                tile_block[F, 1](o, rows, ahead, block, 0, o.shape.rows, n)
        n += F.TILE_COLUMNS if full else 1


@no_inline
def block_product[
    F: Format, D: Format
](o: Operands[D], column0: Int, column1: Int, row0: Int, row1: Int, block: Int):
    """Many activation rows, whose block is in the second-level cache."""
    var packed = scratch(D.TILE_COLUMNS * BLOCK_STEPS * D.WEIGHT_BYTES)
    var first = block * BLOCK_STEPS
    var n = column0
    while n < column1:
        var full = n + D.TILE_COLUMNS <= column1
        var columns = D.TILE_COLUMNS if full else 1
        var weights = Matrix(o.weights.row(n), o.weights.row_bytes)
        pack_weights[F, D](weights, first, o.shape.steps(block), columns, columns, packed)
        var rows = Rows(packed, D.WEIGHT_BYTES, columns * D.WEIGHT_BYTES)
        var next = weights.row(columns).unsafe_offset(first * D.STEP // F.STEP * F.WEIGHT_BYTES)
        if full:
            var ahead = Ahead(next, weights.row_bytes, columns)
            tile_block[D, D.TILE_COLUMNS](o, rows, ahead, block, row0, row1, n)
        else:
            tile_block[D, 1](o, rows, Ahead(next, 0, 0), block, row0, row1, n)
        n += columns
    packed.unsafe_free()


@no_inline
def tail_product[F: Format](o: Operands[F], column0: Int, column1: Int):
    """Adds the last elements of rows that are no whole number of steps, padded with zeros."""
    var padded = scratch(F.WEIGHT_BYTES)
    var offset = o.shape.depth // F.STEP * F.WEIGHT_BYTES
    for n in range(column0, column1):
        var row = o.weights.row(n)
        for i in range(F.WEIGHT_BYTES):
            var inside = offset + i < o.weights.row_bytes
            padded.unsafe_store(i, row.unsafe_load(offset + i) if inside else 0)
        for t in range(o.shape.rows):
            tile[F, 1, 1](
                Rows(padded, 0, 0),
                o.inputs.unsafe_offset(o.shape.place(o.shape.blocks, t)),
                1,
                Ahead(row, 0, 0),
                o.shape.blocks == 0,
                o.output.unsafe_offset(t * o.width + n),
                o.width,
            )
    padded.unsafe_free()


@always_inline
def columns_product[
    F: Format, D: Format, STREAM: Bool
](o: Operands[D], column0: Int, column1: Int):
    comptime if STREAM:
        stream(o, column0, column1)
    else:
        for row in range(0, o.shape.rows, CHUNK_ROWS):
            var last = min(o.shape.rows, row + CHUNK_ROWS)
            for block in range(o.shape.blocks):
                block_product[F](o, column0, column1, row, last, block)
    comptime if STREAM or not F.EXPANDED:
        if o.shape.tail > 0:
            tail_product(o, column0, column1)


@fieldwise_init
struct Product[F: Format, E: Epilogue](TrivialRegisterPassable):
    """`output[rows, width] = epilogue(norm(x)[rows, depth] @ weights[width, depth]^T)`."""

    var x: Floats
    var weights: Matrix
    var output: Floats
    var rows: Int
    var width: Int
    var depth: Int
    var norm: Norm
    var epilogue: Self.E

    def bytes(self) -> Int:
        """Of the weights."""
        return self.width * self.weights.row_bytes

    @always_inline
    def columns[D: Format, STREAM: Bool](self, packed: Bytes, column0: Int, column1: Int):
        """`output[:, column0:column1]`, with the activations packed."""
        var shape = Shape[D](self.rows, self.depth)
        var o = Operands[D](self.weights, packed, shape, self.output, self.width)
        columns_product[Self.F, D, STREAM](o, column0, column1)
        for t in range(self.rows):
            var place = self.output.unsafe_offset(t * self.width + column0)
            self.epilogue.apply(place, t, column0, column1 - column0)

    @no_inline
    def stream(self, mut team: Team, threads: Int):
        """For few rows, as one phase of a team. Each thread packs the activations for itself: that is as fast as
        waiting for one that does."""
        var share = max(ceildiv(self.width, threads * STREAM_SHARES), WORTH_A_SHARE // self.weights.row_bytes)
        share = align_up(share, Self.F.TILE_COLUMNS)
        var pieces = ceildiv(self.width, share)
        if team.too_late(pieces):
            return
        var shape = Shape[Self.F](self.rows, self.depth)
        var packed = scratch(shape.size())
        pack_rows(self.x, shape, self.norm, 0, self.rows, packed)

        def multiply(piece: Int) {imm}:
            self.columns[Self.F, True](packed, piece * share, min(self.width, (piece + 1) * share))

        team.share(multiply, pieces)
        packed.unsafe_free()

    @no_inline
    def run_streaming(self):
        """`stream`, with a team of its own."""
        var threads = threads_for(self.bytes())
        var phases = Phases(1)

        def thread(number: Int) {imm}:
            var team = Team(phases)
            self.stream(team, threads)

        on_threads(thread, threads)
        _ = phases^

    @no_inline
    def run_blocked[D: Format](self):
        """For many rows: packs the activations for `D`, then multiplies share after share of the weight rows."""
        var shape = Shape[D](self.rows, self.depth)
        var packed = scratch(shape.size())
        # A tile of activation rows costs about as much as reading the weights from the cache.
        var threads = threads_for(self.bytes() * (1 + self.rows // D.TILE_ROWS))

        def pack(row0: Int, row1: Int) {imm}:
            pack_rows(self.x, shape, self.norm, row0, row1, packed)

        def multiply(column0: Int, column1: Int) {imm}:
            self.columns[D, False](packed, column0, column1)

        over_rows(pack, self.rows, threads)
        in_shares(multiply, self.width, threads, SHARES, D.TILE_COLUMNS)
        packed.unsafe_free()

    def run(self):
        """With the kernel that is best for so many rows."""
        if self.rows <= Self.F.SMALL_ROWS:
            self.run_streaming()
            return
        comptime if HAS_TILES and Self.F.BFLOAT16:
            if self.rows > MANY_ROWS and self.depth % BFloat16Format.STEP == 0 and amx_allowed():
                amx_product[Self.F](
                    self.x, self.weights, self.output, self.rows, self.width, self.depth, self.norm, self.epilogue
                )
                return
        comptime if HAS_PANELS and Self.F.CODE_GROUP > 0:
            panel_product[Self.F](
                self.x, self.weights, self.output, self.rows, self.width, self.depth, self.norm, self.epilogue
            )
        else:
            self.run_blocked[BFloat16Format if Self.F.EXPANDED else Self.F]()

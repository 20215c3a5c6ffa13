"""Products x @ w^T: the loops around the tile that stays in the registers.

One kernel for any number of rows. A block of a panel is read once for all rows whose block stays in the second-level
cache; with few rows all their blocks stay, and the weights go by as one stream. Whatever the loops, a sum is added
up block after block from the first.
"""

from std.math import ceildiv

from .linear_amx import Tiles, multiply_tiles
from .linear_epilogue import Epilogue
from .linear_floats import Float32Format
from .linear_formats import (
    Ahead, Bytes, COLUMNS, Floats, Format, HALVES, LINE, PANEL, PanelBlock, is_tile, scratch, words_of
)
from .linear_inputs import Inputs, Norm
from .linear_panels import Weights
from .threads import (
    SHARES, STREAM_SHARES, WORTH_A_SHARE, Phases, Team, in_shares, on_threads, over_rows, threads_for
)

comptime CHUNK_ROWS = 252
"""Activation rows that go through together: as many tiles of each format."""
comptime INPUT_CACHE = 520_000
"""Bytes of activations that stay in the second-level cache, beside weights that pass."""
comptime UNPACKING = 2
"""Activation rows that take as long to multiply as a block takes to unpack."""
comptime FEW_ROWS = 16
"""Up to so many rows, each thread packs all activations for itself: that is as fast as waiting for another one."""


@no_inline
def multiply_rows[
    F: Format
](weights: Bytes, next: Bytes, inputs: Bytes, rows: Int, units: Int, first: Bool, output: Floats, stride: Int, lines: Int):
    """`Format.multiply` for any number of rows, tile after tile, which share the `lines` to fetch."""
    comptime STEPS = F.BLOCK // F.STEP
    var fetched = 0
    var row = 0
    while row < rows:
        var count = largest_tile[F](rows - row)
        var of_step = ceildiv((lines - fetched) * count, (rows - row) * STEPS)
        var ahead = Ahead(next.unsafe_offset(fetched * LINE), of_step)
        comptime for tile in range(1, F.TILE_ROWS + 1):
            comptime if is_tile[F, tile]:
                if count == tile:
                    var place = inputs.unsafe_offset(row * F.RECORD)
                    F.multiply[tile](weights, place, units, first, output.unsafe_offset(row * stride), stride, ahead)
        fetched = min(lines, fetched + of_step * STEPS)
        row += count


@always_inline
def largest_tile[F: Format](rows: Int) -> Int:
    """The rows of the next tile."""
    var count = 1
    comptime for tile in range(2, F.TILE_ROWS + 1):
        comptime if is_tile[F, tile]:
            if tile <= rows and (tile <= F.BEST_ROWS or rows % tile == 0 and rows <= 2 * tile):
                count = tile
    return count


comptime unpacked_format[F: Format] = Float32Format if F.WIDENS else F
"""What multiplies a block that is unpacked."""


struct BlockSpace[F: Format, panels: Bool](Movable):
    """What a thread multiplies a block of a panel in: the block, laid out and unpacked, and the sums `[row, PANEL]`.

    The sums are not added up in the output, whose rows are often a multiple of 4 KiB apart and evict each other.
    """

    comptime BYTES = Self.F.BLOCK // Self.F.UNIT * Self.F.UNIT_BYTES * PANEL
    comptime LINES = Self.F.BLOCK // Self.F.UNIT * words_of[Self.F] * HALVES if Self.panels else 0
    """To fetch while a block is multiplied."""
    var tiles: Tiles
    var laid_out: Bytes
    var unpacked: Bytes
    var tile_sums: Bytes
    var sums: Floats

    def __init__(out self, tiles: Tiles):
        self.tiles = tiles
        self.laid_out = scratch(1 if Self.panels else Self.BYTES)
        self.unpacked = scratch(Self.F.UNPACKED + 1)
        self.tile_sums = tiles.scratch()
        self.sums = scratch(4 * PANEL * CHUNK_ROWS).unsafe_bitcast[Float32]()

    def free(deinit self):
        self.laid_out.unsafe_free()
        self.unpacked.unsafe_free()
        self.tile_sums.unsafe_free()
        self.sums.unsafe_bitcast[UInt8]().unsafe_free()

    @always_inline
    def add(self, weights: Weights, panel: Int, block: Int, inputs: Inputs[Self.F], row: Int, count: Int):
        """Adds the products of a block with `count` rows to their sums, which the first block sets."""
        var found = weights.block[Self.F, Self.panels](panel, block, self.laid_out)
        var units = inputs.units(block)
        var place = inputs.place(block, row)
        comptime if Self.F.UNPACKED > 0:
            if count >= Self.F.UNPACK_FROM:
                self.add_unpacked(found, units, place, block == 0, count)
                return
        comptime if Self.F.UNPACKED == 0 or Self.F.UNPACK_FROM > 1:
            comptime if Self.F.BFLOAT16:
                if self.tiles.used:
                    multiply_tiles(
                        found.words, place, Self.F.RECORD, count, units, block == 0, self.sums, PANEL, self.tile_sums
                    )
                    return
            multiply_rows[Self.F](
                found.words, found.next_words, place, count, units, block == 0, self.sums, PANEL, Self.LINES
            )

    @always_inline
    def add_unpacked(self, found: PanelBlock, units: Int, place: Bytes, first: Bool, count: Int):
        """`add` of a block that is unpacked before."""
        comptime Unpacked = unpacked_format[Self.F]
        var of_step = Self.LINES * UNPACKING // ((count + UNPACKING) * Self.F.UNPACK_STEPS)
        Self.F.unpack(found, units, self.unpacked, Ahead(found.next_words, of_step))
        var fetched = of_step * Self.F.UNPACK_STEPS
        var next = found.next_words.unsafe_offset(fetched * LINE)
        multiply_rows[Unpacked](
            self.unpacked, next, place, count, units * Self.F.UNIT // Unpacked.UNIT, first, self.sums, PANEL,
            Self.LINES - fetched,
        )


@no_inline
def copy_rows(source: Floats, stride: Int, dest: Floats, dest_stride: Int, rows: Int, columns: Int):
    for row in range(rows):
        var from_row = source.unsafe_offset(row * stride)
        var to_row = dest.unsafe_offset(row * dest_stride)
        if columns == PANEL:
            comptime for i in range(0, PANEL, COLUMNS):
                to_row.unsafe_store(i, from_row.unsafe_load[width=COLUMNS](i))
        else:
            for i in range(columns):
                to_row.unsafe_store(i, from_row.unsafe_load(i))


@fieldwise_init
struct Product[F: Format, panels: Bool, E: Epilogue](TrivialRegisterPassable):
    """`output[rows, width] = epilogue(norm(x)[rows, depth] @ weights[width, depth]^T)`."""

    var x: Floats
    var weights: Weights
    var output: Floats
    var rows: Int
    var depth: Int
    var norm: Norm
    var epilogue: Self.E
    var tiles: Tiles

    def bytes(self) -> Int:
        """Of the weights."""
        return self.weights.rows * self.weights.row_bytes

    @no_inline
    def multiply(self, inputs: Inputs[Self.F], panel0: Int, panel1: Int):
        """The sums of panels `panel0..panel1`."""
        var space = BlockSpace[Self.F, Self.panels](self.tiles.fit(self.depth))
        for row in range(0, self.rows, CHUNK_ROWS):
            var count = min(CHUNK_ROWS, self.rows - row)
            var span = max(1, INPUT_CACHE // (count * Self.F.RECORD))
            for first in range(0, inputs.blocks(), span):
                var last = min(inputs.blocks(), first + span)
                for panel in range(panel0, panel1):
                    var columns = min(PANEL, self.weights.rows - panel * PANEL)
                    var output = self.output.unsafe_offset(row * self.weights.rows + panel * PANEL)
                    if first > 0:
                        copy_rows(output, self.weights.rows, space.sums, PANEL, count, columns)
                    for block in range(first, last):
                        space.add(self.weights, panel, block, inputs, row, count)
                    copy_rows(space.sums, PANEL, output, self.weights.rows, count, columns)
        space^.free()

    @no_inline
    def columns(self, inputs: Inputs[Self.F], panel0: Int, panel1: Int):
        """The outputs of panels `panel0..panel1`, finished."""
        self.multiply(inputs, panel0, panel1)
        var first = panel0 * PANEL
        var last = min(self.weights.rows, panel1 * PANEL)
        for t in range(self.rows):
            var place = self.output.unsafe_offset(t * self.weights.rows + first)
            self.epilogue.apply(place, t, first, last - first)

    @no_inline
    def stream(self, mut team: Team, threads: Int):
        """For few rows, as one phase of a team."""
        var count = ceildiv(self.weights.rows, PANEL)
        var share = max(
            ceildiv(count, threads * STREAM_SHARES), ceildiv(WORTH_A_SHARE, PANEL * self.weights.row_bytes)
        )
        var pieces = ceildiv(count, share)
        if team.too_late(pieces):
            return
        var inputs = Inputs[Self.F](self.rows, self.depth)
        inputs.pack(self.x, self.norm, 0, self.rows)

        def multiply(piece: Int) {imm}:
            self.columns(inputs, piece * share, min(count, (piece + 1) * share))

        team.share(multiply, pieces)
        inputs.start.unsafe_free()

    @no_inline
    def run_few(self):
        """`stream`, with a team of its own."""
        var threads = threads_for(self.bytes())
        var phases = Phases(1)

        def thread(number: Int) {imm}:
            var team = Team(phases)
            self.stream(team, threads)

        on_threads(thread, threads)
        _ = phases^

    @no_inline
    def run_many(self):
        """The threads share the rows for packing, then the panels."""
        var inputs = Inputs[Self.F](self.rows, self.depth)
        # A tile of activation rows costs about as much as reading the weights from the cache.
        var threads = threads_for(self.bytes() * (1 + self.rows // Self.F.TILE_ROWS))

        def pack(row0: Int, row1: Int) {imm}:
            inputs.pack(self.x, self.norm, row0, row1)

        def multiply(panel0: Int, panel1: Int) {imm}:
            self.columns(inputs, panel0, panel1)

        over_rows(pack, self.rows, threads)
        in_shares(multiply, ceildiv(self.weights.rows, PANEL), threads, SHARES, 1)
        inputs.start.unsafe_free()

    def run(self):
        """With threads of its own."""
        if self.rows <= FEW_ROWS:
            self.run_few()
        else:
            self.run_many()

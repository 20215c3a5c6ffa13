"""What a product needs to know of an encoding of weights: one struct for each.

A stored row is a sequence of units, the encoding's smallest pieces: a float32, two bfloat16, a block, a superblock. A
product goes through the units of a row in order, so every sum is added up in one order, however many rows there are.
"""

from std.sys import CompilationTarget, simd_width_of
from std.sys.intrinsics import PrefetchOptions, prefetch
from std.memory.alloc import unsafe_alloc

comptime Bytes = MutPointer[UInt8, MutUntrackedOrigin]
comptime Floats = MutPointer[Float32, MutUntrackedOrigin]
comptime LANES = simd_width_of[DType.float32]()
comptime Vector = SIMD[DType.float32, LANES]
comptime PANEL = 32
"""Weight rows of a panel, see linear_panels.mojo."""
comptime COLUMNS = 16
"""Weight rows in the lanes of a vector, half a panel: on every processor, so that none has a layout of its own."""
comptime HALVES = PANEL // COLUMNS
comptime WORD = 4
"""Bytes of one row that stand together in a panel."""
comptime LINE = 4 * COLUMNS
"""Bytes of a cache line, which is a word of half a panel."""
comptime READ = PrefetchOptions().for_read().high_locality().to_data_cache()
"""To the first-level cache: a block of a panel takes a third of it, and the next one fits beside it."""
comptime Sums = SIMD[DType.float32, COLUMNS]


def scratch(count: Int) -> Bytes:
    """Memory for a while, to be freed. Not from the stack: what is written there through the pointer
    that the allocation gives, and read through one without its origin, is removed as dead."""
    return rebind[Bytes](unsafe_alloc[UInt8](count, alignment=64))


@fieldwise_init
struct Ahead(TrivialRegisterPassable):
    """Lines to fetch into the cache, so many at each step of what is done meanwhile: a memory that is read in bursts is
    read half of the time."""

    var start: Bytes
    var lines: Int
    """Of a step."""

    @always_inline
    def fetch(self, step: Int):
        for line in range(step * self.lines, (step + 1) * self.lines):
            prefetch[READ](self.start.unsafe_offset(line * LINE))


@fieldwise_init
struct PanelBlock(TrivialRegisterPassable):
    """A block of a panel as it lies in memory, and the block that comes next."""

    var words: Bytes
    """`[unit][word][row]`"""
    var shorts: Bytes
    """`[unit][row]`, the two bytes of a unit that are no whole word."""
    var next_words: Bytes
    var next_shorts: Bytes


trait Format:
    comptime UNIT: Int
    """Elements of a unit."""
    comptime UNIT_BYTES: Int
    comptime SHORT_AT: Int = -1
    """Where in a unit its odd two bytes are, if its size is no multiple of a word."""
    comptime BLOCK: Int
    """Elements of the depth that are multiplied at a time: those of a panel fill half of a first-level cache."""
    comptime TILE_ROWS: Int
    """The most activation rows whose sums with a panel fit in the registers, with what is multiplied."""
    comptime BEST_ROWS: Int
    """Rows of the fastest tile: larger ones are for a few rows that they hold without a rest."""
    comptime RECORD: Int
    """Bytes of an activation row in a block."""
    comptime STEP: Int
    """Elements of a step of `multiply`."""
    comptime UNPACKED: Int = 0
    """Bytes of a block of a panel that is unpacked; 0: it is multiplied as it lies."""
    comptime UNPACK_FROM: Int = 1
    """Activation rows from which on a block is unpacked; fewer are multiplied with it as it lies."""
    comptime WIDENS: Bool = False
    """Whether it is one of float32 when unpacked."""
    comptime UNPACK_STEPS: Int = 1
    """Steps of `unpack`, at each of which it fetches."""
    comptime BFLOAT16: Bool = False
    """Whether AMX tiles can multiply it: panels and records hold pairs of bfloat16."""

    @staticmethod
    def pack(x: Floats, count: Int, record: Bytes):
        """Writes the first `count` activations of a block as `multiply` wants them."""
        ...

    @staticmethod
    def unpack(block: PanelBlock, units: Int, unpacked: Bytes, ahead: Ahead):
        """Reads a block of a panel, where it is not multiplied as it lies."""
        comptime assert Self.UNPACKED == 0, "a format must say how it is unpacked"

    @staticmethod
    def multiply[
        rows: Int
    ](weights: Bytes, inputs: Bytes, units: Int, first: Bool, output: Floats, stride: Int, ahead: Ahead):
        """Adds the products of a block to `output[rows, PANEL]`, or sets it if it is the `first`.

        `inputs` are records of rows. A step is `STEP` elements.
        """
        ...

    @staticmethod
    def decode(row: Bytes, unit: Int) -> SIMD[DType.float32, Self.UNIT]:
        """The elements of a unit of a stored row."""
        ...


comptime words_of[F: Format] = F.UNIT_BYTES // WORD
"""Whole words of a unit."""
comptime is_tile[F: Format, rows: Int] = rows <= F.TILE_ROWS and (rows <= 6 or rows == 8 or rows == 12)
"""Whether so many rows are a tile of their own; others are made of several."""

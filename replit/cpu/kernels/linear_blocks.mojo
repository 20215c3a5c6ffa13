"""Weights in q8_0 and q4_0: blocks of 32 with one float16 scale.

A block is the scale, then 32 signed bytes (q8_0), or 16 bytes whose low halves are the first 16
elements and whose high halves the last, 8 too large (q4_0).
"""

from std.sys.intrinsics import prefetch

from .linear_floats import load_words
from .linear_formats import Ahead, Bytes, COLUMNS, Floats, Format, HALVES, LINE, PANEL, PanelBlock, READ, Sums
from .linear_integer import BEST_TILE, INTEGER_TILE, Record, Unpacked, is_wide, multiply_integers

comptime BLOCK = 32


@always_inline
def load_shorts(place: Bytes) -> Sums:
    """A float16 of each row of half a panel."""
    return place.unsafe_bitcast[Float16]().unsafe_load[width=COLUMNS]().cast[DType.float32]()


@always_inline
def read_scale(place: Bytes) -> Float32:
    return place.unsafe_bitcast[Float16]().unsafe_load[alignment=1]().cast[DType.float32]()


struct BlockFormat[BITS: Int](Format):
    comptime UNIT = BLOCK
    comptime UNIT_BYTES = 2 + Self.BITS * BLOCK // 8
    comptime SHORT_AT = 0
    comptime BLOCK = 512
    comptime STEP = BLOCK
    comptime TILE_ROWS = INTEGER_TILE
    comptime BEST_ROWS = BEST_TILE
    comptime RECORD = Record[Self.BLOCK, BLOCK, is_wide[Self.BITS]].BYTES
    comptime UNPACK_STEPS = Self.BLOCK // BLOCK
    comptime UNPACKED = Unpacked[Self.BLOCK, BLOCK].BYTES
    comptime OFFSET = 1 << (Self.BITS - 1)

    @staticmethod
    def pack(x: Floats, count: Int, record: Bytes):
        Record[Self.BLOCK, BLOCK, is_wide[Self.BITS]](record).pack[BLOCK, Self.OFFSET](x, count)

    @staticmethod
    @no_inline
    def unpack(block: PanelBlock, units: Int, unpacked: Bytes, ahead: Ahead):
        comptime WORDS = Self.BITS * BLOCK // 32
        var result = Unpacked[Self.BLOCK, BLOCK](unpacked)
        for unit in range(units):
            var words = block.words.unsafe_offset(unit * WORDS * HALVES * LINE)
            ahead.fetch(unit)
            prefetch[READ](block.next_shorts.unsafe_offset(2 * unit * PANEL))
            comptime for h in range(HALVES):
                comptime for w in range(WORDS):
                    comptime at = (w * HALVES + h) * LINE
                    var codes = load_words(words.unsafe_offset(at))
                    comptime if Self.BITS == 8:
                        result.put(unit * WORDS + w, h, codes ^ 0x80808080)
                    else:
                        result.put(2 * unit * WORDS + w, h, codes & 0x0F0F0F0F)
                        result.put((2 * unit + 1) * WORDS + w, h, (codes >> 4) & 0x0F0F0F0F)
                result.put_scale(unit, h, load_shorts(block.shorts.unsafe_offset(2 * (unit * PANEL + h * COLUMNS))))

    @staticmethod
    def multiply[
        rows: Int
    ](weights: Bytes, inputs: Bytes, units: Int, first: Bool, output: Floats, stride: Int, ahead: Ahead):
        multiply_integers[Self.BLOCK, BLOCK, Self.BITS, False, True, False, rows](weights, inputs, units, first, output, stride, ahead)

    @staticmethod
    @always_inline
    def decode(row: Bytes, unit: Int) -> SIMD[DType.float32, BLOCK]:
        var block = row.unsafe_offset(unit * Self.UNIT_BYTES)
        comptime if Self.BITS == 4:
            var packed = block.unsafe_offset(2).unsafe_load[width=16]()
            return ((packed & 15).join(packed >> 4).cast[DType.float32]() - 8) * read_scale(block)
        else:
            var values = block.unsafe_offset(2).unsafe_bitcast[Int8]().unsafe_load[width=BLOCK]()
            return values.cast[DType.float32]() * read_scale(block)

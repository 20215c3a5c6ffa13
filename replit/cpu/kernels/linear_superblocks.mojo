"""Weights in q4_k and q6_k: superblocks of 256.

With 4 bits an element is `scale * n - minimum` for groups of 32, with 6 bits `scale * (n - 32)` for groups of 16.
Activations are quantized to 8 bits in blocks of 256 as well.
"""

from std.memory import bitcast
from std.sys.intrinsics import prefetch

from .linear_blocks import load_shorts, read_scale
from .linear_floats import load_words
from .linear_formats import Ahead, Bytes, COLUMNS, Floats, Format, HALVES, LINE, PanelBlock, READ, Sums
from .linear_integer import BEST_TILE, INTEGER_TILE, Integers, Record, Unpacked, multiply_integers
from .linear_panels import Words

comptime SUPERBLOCK = 256
comptime Numbers = SIMD[DType.float32, 16]
comptime Codes = SIMD[DType.uint8, SUPERBLOCK]


@always_inline
def as_floats(numbers: Words) -> Sums:
    """Small unsigned numbers."""
    return bitcast[DType.int32, COLUMNS](numbers).cast[DType.float32]()


@always_inline
def low_half(words: Words) -> Sums:
    """The float16 in the low halves."""
    return bitcast[DType.float16, COLUMNS](words.cast[DType.uint16]()).cast[DType.float32]()


@always_inline
def number_of_q4_k[group: Int, minimum: Bool](a: Words, b: Words, c: Words) -> Words:
    """The 6-bit scale or minimum of a group, from the 12 bytes that hold them all."""
    comptime own = 8 * (group % 4)
    var first = b if minimum else a
    comptime if group < 4:
        return (first >> Words(own)) & 63
    else:
        comptime at = own + 4 if minimum else own
        return ((c >> Words(at)) & 15) | ((first >> Words(own + 2)) & 48)


struct SuperblockFormat[BITS: Int](Format):
    comptime UNIT = SUPERBLOCK
    comptime UNIT_BYTES = 144 if Self.BITS == 4 else 210
    comptime SHORT_AT = -1 if Self.BITS == 4 else 208
    comptime BLOCK = SUPERBLOCK
    comptime GROUP = 32 if Self.BITS == 4 else 16
    comptime STEP = Self.GROUP
    comptime TILE_ROWS = INTEGER_TILE
    comptime BEST_ROWS = BEST_TILE
    comptime RECORD = Record[SUPERBLOCK, Self.GROUP].BYTES
    comptime UNPACK_STEPS = HALVES * (4 if Self.BITS == 4 else 2)
    comptime UNPACKED = Unpacked[SUPERBLOCK, Self.GROUP].BYTES

    @staticmethod
    def pack(x: Floats, count: Int, record: Bytes):
        Record[SUPERBLOCK, Self.GROUP](record).pack[SUPERBLOCK, 0 if Self.BITS == 4 else 32](x, count)

    @staticmethod
    @no_inline
    def unpack(block: PanelBlock, units: Int, unpacked: Bytes, ahead: Ahead):
        var result = Unpacked[SUPERBLOCK, Self.GROUP](unpacked)
        for h in range(HALVES):
            var words = block.words.unsafe_offset(h * LINE)
            comptime if Self.BITS == 4:
                unpack_q4_k(words, h, result, ahead)
            else:
                unpack_q6_k(words, load_shorts(block.shorts.unsafe_offset(2 * h * COLUMNS)), h, result, ahead)
        prefetch[READ](block.next_shorts)

    @staticmethod
    def multiply[
        rows: Int
    ](weights: Bytes, inputs: Bytes, units: Int, first: Bool, output: Floats, stride: Int, ahead: Ahead):
        multiply_integers[SUPERBLOCK, Self.GROUP, Self.BITS, True, Self.BITS == 6, Self.BITS == 4, rows](
            weights, inputs, SUPERBLOCK // Self.GROUP, first, output, stride, ahead
        )

    @staticmethod
    def decode(row: Bytes, unit: Int) -> SIMD[DType.float32, SUPERBLOCK]:
        var block = row.unsafe_offset(unit * Self.UNIT_BYTES)
        comptime if Self.BITS == 4:
            return decode_q4_k(block)
        else:
            return decode_q6_k(block)


@always_inline
def unpack_q4_k[GROUP: Int](words: Bytes, half: Int, result: Unpacked[SUPERBLOCK, GROUP], ahead: Ahead):
    """Scale of the scales, of the minimums (float16), 12 bytes of 6-bit scales and minimums, codes: 32 bytes have a
    group in their low halves and the next one in the high ones."""
    var units = load_words(words)
    var a = load_words(words.unsafe_offset(1 * HALVES * LINE))
    var b = load_words(words.unsafe_offset(2 * HALVES * LINE))
    var c = load_words(words.unsafe_offset(3 * HALVES * LINE))
    var scale = low_half(units)
    var minimum = low_half(units >> 16)
    comptime for group in range(8):
        result.put_scale(group, half, as_floats(number_of_q4_k[group, False](a, b, c)) * scale)
        result.put_minimum(group, half, as_floats(number_of_q4_k[group, True](a, b, c)) * minimum)
    for pair in range(4):
        ahead.fetch(half * 4 + pair)
        comptime for word in range(8):
            var codes = load_words(words.unsafe_offset((4 + word) * HALVES * LINE + pair * 8 * HALVES * LINE))
            result.put(pair * 16 + word, half, codes & 0x0F0F0F0F)
            result.put(pair * 16 + 8 + word, half, (codes >> 4) & 0x0F0F0F0F)


@always_inline
def unpack_q6_k[GROUP: Int](words: Bytes, scale: Sums, half: Int, result: Unpacked[SUPERBLOCK, GROUP], ahead: Ahead):
    """Low 4 bits of all codes, high 2 bits, signed 8-bit scales; codes are 32 too large."""
    for part in range(2):  # 128 elements
        ahead.fetch(half * 2 + part)
        var low = words.unsafe_offset(part * 16 * HALVES * LINE)
        var high = words.unsafe_offset((32 + part * 8) * HALVES * LINE)
        comptime for word in range(8):
            var a = load_words(low.unsafe_offset(word * HALVES * LINE))
            var b = load_words(low.unsafe_offset((8 + word) * HALVES * LINE))
            var h = load_words(high.unsafe_offset(word * HALVES * LINE))
            var quad = part * 32 + word
            result.put(quad, half, (a & 0x0F0F0F0F) | ((h << 4) & 0x30303030))
            result.put(quad + 8, half, (b & 0x0F0F0F0F) | ((h << 2) & 0x30303030))
            result.put(quad + 16, half, ((a >> 4) & 0x0F0F0F0F) | (h & 0x30303030))
            result.put(quad + 24, half, ((b >> 4) & 0x0F0F0F0F) | ((h >> 2) & 0x30303030))
    comptime for word in range(4):
        var scales = bitcast[DType.int32, COLUMNS](load_words(words.unsafe_offset((48 + word) * HALVES * LINE)))
        comptime for i in range(4):
            var own = (scales << Integers(24 - 8 * i)) >> 24
            result.put_scale(4 * word + i, half, own.cast[DType.float32]() * scale)


@always_inline
def decode_q4_k(block: Bytes) -> SIMD[DType.float32, SUPERBLOCK]:
    var words = block.unsafe_bitcast[UInt32]()
    var a = Words(words.unsafe_load[alignment=1](1))
    var b = Words(words.unsafe_load[alignment=1](2))
    var c = Words(words.unsafe_load[alignment=1](3))
    var elements = SIMD[DType.float32, SUPERBLOCK]()
    comptime for group in range(8):
        var packed = block.unsafe_offset(16 + group // 2 * 32).unsafe_load[width=32]()
        var codes = (packed & 15) if group % 2 == 0 else (packed >> 4)
        var scale = as_floats(number_of_q4_k[group, False](a, b, c))[0] * read_scale(block)
        var minimum = as_floats(number_of_q4_k[group, True](a, b, c))[0] * read_scale(block.unsafe_offset(2))
        elements = elements.insert[offset = group * 32](codes.cast[DType.float32]() * scale - minimum)
    return elements


@always_inline
def decode_q6_k(block: Bytes) -> SIMD[DType.float32, SUPERBLOCK]:
    var elements = SIMD[DType.float32, SUPERBLOCK]()
    comptime for part in range(8):  # 32 elements
        var low = block.unsafe_offset(part // 4 * 64 + part % 2 * 32).unsafe_load[width=32]()
        var high = block.unsafe_offset(128 + part // 4 * 32).unsafe_load[width=32]()
        var four = (low & 15) if part % 4 < 2 else (low >> 4)
        var codes = (four | (((high >> UInt8(2 * (part % 4))) & 3) << 4)).cast[DType.float32]() - 32
        comptime for i in range(2):
            var own = block.unsafe_offset(192 + 2 * part + i).unsafe_bitcast[Int8]().unsafe_load().cast[DType.float32]()
            var scaled = codes.slice[16, offset = 16 * i]() * (own * read_scale(block.unsafe_offset(208)))
            elements = elements.insert[offset = part * 32 + 16 * i](scaled)
    return elements

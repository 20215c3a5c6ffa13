"""Weights in q4_k and q6_k: superblocks of 256 with 16 numbers of their own, `parts`.

With 4 bits an element is `scale * n - minimum` for groups of 32, and the parts are 8 scales, then 8 minimums. With 6
bits it is `scale * (n - 32)` for groups of 16, and the parts are the scales. Activations are quantized to 8 bits in
blocks of 256, with the sums of their groups laid out so that one product with the parts makes up for minimum or 32.
"""

from std.math import iota
from std.memory import bitcast

from .linear_blocks import read_bits, read_scale
from .linear_formats import Bytes, Floats, Format, LANES, Vector
from .linear_integer import Integers, dot4, quantize

comptime SUPERBLOCK = 256
comptime PARTS = 16
comptime Parts = SIMD[DType.float32, PARTS]
comptime Codes = SIMD[DType.uint8, SUPERBLOCK]
comptime SUMS_AT = SUPERBLOCK
comptime SCALE_AT = SUPERBLOCK + 4 * PARTS


@fieldwise_init
struct GroupedBytes(TrivialRegisterPassable):
    """A superblock: its codes in the order of `SuperblockFormat.group_at`."""

    var values: Codes
    var parts: Parts


@fieldwise_init
struct GroupedInputs(TrivialRegisterPassable):
    """Activations of a superblock in the same order: 8-bit integers, what the parts are multiplied with, one scale."""

    var values: SIMD[DType.int8, SUPERBLOCK]
    var sums: Parts
    var scale: Float32


@always_inline
def read_q4_k(block: Bytes) -> GroupedBytes:
    """Scale of the scales, of the minimums (float16), 12 bytes of 6-bit scales and minimums, codes.

    A load of 64 bytes has groups 0 and 2 in its low halves, 1 and 3 in the high ones: they stay like that.
    """
    var words = block.unsafe_bitcast[UInt32]()
    var a = words.unsafe_load[alignment=1](1)
    var b = words.unsafe_load[alignment=1](2)
    var c = words.unsafe_load[alignment=1](3)
    comptime HIGH = UInt32(0x30303030)
    var last_scales = (c & 0x0F0F0F0F) | ((a >> 2) & HIGH)
    var last_minimums = ((c >> 4) & 0x0F0F0F0F) | ((b >> 2) & HIGH)
    var packed = SIMD[DType.uint32, 4](a & 0x3F3F3F3F, last_scales, b & 0x3F3F3F3F, last_minimums)
    comptime Halves = SIMD[DType.uint16, PARTS]
    var is_scale = iota[DType.uint16, PARTS]().lt(PARTS // 2)
    var units = is_scale.select(Halves(read_bits(block)), Halves(read_bits(block.unsafe_offset(2))))
    var parts = bitcast[DType.uint8, PARTS](packed).cast[DType.float32]()
    parts *= bitcast[DType.float16, PARTS](units).cast[DType.float32]()
    var first = block.unsafe_offset(16).unsafe_load[width=64]()
    var last = block.unsafe_offset(80).unsafe_load[width=64]()
    return GroupedBytes((first & 15).join(first >> 4).join((last & 15).join(last >> 4)), parts)


@always_inline
def read_q6_k(block: Bytes) -> GroupedBytes:
    """Low 4 bits, high 2 bits, signed 8-bit scales and their float16 scale; codes are 32 too large."""
    var scales = block.unsafe_offset(192).unsafe_bitcast[Int8]().unsafe_load[width=16]()
    var groups = scales.cast[DType.float32]() * read_scale(block.unsafe_offset(208))
    var first = read_six_bits(block, block.unsafe_offset(128))
    var last = read_six_bits(block.unsafe_offset(64), block.unsafe_offset(160))
    return GroupedBytes(first.join(last), groups)


@always_inline
def read_six_bits(low: Bytes, high: Bytes) -> SIMD[DType.uint8, 128]:
    var a = low.unsafe_load[width=32]()
    var b = low.unsafe_load[width=32](32)
    var h = high.unsafe_load[width=32]()
    var first = ((a & 15) | ((h & 3) << 4)).join((b & 15) | ((h & 12) << 2))
    var last = ((a >> 4) | (h & 48)).join((b >> 4) | ((h & 192) >> 2))
    return first.join(last)


struct SuperblockFormat[BITS: Int](Format):
    comptime Weights = GroupedBytes
    comptime Inputs = GroupedInputs
    comptime STEP = SUPERBLOCK
    comptime WEIGHT_BYTES = 144 if Self.BITS == 4 else 210
    comptime INPUT_BYTES = SCALE_AT + 64
    comptime TILE_ROWS = 4
    comptime TILE_COLUMNS = 2
    comptime SMALL_ROWS = 64
    comptime BFLOAT16 = True
    comptime EXPANDED = True
    comptime GROUP = SUPERBLOCK
    comptime CODE_GROUP = 32 if Self.BITS == 4 else 16
    comptime CODE_OFFSET = 0 if Self.BITS == 4 else 32
    comptime HAS_MINIMUM = Self.BITS == 4

    @staticmethod
    def group_at(place: Int) -> Int:
        """Which of the groups that share a scale stands at that place of the loaded codes: 0 2 1 3 with 4 bits."""
        comptime if Self.BITS == 4:
            return place // 4 * 4 + place % 2 * 2 + place // 2 % 2
        else:
            return place

    @staticmethod
    @always_inline
    def pack_step(x: Floats, step: Bytes):
        var values, scale = quantize[SUPERBLOCK](x.unsafe_load[width=SUPERBLOCK]())
        var sums = Parts(0)
        comptime for place in range(SUPERBLOCK // Self.CODE_GROUP):
            comptime group = Self.group_at(place)
            var part = values.slice[Self.CODE_GROUP, offset = group * Self.CODE_GROUP]()
            step.unsafe_bitcast[Int8]().unsafe_store(place * Self.CODE_GROUP, part)
            var sum = part.cast[DType.int32]().reduce_add().cast[DType.float32]()
            comptime if Self.HAS_MINIMUM:
                sums[PARTS // 2 + group] = -sum
            else:
                sums[group] = -Float32(Self.CODE_OFFSET) * sum
        step.unsafe_offset(SUMS_AT).unsafe_bitcast[Float32]().unsafe_store(0, sums)
        step.unsafe_offset(SCALE_AT).unsafe_bitcast[Float32]().unsafe_store(0, scale)

    @staticmethod
    @always_inline
    def load_weights(step: Bytes) -> GroupedBytes:
        comptime if Self.BITS == 4:
            return read_q4_k(step)
        else:
            return read_q6_k(step)

    @staticmethod
    @always_inline
    def load_inputs(step: Bytes) -> GroupedInputs:
        return GroupedInputs(
            step.unsafe_bitcast[Int8]().unsafe_load[width=SUPERBLOCK](),
            step.unsafe_offset(SUMS_AT).unsafe_bitcast[Float32]().unsafe_load[width=PARTS](),
            step.unsafe_offset(SCALE_AT).unsafe_bitcast[Float32]().unsafe_load(),
        )

    @staticmethod
    @always_inline
    def scales_of[width: Int, each: Int, first: Int](parts: Parts) -> SIMD[DType.float32, width]:
        """The scales of `width` times `each` codes from code `first` on, as they stand."""
        var lanes = SIMD[DType.float32, width]()
        comptime for i in range(width):
            lanes[i] = parts[Self.group_at((first + i * each) // Self.CODE_GROUP)]
        return lanes

    @staticmethod
    @always_inline
    def add_product(sum: Vector, weights: GroupedBytes, inputs: GroupedInputs) -> Vector:
        comptime BYTES = 4 * LANES
        var corrections = weights.parts * inputs.sums
        var total = corrections.slice[LANES]()
        comptime for i in range(1, PARTS // LANES):
            total += corrections.slice[LANES, offset = i * LANES]()
        comptime for v in range(SUPERBLOCK // BYTES):
            var dot = dot4(
                Integers(0),
                weights.values.slice[BYTES, offset=v * BYTES](),
                inputs.values.slice[BYTES, offset=v * BYTES](),
            )
            total = dot.cast[DType.float32]().fma(Self.scales_of[LANES, 4, v * BYTES](weights.parts), total)
        return total.fma(Vector(inputs.scale), sum)

    @staticmethod
    @always_inline
    def decode(row: Bytes, group: Int) -> SIMD[DType.float32, SUPERBLOCK]:
        var block = Self.load_weights(row.unsafe_offset(group * Self.WEIGHT_BYTES))
        var elements = SIMD[DType.float32, SUPERBLOCK]()
        comptime for place in range(SUPERBLOCK // Self.CODE_GROUP):
            comptime at = Self.group_at(place)
            var codes = block.values.slice[Self.CODE_GROUP, offset = place * Self.CODE_GROUP]().cast[DType.float32]()
            comptime if Self.HAS_MINIMUM:
                codes = codes * block.parts[at] - block.parts[PARTS // 2 + at]
            else:
                codes = (codes - Float32(Self.CODE_OFFSET)) * block.parts[at]
            elements = elements.insert[offset = at * Self.CODE_GROUP](codes)
        return elements

    @staticmethod
    @always_inline
    def unpack(row: Bytes, group: Int, codes: Bytes, scales: Floats, minimums: Floats, stride: Int):
        var block = Self.load_weights(row.unsafe_offset(group * Self.WEIGHT_BYTES))
        comptime for place in range(SUPERBLOCK // Self.CODE_GROUP):
            comptime at = Self.group_at(place)
            var part = block.values.slice[Self.CODE_GROUP, offset = place * Self.CODE_GROUP]()
            codes.unsafe_store(at * Self.CODE_GROUP, part)
            scales.unsafe_store(at * stride, block.parts[at])
            comptime if Self.HAS_MINIMUM:
                minimums.unsafe_store(at * stride, block.parts[PARTS // 2 + at])

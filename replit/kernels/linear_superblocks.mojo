"""Weights in q4_k and q6_k: superblocks of 256 whose groups of 16 have a scale and a minimum.

An element is `scale * n - minimum` with an unsigned `n` of 4 or 6 bits. Activations are quantized to
8 bits in blocks of 256, with the sums of their groups, so that the minimum costs one product a group.
"""

from .linear_blocks import read_halves, read_scale
from .linear_formats import Bytes, Floats, Format, LANES, Vector
from .linear_integer import Integers, dot4, quantize

comptime SUPERBLOCK = 256
comptime PART = 16
comptime PARTS = SUPERBLOCK // PART
comptime Groups = SIMD[DType.float32, PARTS]
comptime Codes = SIMD[DType.uint8, SUPERBLOCK]
comptime SUMS_AT = SUPERBLOCK
comptime SCALE_AT = SUPERBLOCK + 4 * (PARTS)


@fieldwise_init
struct GroupedBytes(TrivialRegisterPassable):
    var values: Codes
    var scales: Groups
    var minimums: Groups


@fieldwise_init
struct GroupedInputs(TrivialRegisterPassable):
    """Activations of a superblock: 8-bit integers, the sums of their groups, one scale."""

    var values: SIMD[DType.int8, SUPERBLOCK]
    var sums: Groups
    var scale: Float32


@always_inline
def spread[width: Int, each: Int, first: Int](groups: Groups) -> SIMD[DType.float32, width]:
    """Repeats each group's value `each` times, starting with group `first`."""
    var lanes = SIMD[DType.float32, width]()
    comptime for i in range(width):
        lanes[i] = groups[first + i // each]
    return lanes


@always_inline
def read_q4_k(block: Bytes) -> GroupedBytes:
    """Scale of the scales, of the minimums (float16), 12 bytes of 6-bit scales and minimums, codes."""
    var packed = block.unsafe_offset(4)
    var a = packed.unsafe_load[width=4]()
    var b = packed.unsafe_load[width=4](4)
    var c = packed.unsafe_load[width=4](8)
    var scales = (a & 63).join((c & 15) | ((a >> 6) << 4)).cast[DType.float32]()
    var minimums = (b & 63).join((c >> 4) | ((b >> 6) << 4)).cast[DType.float32]()
    scales *= read_scale(block)
    minimums *= read_scale(block.unsafe_offset(2))
    var codes = block.unsafe_offset(16)
    var low = read_halves32(codes).join(read_halves32(codes.unsafe_offset(32)))
    var high = read_halves32(codes.unsafe_offset(64)).join(read_halves32(codes.unsafe_offset(96)))
    return GroupedBytes(low.join(high), scales.interleave(scales), minimums.interleave(minimums))


@always_inline
def read_halves32(place: Bytes) -> SIMD[DType.uint8, 64]:
    var packed = place.unsafe_load[width=32]()
    return (packed & 15).join(packed >> 4)


@always_inline
def read_q6_k(block: Bytes) -> GroupedBytes:
    """Low 4 bits, high 2 bits, signed 8-bit scales and their float16 scale; codes are 32 too large."""
    var scales = block.unsafe_offset(192).unsafe_bitcast[Int8]().unsafe_load[width=16]()
    var groups = scales.cast[DType.float32]() * read_scale(block.unsafe_offset(208))
    var first = read_six_bits(block, block.unsafe_offset(128))
    var last = read_six_bits(block.unsafe_offset(64), block.unsafe_offset(160))
    return GroupedBytes(first.join(last), groups, groups * 32)


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
    comptime FETCH_AHEAD = 2048
    comptime BFLOAT16 = True
    comptime EXPANDED = True
    comptime GROUP = SUPERBLOCK
    comptime CODE_GROUP = 32 if Self.BITS == 4 else 16
    comptime CODE_OFFSET = 0 if Self.BITS == 4 else 32
    comptime HAS_MINIMUM = Self.BITS == 4

    @staticmethod
    @always_inline
    def pack_step(x: Floats, step: Bytes):
        var values, scale = quantize[SUPERBLOCK](x.unsafe_load[width=SUPERBLOCK]())
        step.unsafe_bitcast[Int8]().unsafe_store(0, values)
        var sums = step.unsafe_offset(SUMS_AT).unsafe_bitcast[Float32]()
        for g in range(PARTS):
            var group = step.unsafe_bitcast[Int8]().unsafe_load[width=PART](g * PART)
            sums.unsafe_store(g, group.cast[DType.int32]().reduce_add().cast[DType.float32]())
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
    def add_product(sum: Vector, weights: GroupedBytes, inputs: GroupedInputs) -> Vector:
        comptime BYTES = 4 * LANES
        var total = Vector(0)
        var minimums = weights.minimums * inputs.sums
        comptime for i in range(PARTS // LANES):
            total -= minimums.slice[LANES, offset=i * LANES]()
        comptime for v in range(SUPERBLOCK // BYTES):
            var dot = dot4(
                Integers(0),
                weights.values.slice[BYTES, offset=v * BYTES](),
                inputs.values.slice[BYTES, offset=v * BYTES](),
            )
            var scale = spread[LANES, 4, v * LANES // 4](weights.scales)
            total = dot.cast[DType.float32]().fma(scale, total)
        return total.fma(Vector(inputs.scale), sum)

    @staticmethod
    @always_inline
    def decode(row: Bytes, group: Int) -> SIMD[DType.float32, SUPERBLOCK]:
        var block = Self.load_weights(row.unsafe_offset(group * Self.WEIGHT_BYTES))
        var scales = spread[SUPERBLOCK, PART, 0](block.scales)
        var minimums = spread[SUPERBLOCK, PART, 0](block.minimums)
        return block.values.cast[DType.float32]() * scales - minimums

    @staticmethod
    @always_inline
    def unpack(row: Bytes, group: Int, codes: Bytes, scales: Floats, minimums: Floats, stride: Int):
        var block = Self.load_weights(row.unsafe_offset(group * Self.WEIGHT_BYTES))
        codes.unsafe_store(0, block.values)
        comptime for g in range(SUPERBLOCK // Self.CODE_GROUP):
            comptime part = g * Self.CODE_GROUP // PART
            scales.unsafe_store(g * stride, block.scales[part])
            comptime if Self.HAS_MINIMUM:
                minimums.unsafe_store(g * stride, block.minimums[part])

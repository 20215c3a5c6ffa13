"""Weights in q8_0 and q4_0 weights: blocks of 32 with one float16 scale, multiplied in 8-bit integers.

A block is the scale, then 32 signed bytes (q8_0), or 16 bytes whose low halves are the first 16
elements and whose high halves the last, 8 too large (q4_0). Activations are quantized to 8 bits in
blocks of 32 as well. A step takes as many blocks as fill a vector, at least one.
"""

from std.math import iota
from std.memory import bitcast

from .linear_formats import Bytes, Floats, Format, LANES, Vector
from .linear_integer import Integers, dot4, quantize

comptime BLOCK = 32
comptime BLOCKS = max(1, LANES * 4 // BLOCK)
comptime STEP_BYTES = BLOCKS * BLOCK


@fieldwise_init
struct ScaledBytes(TrivialRegisterPassable):
    """Weights of a step as unsigned bytes (`OFFSET` too large), and the scale of each lane."""

    var values: SIMD[DType.uint8, STEP_BYTES]
    var scale: Vector


@fieldwise_init
struct ScaledInputs(TrivialRegisterPassable):
    """Activations of a step; `start` makes up for the offset of the weights."""

    var values: SIMD[DType.int8, STEP_BYTES]
    var start: Integers
    var scale: Vector


@always_inline
def read_bits(place: Bytes) -> UInt16:
    return place.unsafe_bitcast[UInt16]().unsafe_load[alignment=1]()


@always_inline
def read_scale(place: Bytes) -> Float32:
    return place.unsafe_bitcast[Float16]().unsafe_load[alignment=1]().cast[DType.float32]()


@always_inline
def read_halves(place: Bytes) -> SIMD[DType.uint8, 32]:
    """16 bytes of 4-bit numbers: the low halves, then the high ones."""
    var packed = place.unsafe_load[width=16]()
    return (packed & 15).join(packed >> 4)


struct BlockFormat[BITS: Int](Format):
    comptime Weights = ScaledBytes
    comptime Inputs = ScaledInputs
    comptime BYTES = 2 + Self.BITS * BLOCK // 8
    comptime OFFSET = 1 << (Self.BITS - 1)
    comptime PART = 16 if Self.BITS == 4 and BLOCKS == 2 else 32
    """Elements of a block that stay together in a step: with 4 bits the low halves of both blocks come first."""
    comptime STEP = STEP_BYTES
    comptime WEIGHT_BYTES = BLOCKS * Self.BYTES
    comptime INPUT_BYTES = STEP_BYTES + 8 * LANES
    comptime TILE_ROWS = 4
    comptime TILE_COLUMNS = 4
    comptime SMALL_ROWS = 64
    comptime BFLOAT16 = True
    comptime EXPANDED = True
    comptime GROUP = BLOCK
    comptime CODE_GROUP = BLOCK
    comptime CODE_OFFSET = Self.OFFSET

    @staticmethod
    @always_inline
    def block_values(block: Bytes) -> SIMD[DType.uint8, BLOCK]:
        comptime if Self.BITS == 4:
            return read_halves(block.unsafe_offset(2))
        else:
            return block.unsafe_offset(2).unsafe_load[width=BLOCK]() ^ 128

    @staticmethod
    @always_inline
    def pack_step(x: Floats, step: Bytes):
        var starts = step.unsafe_offset(STEP_BYTES).unsafe_bitcast[Int32]()
        var scales = step.unsafe_offset(STEP_BYTES + 4 * LANES).unsafe_bitcast[Float32]()
        comptime PART_LANES = LANES * Self.PART // STEP_BYTES
        var start = Integers(0)
        comptime for b in range(BLOCKS):
            var values, scale = quantize[BLOCK](x.unsafe_load[width=BLOCK](b * BLOCK))
            comptime for part in range(BLOCK // Self.PART):
                comptime at = part * BLOCKS + b
                step.unsafe_bitcast[Int8]().unsafe_store(
                    at * Self.PART, values.slice[Self.PART, offset = part * Self.PART]()
                )
                scales.unsafe_store(at * PART_LANES, SIMD[DType.float32, PART_LANES](scale))
        comptime ONES = SIMD[DType.uint8, 4 * LANES](Self.OFFSET)
        comptime for v in range(STEP_BYTES // (4 * LANES)):
            var values = step.unsafe_bitcast[Int8]().unsafe_load[width=4 * LANES](v * 4 * LANES)
            start = dot4(start, ONES, values)
        starts.unsafe_store(0, -start)

    @staticmethod
    @always_inline
    def load_weights(step: Bytes) -> ScaledBytes:
        comptime if BLOCKS == 1:
            return ScaledBytes(
                rebind[SIMD[DType.uint8, STEP_BYTES]](Self.block_values(step)), Vector(read_scale(step))
            )
        else:
            var second = step.unsafe_offset(Self.BYTES)
            # Two loads that fill a vector each and a blend: fewer shuffles than inserting two scales.
            comptime Halves = SIMD[DType.uint16, LANES]
            var lanes = iota[DType.uint16, LANES]()
            var is_first = (lanes & SIMD[DType.uint16, LANES](Self.PART // 4)).eq(0)
            var halves = is_first.select(Halves(read_bits(step)), Halves(read_bits(second)))
            var scale = bitcast[DType.float16, LANES](halves).cast[DType.float32]()
            comptime if Self.BITS == 4:
                var first = step.unsafe_offset(2).unsafe_load[width=16]()
                var packed = first.join(second.unsafe_offset(2).unsafe_load[width=16]())
                var values = (packed & 15).join(packed >> 4)
                return ScaledBytes(rebind[SIMD[DType.uint8, STEP_BYTES]](values), scale)
            else:
                var values = Self.block_values(step).join(Self.block_values(second))
                return ScaledBytes(rebind[SIMD[DType.uint8, STEP_BYTES]](values), scale)

    @staticmethod
    @always_inline
    def load_inputs(step: Bytes) -> ScaledInputs:
        return ScaledInputs(
            step.unsafe_bitcast[Int8]().unsafe_load[width=STEP_BYTES](),
            step.unsafe_offset(STEP_BYTES).unsafe_bitcast[Int32]().unsafe_load[width=LANES](),
            step.unsafe_offset(STEP_BYTES + 4 * LANES)
            .unsafe_bitcast[Float32]()
            .unsafe_load[width=LANES](),
        )

    @staticmethod
    @always_inline
    def add_product(sum: Vector, weights: ScaledBytes, inputs: ScaledInputs) -> Vector:
        var dot = inputs.start
        comptime for v in range(STEP_BYTES // (4 * LANES)):
            dot = dot4(
                dot,
                weights.values.slice[4 * LANES, offset=v * 4 * LANES](),
                inputs.values.slice[4 * LANES, offset=v * 4 * LANES](),
            )
        return dot.cast[DType.float32]().fma(weights.scale * inputs.scale, sum)

    @staticmethod
    @always_inline
    def decode(row: Bytes, group: Int) -> SIMD[DType.float32, BLOCK]:
        var block = row.unsafe_offset(group * Self.BYTES)
        var values = Self.block_values(block).cast[DType.float32]() - Float32(Self.OFFSET)
        return values * read_scale(block)

    @staticmethod
    @always_inline
    def unpack(row: Bytes, group: Int, codes: Bytes, scales: Floats, minimums: Floats, stride: Int):
        var block = row.unsafe_offset(group * Self.BYTES)
        codes.unsafe_store(0, Self.block_values(block))
        scales.unsafe_store(0, read_scale(block))

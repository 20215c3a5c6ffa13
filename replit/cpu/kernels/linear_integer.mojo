"""Weights of few bits, multiplied with activations in 8-bit integers: each group of elements that share a scale is
summed up exactly, then scaled and added in float32.

A block is unpacked to codes of a byte, `[four elements][row][element]`, and to the scales and minimums of its groups,
`[group][row]`, which stay in the first-level cache while the activation rows go by.
"""

from std.memory import bitcast
from std.sys import CompilationTarget, llvm_intrinsic

from .linear_formats import Ahead, Bytes, COLUMNS, Floats, HALVES, LANES, LINE, PANEL, Sums
from .linear_panels import Words

comptime Integers = SIMD[DType.int32, COLUMNS]
comptime BOTH_HALVES = 6 if LANES == 16 else 2 if LANES == 8 else 1
"""Most rows whose sums and dot products with a whole panel fit in the registers."""
comptime INTEGER_TILE = 8 if LANES == 16 else BOTH_HALVES
comptime HAS_AVX512_VNNI = CompilationTarget._has_feature["avx512vnni"]()
comptime HAS_AVX512_BYTES = CompilationTarget._has_feature["avx512bw"]()
comptime HAS_AVX2 = CompilationTarget.has_avx2()


@always_inline
def dot4(sum: Integers, a: Words, b: Words) -> Integers:
    """Adds the products of four unsigned bytes with four signed ones to each lane, without saturation."""
    comptime if HAS_AVX512_VNNI and LANES == COLUMNS:
        return llvm_intrinsic["llvm.x86.avx512.vpdpbusd.512", Integers, has_side_effect=False](
            sum, bitcast[DType.uint8, LINE](a), bitcast[DType.int8, LINE](b)
        )
    elif HAS_AVX512_BYTES and LANES == COLUMNS:
        return sum + pairs["llvm.x86.avx512.pmaddw.d.512", COLUMNS](a, bitcast[DType.int16, 2 * COLUMNS](b))
    elif HAS_AVX2 and LANES == COLUMNS // 2:
        comptime NAME = "llvm.x86.avx2.pmadd.wd"
        var low = pairs[NAME, 8](a.slice[8](), bitcast[DType.int16, 16](b.slice[8]()))
        var high = pairs[NAME, 8](a.slice[8, offset=8](), bitcast[DType.int16, 16](b.slice[8, offset=8]()))
        return sum + rebind[Integers](low.join(high))
    else:
        var total = sum
        var s = bitcast[DType.int32, COLUMNS](b)
        comptime for i in range(4):
            var u = bitcast[DType.int32, COLUMNS]((a >> Words(8 * i)) & 255)
            total += u * ((s << Integers(24 - 8 * i)) >> 24)
        return total


@always_inline
def pairs[
    name: StaticString, width: Int
](a: SIMD[DType.uint32, width], b: SIMD[DType.int16, 2 * width]) -> SIMD[DType.int32, width]:
    """The sums of four products by an instruction that multiplies 16-bit integers and adds two: even and odd bytes."""
    comptime Result = SIMD[DType.int32, width]
    var even = bitcast[DType.int16, 2 * width](a & 0x00FF00FF)
    var odd = bitcast[DType.int16, 2 * width]((a >> 8) & 0x00FF00FF)
    return llvm_intrinsic[name, Result, has_side_effect=False](even, (b << 8) >> 8) + llvm_intrinsic[
        name, Result, has_side_effect=False
    ](odd, b >> 8)


@always_inline
def round_to_bytes[width: Int](x: SIMD[DType.float32, width]) -> SIMD[DType.int8, width]:
    """Nearest integers, ties to even, of numbers within -128..127."""
    comptime SHIFT = Float32(12582912.0)  # 1.5 * 2^23: the integer is left in the low bits
    return bitcast[DType.int32, width](x + SHIFT).cast[DType.int8]()


@always_inline
def quantize[width: Int](x: SIMD[DType.float32, width]) -> Tuple[SIMD[DType.int8, width], Float32]:
    """Symmetric 8-bit integers and their scale: the largest magnitude becomes 127."""
    var largest = abs(x).reduce_max()
    var inverse = 127 / largest if largest > 0 else Float32(0)
    return (round_to_bytes(x * inverse), largest / 127)


@fieldwise_init
struct Unpacked[BLOCK: Int, GROUP: Int](TrivialRegisterPassable):
    """A block of a panel: codes, scales, minimums."""

    comptime GROUPS = Self.BLOCK // Self.GROUP
    comptime SCALES = Self.BLOCK * PANEL
    comptime MINIMUMS = Self.SCALES + 4 * Self.GROUPS * PANEL
    comptime BYTES = Self.MINIMUMS + 4 * Self.GROUPS * PANEL
    var start: Bytes

    @always_inline
    def put(self, quad: Int, half: Int, codes: Words):
        """Four codes of each row."""
        self.start.unsafe_offset((quad * HALVES + half) * LINE).unsafe_bitcast[UInt32]().unsafe_store(0, codes)

    @always_inline
    def put_scale(self, group: Int, half: Int, scales: Sums):
        var place = self.start.unsafe_offset(Self.SCALES).unsafe_bitcast[Float32]()
        place.unsafe_store(group * PANEL + half * COLUMNS, scales)

    @always_inline
    def put_minimum(self, group: Int, half: Int, minimums: Sums):
        var place = self.start.unsafe_offset(Self.MINIMUMS).unsafe_bitcast[Float32]()
        place.unsafe_store(group * PANEL + half * COLUMNS, minimums)


@fieldwise_init
struct Record[BLOCK: Int, GROUP: Int](TrivialRegisterPassable):
    """An activation row of a block in 8 bits, then for each group the start of its dot product (which makes up for the
    offset of the codes), its scale and its sum."""

    comptime GROUPS = Self.BLOCK // Self.GROUP
    comptime STARTS = Self.BLOCK
    comptime SCALES = Self.STARTS + 4 * Self.GROUPS
    comptime SUMS = Self.SCALES + 4 * Self.GROUPS
    comptime BYTES = Self.SUMS + 4 * Self.GROUPS
    var start: Bytes

    @always_inline
    def pack[SHARED: Int, OFFSET: Int](self, x: Floats, count: Int):
        """Quantizes `SHARED` activations at a time, which get one scale; the codes of the weights are `OFFSET` too
        large."""
        for k in range(0, count, SHARED):
            var values, scale = quantize[SHARED](x.unsafe_load[width=SHARED](k))
            self.start.unsafe_bitcast[Int8]().unsafe_store(k, values)
            comptime for g in range(SHARED // Self.GROUP):
                var sum = values.slice[Self.GROUP, offset = g * Self.GROUP]().cast[DType.int32]().reduce_add()
                var place = self.start.unsafe_offset(4 * (k // Self.GROUP + g))
                place.unsafe_offset(Self.STARTS).unsafe_bitcast[Int32]().unsafe_store(0, Int32(-OFFSET) * sum)
                place.unsafe_offset(Self.SCALES).unsafe_bitcast[Float32]().unsafe_store(0, scale)
                place.unsafe_offset(Self.SUMS).unsafe_bitcast[Float32]().unsafe_store(0, sum.cast[DType.float32]())


@no_inline
def multiply_integers[
    BLOCK: Int, GROUP: Int, SHARED: Bool, OFFSET: Bool, MINIMUM: Bool, rows: Int
](unpacked: Bytes, inputs: Bytes, groups: Int, first: Bool, output: Floats, stride: Int, ahead: Ahead):
    """See `Format.multiply`. The activations' scale is each group's own, or `SHARED` by those of the block; codes have
    an `OFFSET`, or groups a `MINIMUM`. As many rows as a tile has at most go through half a panel after the other."""
    comptime if rows > BOTH_HALVES:
        multiply_halves[BLOCK, GROUP, SHARED, OFFSET, MINIMUM, rows, 1](
            unpacked, inputs, groups, first, output, stride, ahead
        )
        multiply_halves[BLOCK, GROUP, SHARED, OFFSET, MINIMUM, rows, 1](
            unpacked.unsafe_offset(LINE), inputs, groups, first, output.unsafe_offset(COLUMNS), stride, Ahead(unpacked, 0)
        )
    else:
        multiply_halves[BLOCK, GROUP, SHARED, OFFSET, MINIMUM, rows, HALVES](
            unpacked, inputs, groups, first, output, stride, ahead
        )


@no_inline
def multiply_halves[
    BLOCK: Int, GROUP: Int, SHARED: Bool, OFFSET: Bool, MINIMUM: Bool, rows: Int, halves: Int
](unpacked: Bytes, inputs: Bytes, groups: Int, first: Bool, output: Floats, stride: Int, ahead: Ahead):
    """Both halves of a panel, or one; a half's scales are a line apart as its codes are."""
    comptime R = Record[BLOCK, GROUP]
    comptime U = Unpacked[BLOCK, GROUP]
    var sums = Array[Sums, rows * halves](fill=Sums(0))
    comptime if not SHARED:
        if not first:
            comptime for i in range(rows * halves):
                sums[i] = output.unsafe_load[width=COLUMNS](i // halves * stride + i % halves * COLUMNS)
    var codes = unpacked
    var values = inputs
    var scales = unpacked.unsafe_offset(U.SCALES).unsafe_bitcast[Float32]()
    var minimums = unpacked.unsafe_offset(U.MINIMUMS).unsafe_bitcast[Float32]()
    var of_group = inputs
    for group in range(groups):
        ahead.fetch(group)
        var dots = Array[Integers, rows * halves](fill=Integers(0))
        comptime if OFFSET:
            comptime for r in range(rows):
                var place = of_group.unsafe_offset(r * R.BYTES + R.STARTS).unsafe_bitcast[Int32]()
                comptime for h in range(halves):
                    dots[r * halves + h] = Integers(place.unsafe_load())
        comptime for q in range(GROUP // 4):
            var words = Array[Words, halves](
                fill_with=lambda (h: Int) -> Words: codes.unsafe_offset((q * HALVES + h) * LINE)
                .unsafe_bitcast[UInt32]()
                .unsafe_load[width=COLUMNS]()
            )
            comptime for r in range(rows):
                var x = Words(values.unsafe_offset(r * R.BYTES + 4 * q).unsafe_bitcast[UInt32]().unsafe_load())
                comptime for h in range(halves):
                    dots[r * halves + h] = dot4(dots[r * halves + h], words[h], x)
        comptime for h in range(halves):
            var scale = scales.unsafe_load[width=COLUMNS](h * COLUMNS)
            comptime for r in range(rows):
                comptime i = r * halves + h
                var dot = dots[i].cast[DType.float32]()
                comptime if SHARED:
                    sums[i] = dot.fma(scale, sums[i])
                else:
                    var of_row = of_group.unsafe_offset(r * R.BYTES + R.SCALES).unsafe_bitcast[Float32]().unsafe_load()
                    sums[i] = dot.fma(scale * of_row, sums[i])
            comptime if MINIMUM:
                var minimum = minimums.unsafe_load[width=COLUMNS](h * COLUMNS)
                comptime for r in range(rows):
                    var sum = of_group.unsafe_offset(r * R.BYTES + R.SUMS).unsafe_bitcast[Float32]().unsafe_load()
                    sums[r * halves + h] = minimum.fma(Sums(-sum), sums[r * halves + h])
        codes = codes.unsafe_offset(GROUP * PANEL)
        values = values.unsafe_offset(GROUP)
        scales = scales.unsafe_offset(PANEL)
        minimums = minimums.unsafe_offset(PANEL)
        of_group = of_group.unsafe_offset(4)
    comptime for r in range(rows):
        comptime for h in range(halves):
            var place = output.unsafe_offset(r * stride + h * COLUMNS)
            var sum = sums[r * halves + h]
            comptime if SHARED:
                var scale = Sums(inputs.unsafe_offset(r * R.BYTES + R.SCALES).unsafe_bitcast[Float32]().unsafe_load())
                sum = sum.fma(scale, Sums(0) if first else place.unsafe_load[width=COLUMNS]())
            place.unsafe_store(0, sum)

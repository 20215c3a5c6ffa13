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
comptime WIDTH = 8 if LANES == 8 else COLUMNS
"""Weight rows whose dot products are in a vector."""
comptime BEST_TILE = 6 if LANES >= 8 else 1
"""Rows of the fastest tile."""
comptime INTEGER_TILE = 8 if LANES == 16 else BEST_TILE
comptime HAS_AVX512_VNNI = CompilationTarget._has_feature["avx512vnni"]() and WIDTH == 16
comptime HAS_AVX512_BYTES = CompilationTarget._has_feature["avx512bw"]() and WIDTH == 16
comptime HAS_AVX2 = CompilationTarget.has_avx2() and WIDTH == 8
comptime IN_SHORTS = HAS_AVX512_BYTES and not HAS_AVX512_VNNI or HAS_AVX2
"""Whether bytes are multiplied and two products added in 16 bits, as no instruction adds four in 32. Codes of 8 bits have
too large products for that and are multiplied as 16 bits, with activations that a record holds `WIDE`."""
comptime MULTIPLY_BYTES: StaticString = "llvm.x86.avx2.pmadd.ub.sw" if HAS_AVX2 else "llvm.x86.avx512.pmaddubs.w.512"
comptime MULTIPLY_SHORTS: StaticString = "llvm.x86.avx2.pmadd.wd" if HAS_AVX2 else "llvm.x86.avx512.pmaddw.d.512"


@always_inline
def vectors_of[rows: Int]() -> Int:
    """Vectors of a panel whose dot products and sums with so many rows fit in the registers."""
    comptime if LANES == 16:
        return 2 if rows <= 6 else 1
    elif LANES == 8:
        return 4 if rows == 1 else 2 if rows == 2 else 1
    else:
        return 1


comptime is_wide[BITS: Int] = IN_SHORTS and BITS == 8
comptime Four = SIMD[DType.uint32, WIDTH]
"""Four codes of each weight row, or of an activation row for all of them."""
comptime Dots = SIMD[DType.int32, WIDTH]
comptime Shorts = SIMD[DType.int16, 2 * WIDTH]
comptime Scales = SIMD[DType.float32, WIDTH]


@always_inline
def multiply_bytes(codes: Four, x: Four) -> Shorts:
    """The sums of two products each, of unsigned bytes with signed ones; they must fit in 16 bits."""
    return llvm_intrinsic[MULTIPLY_BYTES, Shorts, has_side_effect=False](
        bitcast[DType.uint8, 4 * WIDTH](codes), bitcast[DType.int8, 4 * WIDTH](x)
    )


@always_inline
def multiply_shorts(a: Shorts, b: Shorts) -> Dots:
    """The sums of two products each."""
    return llvm_intrinsic[MULTIPLY_SHORTS, Dots, has_side_effect=False](a, b)


@always_inline
def dot4(sum: Dots, codes: Four, x: Four) -> Dots:
    """Adds the products of four unsigned bytes with four signed ones to each lane."""
    comptime if HAS_AVX512_VNNI:
        return llvm_intrinsic["llvm.x86.avx512.vpdpbusd.512", Dots, has_side_effect=False](
            sum, bitcast[DType.uint8, 4 * WIDTH](codes), bitcast[DType.int8, 4 * WIDTH](x)
        )
    else:
        var total = sum
        var s = bitcast[DType.int32, WIDTH](x)
        comptime for i in range(4):
            var u = bitcast[DType.int32, WIDTH]((codes >> Four(8 * i)) & 255)
            total += u * ((s << Dots(24 - 8 * i)) >> 24)
        return total


@always_inline
def load_four(place: Bytes) -> Four:
    """Four bytes for all lanes."""
    return Four(place.unsafe_bitcast[UInt32]().unsafe_load())


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
struct Record[BLOCK: Int, GROUP: Int, WIDE: Bool = False](TrivialRegisterPassable):
    """An activation row of a block in 8 bits, then for each group the start of its dot product (which makes up for the
    offset of the codes), its scale and its sum; `WIDE`, then of each four activations the first and third in 16 bits, the
    second and fourth."""

    comptime GROUPS = Self.BLOCK // Self.GROUP
    comptime STARTS = Self.BLOCK
    comptime SCALES = Self.STARTS + 4 * Self.GROUPS
    comptime SUMS = Self.SCALES + 4 * Self.GROUPS
    comptime WIDE_AT = Self.SUMS + 4 * Self.GROUPS
    comptime BYTES = Self.WIDE_AT + (2 * Self.BLOCK if Self.WIDE else 0)
    var start: Bytes

    @always_inline
    def pack[SHARED: Int, OFFSET: Int](self, x: Floats, count: Int):
        """Quantizes `SHARED` activations at a time, which get one scale; the codes of the weights are `OFFSET` too
        large."""
        for k in range(0, count, SHARED):
            var values, scale = quantize[SHARED](x.unsafe_load[width=SHARED](k))
            self.start.unsafe_bitcast[Int8]().unsafe_store(k, values)
            comptime if Self.WIDE:
                var pairs = bitcast[DType.int16, SHARED // 2](values)
                var even = bitcast[DType.int32, SHARED // 4]((pairs << 8) >> 8)
                var odd = bitcast[DType.int32, SHARED // 4](pairs >> 8)
                self.start.unsafe_offset(Self.WIDE_AT + 2 * k).unsafe_bitcast[Int32]().unsafe_store(0, even.interleave(odd))
            comptime for g in range(SHARED // Self.GROUP):
                var sum = values.slice[Self.GROUP, offset = g * Self.GROUP]().cast[DType.int32]().reduce_add()
                var place = self.start.unsafe_offset(4 * (k // Self.GROUP + g))
                place.unsafe_offset(Self.STARTS).unsafe_bitcast[Int32]().unsafe_store(0, Int32(-OFFSET) * sum)
                place.unsafe_offset(Self.SCALES).unsafe_bitcast[Float32]().unsafe_store(0, scale)
                place.unsafe_offset(Self.SUMS).unsafe_bitcast[Float32]().unsafe_store(0, sum.cast[DType.float32]())


@no_inline
def multiply_integers[
    BLOCK: Int, GROUP: Int, BITS: Int, SHARED: Bool, OFFSET: Bool, MINIMUM: Bool, rows: Int
](unpacked: Bytes, inputs: Bytes, groups: Int, first: Bool, output: Floats, stride: Int, ahead: Ahead):
    """See `Format.multiply`. The activations' scale is each group's own, or `SHARED` by those of the block; codes of
    `BITS` have an `OFFSET`, or groups a `MINIMUM`. As much of the panel at a time as the registers hold."""
    comptime VECTORS = vectors_of[rows]()
    comptime PARTS = PANEL // (WIDTH * VECTORS)
    var fetched = 0
    comptime for part in range(PARTS):
        comptime column = part * WIDTH * VECTORS
        var lines = ahead.lines * (part + 1) // PARTS - fetched
        multiply_columns[BLOCK, GROUP, BITS, SHARED, OFFSET, MINIMUM, rows, VECTORS](
            unpacked.unsafe_offset(4 * column), inputs, groups, first, output.unsafe_offset(column), stride,
            Ahead(ahead.start.unsafe_offset(groups * fetched * LINE), lines),
        )
        fetched += lines


@no_inline
def multiply_columns[
    BLOCK: Int, GROUP: Int, BITS: Int, SHARED: Bool, OFFSET: Bool, MINIMUM: Bool, rows: Int, vectors: Int
](unpacked: Bytes, inputs: Bytes, groups: Int, first: Bool, output: Floats, stride: Int, ahead: Ahead):
    """So many vectors of a panel's weight rows, from the first whose codes are at `unpacked`."""
    comptime SHORTS = IN_SHORTS and BITS < 8
    comptime WIDE = is_wide[BITS]
    # as many as 16 bits hold: products of 15 and of 63 with 127
    comptime QUADS = GROUP // 4 if not SHORTS else 8 if BITS == 4 else 2
    comptime R = Record[BLOCK, GROUP, WIDE]
    comptime U = Unpacked[BLOCK, GROUP]
    var sums = Array[Scales, rows * vectors](fill=Scales(0))
    comptime if not SHARED:
        if not first:
            comptime for i in range(rows * vectors):
                sums[i] = output.unsafe_load[width=WIDTH](i // vectors * stride + i % vectors * WIDTH)
    var codes = unpacked
    var values = inputs
    var wide_values = inputs
    var scales = unpacked.unsafe_offset(U.SCALES).unsafe_bitcast[Float32]()
    var minimums = unpacked.unsafe_offset(U.MINIMUMS).unsafe_bitcast[Float32]()
    var of_group = inputs
    for group in range(groups):
        ahead.fetch(group)
        var dots = Array[Dots, rows * vectors](fill=Dots(0))
        comptime if OFFSET:
            comptime for r in range(rows):
                var place = of_group.unsafe_offset(r * R.BYTES + R.STARTS).unsafe_bitcast[Int32]()
                comptime for v in range(vectors):
                    dots[r * vectors + v] = Dots(place.unsafe_load())
        comptime for start in range(0, GROUP // 4, QUADS):
            var shorts = Array[Shorts, rows * vectors](fill=Shorts(0))
            comptime for q in range(start, start + QUADS):
                var words = Array[Four, vectors](fill=Four(0))
                comptime for v in range(vectors):
                    var place = codes.unsafe_offset(4 * (q * PANEL + v * WIDTH)).unsafe_bitcast[UInt32]()
                    words[v] = place.unsafe_load[width=WIDTH]()
                comptime if WIDE:
                    comptime for odd in range(2):
                        var wide = Array[Shorts, vectors](fill=Shorts(0))
                        comptime for v in range(vectors):
                            wide[v] = bitcast[DType.int16, 2 * WIDTH]((words[v] >> Four(8 * odd)) & 0x00FF00FF)
                        comptime for r in range(rows):
                            comptime place = r * R.BYTES + R.WIDE_AT + 8 * q + 4 * odd
                            var x = bitcast[DType.int16, 2 * WIDTH](load_four(wide_values.unsafe_offset(place)))
                            comptime for v in range(vectors):
                                dots[r * vectors + v] += multiply_shorts(wide[v], x)
                else:
                    comptime for r in range(rows):
                        var x = load_four(values.unsafe_offset(r * R.BYTES + 4 * q))
                        comptime for v in range(vectors):
                            comptime i = r * vectors + v
                            comptime if SHORTS:
                                shorts[i] += multiply_bytes(words[v], x)
                            else:
                                dots[i] = dot4(dots[i], words[v], x)
            comptime if SHORTS:
                comptime for i in range(rows * vectors):
                    dots[i] += multiply_shorts(shorts[i], Shorts(1))
        comptime for v in range(vectors):
            var scale = scales.unsafe_load[width=WIDTH](v * WIDTH)
            comptime for r in range(rows):
                comptime i = r * vectors + v
                var dot = dots[i].cast[DType.float32]()
                comptime if SHARED:
                    sums[i] = dot.fma(scale, sums[i])
                else:
                    var of_row = of_group.unsafe_offset(r * R.BYTES + R.SCALES).unsafe_bitcast[Float32]().unsafe_load()
                    sums[i] = dot.fma(scale * of_row, sums[i])
            comptime if MINIMUM:
                var minimum = minimums.unsafe_load[width=WIDTH](v * WIDTH)
                comptime for r in range(rows):
                    var sum = of_group.unsafe_offset(r * R.BYTES + R.SUMS).unsafe_bitcast[Float32]().unsafe_load()
                    sums[r * vectors + v] = minimum.fma(Scales(-sum), sums[r * vectors + v])
        codes = codes.unsafe_offset(GROUP * PANEL)
        values = values.unsafe_offset(GROUP)
        wide_values = wide_values.unsafe_offset(2 * GROUP)
        scales = scales.unsafe_offset(PANEL)
        minimums = minimums.unsafe_offset(PANEL)
        of_group = of_group.unsafe_offset(4)
    comptime for r in range(rows):
        comptime for v in range(vectors):
            var place = output.unsafe_offset(r * stride + v * WIDTH)
            var sum = sums[r * vectors + v]
            comptime if SHARED:
                var scale = Scales(inputs.unsafe_offset(r * R.BYTES + R.SCALES).unsafe_bitcast[Float32]().unsafe_load())
                sum = sum.fma(scale, Scales(0) if first else place.unsafe_load[width=WIDTH]())
            place.unsafe_store(0, sum)

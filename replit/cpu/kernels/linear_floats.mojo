"""Weights in float32 and bfloat16: multiplied as they lie in a panel, element after element or pair after pair."""

from std.memory import bitcast
from std.sys import CompilationTarget, llvm_intrinsic

from .linear_formats import Bytes, COLUMNS, Floats, Format, HALVES, LANES, LINE, PANEL, Ahead, PanelBlock, Sums
from .linear_panels import Words

comptime REGISTERS = 32 if LANES == 16 or not CompilationTarget.is_x86() else 16
comptime FLOAT_TILE = 12 if LANES == 16 else 6 if LANES == 8 or REGISTERS == 32 else 3
"""Rows whose sums with half a panel leave registers for a word of it and an activation."""
comptime WIDEN_FROM = 12
"""Rows for which widening a block of bfloat16 first takes no longer than widening it for each tile."""
comptime HAS_BF16_DOT = CompilationTarget._has_feature["avx512bf16"]()


@always_inline
def load_word(place: Bytes) -> Words:
    """A word of a row for every lane."""
    return Words(place.unsafe_bitcast[UInt32]().unsafe_load())


@always_inline
def load_words(place: Bytes) -> Words:
    """A word of half a panel."""
    return place.unsafe_bitcast[UInt32]().unsafe_load[width=COLUMNS]()


trait WordFormat(Format):
    comptime INPUT: Int
    """Bytes of what is multiplied with a word of the weights."""

    @staticmethod
    def add(sum: Sums, weights: Words, input: Bytes) -> Sums:
        """Adds the products of a word of half a panel with the activations at `input`."""
        ...


comptime WORDS_TOGETHER = 8
"""Of a step."""


@always_inline
def halves_together[rows: Int]() -> Int:
    """Halves of a panel whose sums with so many rows fit in the registers, with a word of it and an activation."""
    comptime VECTORS = COLUMNS // LANES
    return HALVES if (rows + 1) * HALVES * VECTORS < REGISTERS else 1


@no_inline
def multiply_words[
    F: WordFormat, rows: Int
](weights: Bytes, inputs: Bytes, units: Int, first: Bool, output: Floats, stride: Int, ahead: Ahead):
    """See `Format.multiply`. A panel at a time, or one half after the other."""
    comptime TOGETHER = halves_together[rows]()
    comptime PARTS = HALVES // TOGETHER
    comptime for part in range(PARTS):
        var done = ahead.lines * part // PARTS
        multiply_columns[F, rows, TOGETHER](
            weights.unsafe_offset(part * LINE), inputs, units, first, output.unsafe_offset(part * COLUMNS), stride,
            Ahead(
                ahead.start.unsafe_offset(units // WORDS_TOGETHER * done * LINE),
                ahead.lines * (part + 1) // PARTS - done,
            ),
        )


@no_inline
def multiply_columns[
    F: WordFormat, rows: Int, halves: Int
](weights: Bytes, inputs: Bytes, units: Int, first: Bool, output: Floats, stride: Int, ahead: Ahead):
    """So many halves of a panel, from the one at `weights` on."""
    var sums = Array[Sums, rows * halves](fill=Sums(0))
    var w = weights
    var x = inputs

    @always_inline
    def add_word() {mut}:
        var words = Array[Words, halves](
            fill_with=lambda (h: Int) -> Words: load_words(w.unsafe_offset(h * LINE))
        )
        comptime for r in range(rows):
            comptime for h in range(halves):
                sums[r * halves + h] = F.add(sums[r * halves + h], words[h], x.unsafe_offset(r * F.RECORD))
        w = w.unsafe_offset(HALVES * LINE)
        x = x.unsafe_offset(F.INPUT)

    for step in range(units // WORDS_TOGETHER):
        ahead.fetch(step)
        comptime for _ in range(WORDS_TOGETHER):
            add_word()
    for _ in range(units % WORDS_TOGETHER):
        add_word()
    comptime for r in range(rows):
        comptime for h in range(halves):
            var place = output.unsafe_offset(r * stride + h * COLUMNS)
            var before = Sums(0) if first else place.unsafe_load[width=COLUMNS]()
            place.unsafe_store(0, before + sums[r * halves + h])


struct Float32Format(WordFormat):
    comptime UNIT = 1
    comptime UNIT_BYTES = 4
    comptime BLOCK = 128
    comptime STEP = WORDS_TOGETHER * Self.UNIT
    comptime TILE_ROWS = FLOAT_TILE
    comptime BEST_ROWS = FLOAT_TILE
    comptime INPUT = 4
    comptime RECORD = 4 * Self.BLOCK

    @staticmethod
    def pack(x: Floats, count: Int, record: Bytes):
        for i in range(count):
            record.unsafe_bitcast[Float32]().unsafe_store(i, x.unsafe_load(i))

    @staticmethod
    def multiply[
        rows: Int
    ](weights: Bytes, inputs: Bytes, units: Int, first: Bool, output: Floats, stride: Int, ahead: Ahead):
        multiply_words[Self, rows](weights, inputs, units, first, output, stride, ahead)

    @staticmethod
    @always_inline
    def add(sum: Sums, weights: Words, input: Bytes) -> Sums:
        return bitcast[DType.float32, COLUMNS](weights).fma(
            Sums(input.unsafe_bitcast[Float32]().unsafe_load()), sum
        )

    @staticmethod
    @always_inline
    def decode(row: Bytes, unit: Int) -> SIMD[DType.float32, 1]:
        return row.unsafe_bitcast[Float32]().unsafe_load[alignment=1](unit)


struct BFloat16Format[ROUNDED: Bool](WordFormat):
    """`ROUNDED`, where there is AVX512-BF16: activations rounded to bfloat16, products and sums in float32. Elsewhere
    weights are widened to float32: for a few rows while they are multiplied, for more a block at a time before."""

    comptime UNIT = 2
    comptime UNIT_BYTES = 4
    comptime BLOCK = 256 if Self.ROUNDED else Float32Format.BLOCK
    comptime STEP = WORDS_TOGETHER * Self.UNIT
    comptime TILE_ROWS = FLOAT_TILE
    comptime BEST_ROWS = FLOAT_TILE
    comptime INPUT = 4 if Self.ROUNDED else 8
    comptime RECORD = Self.BLOCK // 2 * Self.INPUT
    comptime BFLOAT16 = Self.ROUNDED
    comptime UNPACKED = 0 if Self.ROUNDED else 4 * Self.BLOCK * PANEL
    comptime UNPACK_FROM = WIDEN_FROM
    comptime UNPACK_STEPS = Self.BLOCK // Self.STEP
    comptime WIDENS = not Self.ROUNDED

    @staticmethod
    def pack(x: Floats, count: Int, record: Bytes):
        comptime if Self.ROUNDED:
            var rounded = record.unsafe_bitcast[BFloat16]()
            var whole = count // COLUMNS * COLUMNS
            for i in range(0, whole, COLUMNS):
                rounded.unsafe_store(i, x.unsafe_load[width=COLUMNS](i).cast[DType.bfloat16]())
            for i in range(whole, count):
                rounded.unsafe_store(i, x.unsafe_load(i).cast[DType.bfloat16]())
            if count % 2 == 1:
                rounded.unsafe_store(count, BFloat16(0))
        else:
            for i in range(count):
                record.unsafe_bitcast[Float32]().unsafe_store(i, x.unsafe_load(i))
            if count % 2 == 1:
                record.unsafe_bitcast[Float32]().unsafe_store(count, Float32(0))

    @staticmethod
    @no_inline
    def unpack(block: PanelBlock, units: Int, unpacked: Bytes, ahead: Ahead):
        for unit in range(units):
            if unit % WORDS_TOGETHER == 0:
                ahead.fetch(unit // WORDS_TOGETHER)
            comptime for h in range(HALVES):
                var words = load_words(block.words.unsafe_offset((unit * HALVES + h) * LINE))
                var even = unpacked.unsafe_offset((2 * unit * HALVES + h) * LINE).unsafe_bitcast[UInt32]()
                even.unsafe_store(0, words << 16)
                even.unsafe_store(PANEL, words & 0xFFFF0000)

    @staticmethod
    def multiply[
        rows: Int
    ](weights: Bytes, inputs: Bytes, units: Int, first: Bool, output: Floats, stride: Int, ahead: Ahead):
        multiply_words[Self, rows](weights, inputs, units, first, output, stride, ahead)

    @staticmethod
    @always_inline
    def add(sum: Sums, weights: Words, input: Bytes) -> Sums:
        comptime if Self.ROUNDED:
            comptime Pairs = SIMD[DType.bfloat16, 2 * COLUMNS]
            return llvm_intrinsic["llvm.x86.avx512bf16.dpbf16ps.512", Sums, has_side_effect=False](
                sum, bitcast[DType.bfloat16, 2 * COLUMNS](weights), bitcast[DType.bfloat16, 2 * COLUMNS](load_word(input))
            )
        else:
            var x = input.unsafe_bitcast[Float32]()
            var even = bitcast[DType.float32, COLUMNS](weights << 16)
            var odd = bitcast[DType.float32, COLUMNS](weights & 0xFFFF0000)
            return odd.fma(Sums(x.unsafe_load(1)), even.fma(Sums(x.unsafe_load()), sum))

    @staticmethod
    @always_inline
    def decode(row: Bytes, unit: Int) -> SIMD[DType.float32, 2]:
        return row.unsafe_bitcast[BFloat16]().unsafe_load[width=2, alignment=1](2 * unit).cast[DType.float32]()

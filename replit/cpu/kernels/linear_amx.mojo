"""Tiles of AMX in place of the vectors of AVX512-BF16: 32 activation rows by the 32 weight rows of a panel.

A tile adds up 32 elements apart from the rest, even and odd ones apart, which no vector does; so where tiles are used
they are used for any number of rows. Panels of bfloat16 are their right operands as they lie, records their left ones. With
-D EMULATED_TILES the tiles are computed in memory, so that everything but the instructions is tested anywhere.
"""

from std.ffi import external_call
from std.memory import unsafe_stack_allocation
from std.sys import CompilationTarget, inlined_assembly, is_defined

from .linear_formats import Bytes, Floats, HALVES, LANES, LINE, PANEL, scratch

comptime EMULATED = is_defined["EMULATED_TILES"]()
comptime HAS_AMX = CompilationTarget._has_feature["amx-bf16"]() and not EMULATED
comptime HAS_TILES = (HAS_AMX or EMULATED) and LANES == 16
comptime STEP = 32
"""Elements of a row in a tile."""
comptime SIDE = 16
"""Rows of a tile, each of 64 bytes."""
comptime TILE_SUMS = 4 * PANEL * PANEL
comptime ARCH_PRCTL = 158
comptime REQUEST_PERMISSION = 0x1023
comptime TILE_DATA = 18


@fieldwise_init
struct Tiles(TrivialRegisterPassable):
    """Whether products use tiles."""

    var used: Bool

    def scratch(self) -> Bytes:
        """Memory for the sums of a product's tiles."""
        return scratch(TILE_SUMS if self.used else 1)

    def fit(self, depth: Int) -> Self:
        """For rows of `depth` elements: whole tiles of them."""
        return Tiles(self.used and depth % STEP == 0)


def tiles_if_allowed() -> Tiles:
    """The tiles, if the system lets this process use them, which it has to ask for, and they work."""
    comptime if EMULATED and HAS_TILES:
        return Tiles(tiles_work())
    elif HAS_TILES and CompilationTarget.is_linux():
        var refused = external_call["syscall", Int](ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA)
        return Tiles(refused == 0 and tiles_work())
    else:
        return Tiles(False)


@no_inline
def tiles_work() -> Bool:
    """Multiplies 1..32 by 1..32: some virtual machines offer the tiles and do not run them right."""
    comptime K = 5  # the only element of each row that is not zero
    var weights = scratch(SIDE * PANEL * 4)
    var inputs = scratch(PANEL * STEP * 2)
    var sums = scratch(TILE_SUMS)
    for i in range(STEP * PANEL):
        weights.unsafe_bitcast[BFloat16]().unsafe_store(i, BFloat16(0))
        inputs.unsafe_bitcast[BFloat16]().unsafe_store(i, BFloat16(0))
    for i in range(PANEL):
        weights.unsafe_bitcast[BFloat16]().unsafe_store((K // 2 * PANEL + i) * 2 + K % 2, BFloat16(i + 1))
        inputs.unsafe_bitcast[BFloat16]().unsafe_store(i * STEP + K, BFloat16(i + 1))
    tile_sums(weights, inputs, STEP * 2, 1, sums)
    var right = True
    for i in range(PANEL * PANEL):
        var expected = Float32((i // PANEL + 1) * (i % PANEL + 1))
        right = right and sums.unsafe_bitcast[Float32]().unsafe_load(i) == expected
    weights.unsafe_free()
    inputs.unsafe_free()
    sums.unsafe_free()
    return right


@no_inline
def multiply_tiles(
    weights: Bytes,
    inputs: Bytes,
    record: Int,
    rows: Int,
    units: Int,
    first: Bool,
    output: Floats,
    stride: Int,
    space: Bytes,
):
    """`Format.multiply` for any number of rows, `record` bytes apart, in whole steps of pairs of bfloat16."""
    var sums = space.unsafe_bitcast[Float32]()
    for row in range(0, rows, PANEL):
        var count = min(PANEL, rows - row)
        var place = output.unsafe_offset(row * stride)
        tile_sums(weights, inputs.unsafe_offset(row * record), record, 2 * units // STEP, space)
        for r in range(count):
            for n in range(0, PANEL, SIDE):
                var before = SIMD[DType.float32, SIDE](0)
                if not first:
                    before = place.unsafe_load[width=SIDE](r * stride + n)
                place.unsafe_store(r * stride + n, before + sums.unsafe_load[width=SIDE](r * PANEL + n))


def tile_sums(weights: Bytes, inputs: Bytes, record: Int, steps: Int, sums: Bytes):
    """`sums[32, 32]`, the products of 32 records with a panel, in so many steps of 32 elements."""
    comptime if HAS_AMX:
        run_tiles(weights, inputs, record, steps, sums)
    else:
        emulate_tiles(weights, inputs, record, steps, sums)


@no_inline
def run_tiles(weights: Bytes, inputs: Bytes, record: Int, steps: Int, sums: Bytes):
    var values = SIMD[DType.uint8, 64](0)
    values[0] = 1  # palette
    comptime for t in range(8):
        values[16 + 2 * t] = 64  # bytes of a row
        values[48 + t] = SIDE  # rows
    var config = unsafe_stack_allocation[64, DType.uint8, alignment=64]()
    config.unsafe_store(0, values)
    inlined_assembly["ldtilecfg ($0)", NoneType, constraints="r,~{memory}", has_side_effect=True](config)
    comptime SUMS_STRIDE = 4 * PANEL
    inlined_assembly[
        "tilezero %tmm0\ntilezero %tmm1\ntilezero %tmm2\ntilezero %tmm3",
        NoneType,
        constraints="~{memory}",
        has_side_effect=True,
    ]()
    for s in range(steps):
        var w = weights.unsafe_offset(s * SIDE * HALVES * LINE)
        var x = inputs.unsafe_offset(s * 2 * STEP)
        inlined_assembly[
            "tileloadd ($0,$3,1), %tmm4\n"
            "tileloadd ($1,$3,1), %tmm5\n"
            "tileloadd ($2,$4,1), %tmm6\n"
            "tileloadd 64($2,$4,1), %tmm7\n"
            "tdpbf16ps %tmm6, %tmm4, %tmm0\n"
            "tdpbf16ps %tmm7, %tmm4, %tmm1\n"
            "tdpbf16ps %tmm6, %tmm5, %tmm2\n"
            "tdpbf16ps %tmm7, %tmm5, %tmm3",
            NoneType,
            constraints="r,r,r,r,r,~{memory}",
            has_side_effect=True,
        ](x, x.unsafe_offset(SIDE * record), w, record, Int(HALVES * LINE))
    inlined_assembly[
        "tilestored %tmm0, ($0,$1,1)\n"
        "tilestored %tmm1, 64($0,$1,1)\n"
        "tilestored %tmm2, 2048($0,$1,1)\n"
        "tilestored %tmm3, 2112($0,$1,1)\n"
        "tilerelease",
        NoneType,
        constraints="r,r,~{memory}",
        has_side_effect=True,
    ](sums, Int(SUMS_STRIDE))


def emulate_tiles(weights: Bytes, inputs: Bytes, record: Int, steps: Int, sums: Bytes):
    """As the instruction is defined: even and odd products of a step added up apart, then both, then to the sum."""
    for r in range(PANEL):
        var x = inputs.unsafe_offset(r * record).unsafe_bitcast[BFloat16]()
        for n in range(PANEL):
            var total = Float32(0)
            for s in range(steps):
                var even = Float32(0)
                var odd = Float32(0)
                for k in range(s * SIDE, (s + 1) * SIDE):
                    var w = weights.unsafe_offset(k * HALVES * LINE + n * 4).unsafe_bitcast[BFloat16]()
                    even += w.unsafe_load(0).cast[DType.float32]() * x.unsafe_load(2 * k).cast[DType.float32]()
                    odd += w.unsafe_load(1).cast[DType.float32]() * x.unsafe_load(2 * k + 1).cast[DType.float32]()
                total += even + odd
            sums.unsafe_bitcast[Float32]().unsafe_store(r * PANEL + n, total)

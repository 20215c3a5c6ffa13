"""Many activation rows with AMX: 32 weight rows by 32 activation rows in four tiles of bfloat16.

Weights are the left operand as they are stored, activations the right one with their pairs of elements
interleaved, so the sums come out as `[weight row, activation row]` and are transposed on the way out.
The tiles can be emulated in memory, so that everything but the instructions is tested anywhere.
"""

from std.ffi import external_call
from std.math import align_up, ceildiv
from std.memory import bitcast, unsafe_stack_allocation
from std.sys import CompilationTarget, inlined_assembly

from .linear_epilogue import Epilogue
from .linear_formats import BFloat16Format, Bytes, Floats, Format, LANES, scratch
from .linear_inputs import BLOCK_STEPS, Norm
from .threads import SHARES, in_shares, over_rows, threads_for
from .linear_weights import Matrix, pack_weights

comptime HAS_AMX = CompilationTarget._has_feature["amx-bf16"]()
comptime EMULATED = False
comptime HAS_TILES = (HAS_AMX or EMULATED) and LANES == 16
comptime MANY_ROWS = 64
"""Up to here, which is more than are decoded together, rows are added up in the order of one row."""
comptime AMX_CHUNK = 256
"""Activation rows whose block stays in the second-level cache."""
comptime AMX_STEP = 32  # elements of a row in a tile
comptime AMX_SIDE = 32  # rows of each operand: two tiles
comptime TILE_BYTES = 1024
comptime PAIR_BYTES = 2 * TILE_BYTES
comptime Row = SIMD[DType.float32, 16]
comptime ARCH_PRCTL = 158
comptime REQUEST_PERMISSION = 0x1023
comptime TILE_DATA = 18


def amx_allowed() -> Bool:
    """Whether the system lets this process use the tiles, which it has to ask for."""
    comptime if EMULATED:
        return tiles_work()
    elif HAS_AMX and CompilationTarget.is_linux():
        var refused = external_call["syscall", Int](ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA)
        return refused == 0 and tiles_work()
    else:
        return False


@no_inline
def tiles_work() -> Bool:
    """Multiplies 1..32 by 1..32: some virtual machines offer the tiles and do not run them right."""
    var operands = scratch(2 * PAIR_BYTES)
    var sums = scratch(4 * TILE_BYTES)
    var weights = operands.unsafe_bitcast[BFloat16]()
    var inputs = operands.unsafe_offset(PAIR_BYTES).unsafe_bitcast[BFloat16]()
    for i in range(2 * PAIR_BYTES):
        operands.unsafe_store(i, 0)
    comptime K = 5  # the only element of each row that is not zero
    for i in range(AMX_SIDE):
        weights.unsafe_store(i * AMX_STEP + K, BFloat16(i + 1))
        var place = i // 16 * (TILE_BYTES // 2) + K // 2 * 32 + i % 16 * 2 + K % 2
        inputs.unsafe_store(place, BFloat16(i + 1))
    open_tiles()
    tile_sums(operands, operands.unsafe_offset(PAIR_BYTES), 1, sums)
    close_tiles()
    var right = True
    for i in range(AMX_SIDE * AMX_SIDE):
        var n = i // 512 * 16 + i % 256 // 16 + 1
        var t = i // 256 % 2 * 16 + i % 16 + 1
        right = right and sums.unsafe_bitcast[Float32]().unsafe_load(i) == Float32(n * t)
    operands.unsafe_free()
    sums.unsafe_free()
    return right


def open_tiles():
    """Every tile has 16 rows of 64 bytes; for the calling thread, until `close_tiles`."""
    comptime if HAS_AMX and not EMULATED:
        var values = SIMD[DType.uint8, 64](0)
        values[0] = 1  # palette
        comptime for t in range(8):
            values[16 + 2 * t] = 64  # bytes of a row
            values[48 + t] = 16  # rows
        var config = unsafe_stack_allocation[64, DType.uint8, alignment=64]()
        config.unsafe_store(0, values)
        inlined_assembly["ldtilecfg ($0)", NoneType, constraints="r,~{memory}", has_side_effect=True](
            config
        )


def close_tiles():
    comptime if HAS_AMX and not EMULATED:
        inlined_assembly["tilerelease", NoneType, constraints="~{memory}", has_side_effect=True]()


@no_inline
def tile_sums(weights: Bytes, inputs: Bytes, steps: Int, sums: Bytes):
    """Four tiles of sums: weight rows 0-15 and 16-31, each times activation rows 0-15 and 16-31."""
    comptime if HAS_AMX and not EMULATED:
        inlined_assembly[
            "tilezero %tmm0\ntilezero %tmm1\ntilezero %tmm2\ntilezero %tmm3",
            NoneType,
            constraints="~{memory}",
            has_side_effect=True,
        ]()
        for s in range(steps):
            inlined_assembly[
                "tileloadd ($0,$2,1), %tmm4\n"
                "tileloadd ($1,$2,1), %tmm6\n"
                "tileloadd 1024($0,$2,1), %tmm5\n"
                "tileloadd 1024($1,$2,1), %tmm7\n"
                "tdpbf16ps %tmm6, %tmm4, %tmm0\n"
                "tdpbf16ps %tmm7, %tmm4, %tmm1\n"
                "tdpbf16ps %tmm6, %tmm5, %tmm2\n"
                "tdpbf16ps %tmm7, %tmm5, %tmm3",
                NoneType,
                constraints="r,r,r,~{memory}",
                has_side_effect=True,
            ](weights.unsafe_offset(s * PAIR_BYTES), inputs.unsafe_offset(s * PAIR_BYTES), Int(64))
        inlined_assembly[
            "tilestored %tmm0, ($0,$1,1)\n"
            "tilestored %tmm1, 1024($0,$1,1)\n"
            "tilestored %tmm2, 2048($0,$1,1)\n"
            "tilestored %tmm3, 3072($0,$1,1)",
            NoneType,
            constraints="r,r,~{memory}",
            has_side_effect=True,
        ](sums, Int(64))
    else:
        emulate_tile_sums(weights, inputs, steps, sums)


def emulate_tile_sums(weights: Bytes, inputs: Bytes, steps: Int, sums: Bytes):
    for quarter in range(4):
        var c = sums.unsafe_offset(quarter * TILE_BYTES).unsafe_bitcast[Float32]()
        for n in range(16):
            for t in range(16):
                var total = Float32(0)
                for s in range(steps):
                    var a = weights.unsafe_offset(s * PAIR_BYTES + quarter // 2 * TILE_BYTES)
                    var b = inputs.unsafe_offset(s * PAIR_BYTES + quarter % 2 * TILE_BYTES)
                    for k in range(AMX_STEP):
                        var w = a.unsafe_bitcast[BFloat16]().unsafe_load(n * AMX_STEP + k)
                        var x = b.unsafe_bitcast[BFloat16]().unsafe_load(k // 2 * 32 + t * 2 + k % 2)
                        total += w.cast[DType.float32]() * x.cast[DType.float32]()
                c.unsafe_store(n * 16 + t, total)


@always_inline
def transpose(mut rows: Array[Row, 16]):
    """Four perfect shuffles of 16 rows of 16."""
    comptime for _ in range(4):
        var next = Array[Row, 16](fill=Row(0))
        comptime for i in range(8):
            var both = rows[i].interleave(rows[i + 8])
            next[2 * i] = both.slice[16]()
            next[2 * i + 1] = both.slice[16, offset=16]()
        rows = next^


@no_inline
def add_sums(sums: Bytes, columns: Int, rows: Int, first: Bool, output: Floats, stride: Int):
    """Adds the four tiles, transposed, to `output[rows, columns]`, or sets it."""
    for quarter in range(4):
        var column = quarter // 2 * 16
        var row = quarter % 2 * 16
        if column >= columns or row >= rows:
            continue
        var tile = sums.unsafe_offset(quarter * TILE_BYTES).unsafe_bitcast[Float32]()
        var lines = Array[Row, 16](
            fill_with=lambda (n: Int) -> Row: tile.unsafe_load[width=16](n * 16)
        )
        transpose(lines)
        comptime for t in range(16):
            if row + t < rows:
                var place = output.unsafe_offset((row + t) * stride + column)
                if column + 16 <= columns:
                    var before = Row(0) if first else place.unsafe_load[width=16]()
                    place.unsafe_store(0, before + lines[t])
                else:
                    for n in range(columns - column):
                        var before = Float32(0) if first else place.unsafe_load(n)
                        place.unsafe_store(n, before + lines[t][n])


@fieldwise_init
struct TileInputs(TrivialRegisterPassable):
    """Right operands: `[block][group of 32 rows][step][half][pair][row][element of the pair]`."""

    var start: Bytes
    var rows: Int
    var steps: Int

    def groups(self) -> Int:
        return ceildiv(self.rows, AMX_SIDE)

    def place(self, block: Int, group: Int) -> Bytes:
        var blocks = block * self.groups() + group
        return self.start.unsafe_offset(blocks * BLOCK_STEPS * PAIR_BYTES)

    def pack_row(self, x: Floats, row: Int):
        var within = row % AMX_SIDE
        for s in range(self.steps):
            var step = self.place(s // BLOCK_STEPS, row // AMX_SIDE)
            step = step.unsafe_offset(s % BLOCK_STEPS * PAIR_BYTES + within // 16 * TILE_BYTES)
            var values = x.unsafe_load[width=AMX_STEP](s * AMX_STEP).cast[DType.bfloat16]()
            var pairs = bitcast[DType.uint32, 16](values)
            comptime for k in range(16):
                step.unsafe_bitcast[UInt32]().unsafe_store(k * 16 + within % 16, pairs[k])


@no_inline
def amx_columns[
    F: Format
](weights: Matrix, inputs: TileInputs, output: Floats, width: Int, column0: Int, column1: Int):
    """`output[:, column0:column1]`, 32 weight rows at a time."""
    var packed = scratch(BLOCK_STEPS * PAIR_BYTES)
    var sums = scratch(4 * TILE_BYTES)
    comptime CHUNK = AMX_CHUNK // AMX_SIDE
    open_tiles()
    for chunk in range(0, inputs.groups(), CHUNK):
        for first in range(0, inputs.steps, BLOCK_STEPS):
            var steps = min(BLOCK_STEPS, inputs.steps - first)
            for n in range(column0, column1, AMX_SIDE):
                var columns = min(AMX_SIDE, column1 - n)
                var rows = Matrix(weights.row(n), weights.row_bytes)
                pack_weights[F, BFloat16Format](rows, first, steps, columns, AMX_SIDE, packed)
                for group in range(chunk, min(inputs.groups(), chunk + CHUNK)):
                    var place = inputs.place(first // BLOCK_STEPS, group)
                    tile_sums(packed, place, steps, sums)
                    add_sums(
                        sums,
                        columns,
                        inputs.rows - group * AMX_SIDE,
                        first == 0,
                        output.unsafe_offset(group * AMX_SIDE * width + n),
                        width,
                    )
    close_tiles()
    packed.unsafe_free()
    sums.unsafe_free()


@no_inline
def amx_product[
    F: Format, E: Epilogue
](x: Floats, weights: Matrix, output: Floats, rows: Int, width: Int, depth: Int, norm: Norm, epilogue: E):
    """See `linear`; `depth` is a whole number of steps."""
    var steps = depth // AMX_STEP
    var size = align_up(steps, BLOCK_STEPS) * align_up(rows, AMX_SIDE) * 2 * AMX_STEP
    var space = scratch(size)
    var inputs = TileInputs(space, rows, steps)
    var threads = threads_for(width * weights.row_bytes)

    def pack(row0: Int, row1: Int) {imm}:
        var normed = scratch(4 * depth)
        for row in range(row0, row1):
            var source = norm.row(x.unsafe_offset(row * depth), depth, normed.unsafe_bitcast[Float32]())
            inputs.pack_row(source, row)
        normed.unsafe_free()

    over_rows(pack, rows, threads)

    def multiply(column0: Int, column1: Int) {imm}:
        amx_columns[F](weights, inputs, output, width, column0, column1)
        for t in range(rows):
            var place = output.unsafe_offset(t * width + column0)
            epilogue.apply(place, t, column0, column1 - column0)

    in_shares(multiply, width, threads, SHARES, AMX_SIDE)
    space.unsafe_free()

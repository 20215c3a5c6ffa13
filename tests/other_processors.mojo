"""Products of every weight format against sums in float64, printed as `name depth rows error different`: built for one
processor after the other by test_other_processors.py."""

from std.math import sqrt
from std.memory.alloc import unsafe_alloc

from kernels.layout import lay_out_panels
from kernels.linear_amx import tiles_if_allowed
from kernels.linear_blocks import BlockFormat
from kernels.linear_epilogue import Identity
from kernels.linear_floats import BFloat16Format, Float32Format, HAS_BF16_DOT
from kernels.linear_formats import Bytes, Floats, Format, LANES, PANEL
from kernels.linear_inputs import Norm
from kernels.linear_panels import Weights
from kernels.linear_product import Product
from kernels.linear_superblocks import SuperblockFormat

comptime WIDTH = 45


def random(mut state: UInt32) -> UInt32:
    state = state * 1664525 + 1013904223
    return state >> 16


def fill_weights[F: Format](weights: Bytes, row_bytes: Int, mut state: UInt32):
    """Random bytes, with scales (float16) and elements of float types small."""
    comptime SIZE = F.UNIT_BYTES
    for i in range(0, WIDTH * row_bytes, SIZE):
        var place = weights.unsafe_offset(i)
        comptime if F.UNIT <= 2:
            comptime for j in range(F.UNIT):
                var value = Float32(random(state)) / 32768 - 1
                comptime if F.UNIT == 1:
                    place.unsafe_bitcast[Float32]().unsafe_store(j, value)
                else:
                    place.unsafe_bitcast[BFloat16]().unsafe_store(j, value.cast[DType.bfloat16]())
        else:
            for j in range(SIZE):
                place.unsafe_store(j, random(state).cast[DType.uint8]())
            # the upper halves of q6_k's scale, or of the scale and of q4_k's minimum
            comptime LAST = 209 if SIZE == 210 else 1
            place.unsafe_store(LAST, place.unsafe_load(LAST) & 0x1F)
            comptime if SIZE == 144:
                place.unsafe_store(3, place.unsafe_load(3) & 0x1F)


def worst_error[F: Format](weights: Bytes, row_bytes: Int, x: Floats, y: Floats, rows: Int, depth: Int) -> Float64:
    """Largest error of a sum, in units of the root of its squared products."""
    var worst = Float64(0)
    for t in range(rows):
        for n in range(WIDTH):
            var sum = Float64(0)
            var size = Float64(1e-30)
            for unit in range(depth // F.UNIT):
                var values = F.decode(weights.unsafe_offset(n * row_bytes), unit)
                comptime for i in range(F.UNIT):
                    var at = t * depth + unit * F.UNIT + i
                    var product = Float64(values[i]) * Float64(x.unsafe_load(at))
                    sum += product
                    size += product * product
            var error = abs(sum - Float64(y.unsafe_load(t * WIDTH + n)))
            worst = max(worst, error / sqrt(size))
    return worst


def multiply[F: Format, panels: Bool](weights: Bytes, row_bytes: Int, x: Floats, y: Floats, rows: Int, depth: Int):
    var all = Weights(weights, WIDTH, row_bytes)
    Product[F, panels](x, all, y, rows, depth, Norm(x, -1), Identity(), tiles_if_allowed()).run()


def check[F: Format](name: String, depth: Int):
    """Some rows with both layouts; the number of sums of a batch that differ from those of its rows alone, or of the
    other layout, is the last of a line's numbers."""
    var row_bytes = depth * F.UNIT_BYTES // F.UNIT
    var weights = rebind[Bytes](unsafe_alloc[UInt8](WIDTH * row_bytes + 64, alignment=64))
    var state = UInt32(12345)
    fill_weights[F](weights, row_bytes, state)
    var panel_bytes = row_bytes * PANEL
    var panels = rebind[Bytes](unsafe_alloc[UInt8](2 * panel_bytes, alignment=64))
    lay_out_panels[F](Weights(weights, WIDTH, row_bytes), panels, panel_bytes)
    for rows in [1, 3, 9, 64, 70, 505]:  # with tiles the last is read beyond its end
        var x = rebind[Floats](unsafe_alloc[Float32](rows * depth, alignment=64))
        for i in range(rows * depth):
            x.unsafe_store(i, Float32(random(state)) / 32768 - 1)
        var y = rebind[Floats](unsafe_alloc[Float32](rows * WIDTH, alignment=64))
        var other = rebind[Floats](unsafe_alloc[Float32](rows * WIDTH, alignment=64))
        multiply[F, True](panels, row_bytes, x, y, rows, depth)
        multiply[F, False](weights, row_bytes, x, other, rows, depth)
        var different = 0
        for i in range(rows * WIDTH):
            different += 1 if y.unsafe_load(i) != other.unsafe_load(i) else 0
        for t in range(rows):
            multiply[F, True](panels, row_bytes, x.unsafe_offset(t * depth), other, 1, depth)
            for n in range(WIDTH):
                different += 1 if y.unsafe_load(t * WIDTH + n) != other.unsafe_load(n) else 0
        print(name, depth, rows, worst_error[F](weights, row_bytes, x, y, rows, depth), different)


def main():
    print("lanes", LANES)
    check[Float32Format]("float32", 777)
    check[BFloat16Format[HAS_BF16_DOT]]("bfloat16", 768)
    check[BlockFormat[8]]("q8_0", 1632)
    check[BlockFormat[4]]("q4_0", 1632)
    check[SuperblockFormat[4]]("q4_k", 1792)
    check[SuperblockFormat[6]]("q6_k", 1792)

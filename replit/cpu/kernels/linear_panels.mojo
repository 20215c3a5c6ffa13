"""Many activation rows times quantized weights in 8-bit integers (AVX512-VNNI).

Weight rows stand side by side in the lanes of vectors, four elements of each in a lane: panels. So the sums of
a tile are stored as they are, without a sum across lanes. Activations are quantized as for a few rows, so both
round alike.
"""

from std.math import align_up, ceildiv
from std.memory import bitcast

from .linear_amx import Row, transpose
from .linear_epilogue import Epilogue
from .linear_formats import Bytes, Floats, Format, LANES, Vector, scratch
from .linear_inputs import Norm
from .linear_integer import HAS_AVX512_VNNI, Integers, dot4, quantize
from .threads import SHARES, in_shares, over_rows, threads_for
from .linear_weights import Matrix

comptime HAS_PANELS = HAS_AVX512_VNNI and LANES == 16
comptime PANELS = 2
comptime COLUMNS = PANELS * LANES
"""Weight rows of a tile."""
comptime TILE = 6
"""Activation rows of a tile: with both panels, 12 vectors of sums and 12 of a group's dot products."""
comptime UNIT = 64
"""Elements that are transposed together."""
comptime depth_of[F: Format] = 256 if F.GROUP == 256 else 512
"""Elements of a row in a block, whose panels fit in a first-level cache of 32 KiB: those that share a scale of the
activations, where these are many."""
comptime CHUNK = 96 * TILE
"""Activation rows whose block stays in the second-level cache."""


struct PanelInputs[F: Format](TrivialRegisterPassable):
    """Activations in 8 bits: `[block][tile][unit][row of the tile][element]`, each tile of a block followed by
    `[group][row]` of the dot products' starts (which make up for the offset of the codes), scales, and sums."""

    comptime GROUPS = depth_of[Self.F] // Self.F.CODE_GROUP
    comptime STARTS = TILE * depth_of[Self.F]
    comptime SCALES = Self.STARTS + 4 * TILE * Self.GROUPS
    comptime SUMS = Self.SCALES + 4 * TILE * Self.GROUPS
    comptime TILE_BYTES = Self.SUMS + 4 * TILE * Self.GROUPS

    var start: Bytes
    var rows: Int
    var depth: Int

    def __init__(out self, rows: Int, depth: Int):
        self.rows = rows
        self.depth = depth
        self.start = scratch(ceildiv(depth, depth_of[Self.F]) * ceildiv(rows, TILE) * Self.TILE_BYTES)

    def place(self, block: Int, tile: Int) -> Bytes:
        return self.start.unsafe_offset((block * ceildiv(self.rows, TILE) + tile) * Self.TILE_BYTES)

    def pack_row(self, x: Floats, row: Int):
        for k in range(0, self.depth, Self.F.GROUP):
            var values, scale = quantize[Self.F.GROUP](x.unsafe_load[width = Self.F.GROUP](k))
            comptime for g in range(Self.F.GROUP // Self.F.CODE_GROUP):
                comptime at = g * Self.F.CODE_GROUP
                self.put(row, k + at, values.slice[Self.F.CODE_GROUP, offset=at](), scale)
        for k in range(self.depth, align_up(self.depth, UNIT), Self.F.CODE_GROUP):
            self.put(row, k, SIMD[DType.int8, Self.F.CODE_GROUP](0), 0)

    @always_inline
    def put(self, row: Int, k: Int, values: SIMD[DType.int8, Self.F.CODE_GROUP], scale: Float32):
        var tile = self.place(k // depth_of[Self.F], row // TILE)
        var r = row % TILE
        var within = k % depth_of[Self.F]
        var place = tile.unsafe_offset((within // UNIT * TILE + r) * UNIT + within % UNIT)
        place.unsafe_bitcast[Int8]().unsafe_store(0, values)
        var sum = values.cast[DType.int32]().reduce_add()
        var group = tile.unsafe_offset(4 * (within // Self.F.CODE_GROUP * TILE + r))
        group.unsafe_offset(Self.STARTS).unsafe_bitcast[Int32]().unsafe_store(0, Int32(-Self.F.CODE_OFFSET) * sum)
        group.unsafe_offset(Self.SCALES).unsafe_bitcast[Float32]().unsafe_store(0, scale)
        var scaled = sum.cast[DType.float32]()
        comptime if depth_of[Self.F] != Self.F.GROUP:
            scaled *= scale
        group.unsafe_offset(Self.SUMS).unsafe_bitcast[Float32]().unsafe_store(0, scaled)


struct Panels[F: Format](TrivialRegisterPassable):
    """A block of `COLUMNS` weight rows: `[unit][panel][four elements][row]` of codes, then
    `[group][panel][row]` of scales and of minimums."""

    comptime GROUPS = depth_of[Self.F] // Self.F.CODE_GROUP
    comptime CODES = COLUMNS * depth_of[Self.F]
    comptime SCALES = COLUMNS * Self.GROUPS
    var codes: Bytes
    var scales: Floats
    var minimums: Floats
    var rows: Bytes
    """The codes of a panel's rows, `[row][element]`, before they are transposed."""

    def __init__(out self):
        self.codes = scratch(Self.CODES + 8 * Self.SCALES + LANES * depth_of[Self.F])
        self.scales = self.codes.unsafe_offset(Self.CODES).unsafe_bitcast[Float32]()
        self.minimums = self.scales.unsafe_offset(Self.SCALES)
        self.rows = self.codes.unsafe_offset(Self.CODES + 8 * Self.SCALES)

    @no_inline
    def pack(self, weights: Matrix, columns: Int, first: Int, last: Int):
        """Elements `first..last` of the rows; those beyond `columns` repeat the last one."""
        for panel in range(PANELS):
            for n in range(LANES):
                var column = panel * LANES + n
                var row = weights.row(min(column, columns - 1))
                for k in range(first, last, Self.F.GROUP):
                    var within = k - first
                    var at = within // Self.F.CODE_GROUP * COLUMNS + column
                    Self.F.unpack(
                        row,
                        k // Self.F.GROUP,
                        self.rows.unsafe_offset(n * depth_of[Self.F] + within),
                        self.scales.unsafe_offset(at),
                        self.minimums.unsafe_offset(at),
                        COLUMNS,
                    )
                for within in range(last - first, align_up(last - first, UNIT), Self.F.CODE_GROUP):
                    var at = within // Self.F.CODE_GROUP * COLUMNS + column
                    self.scales.unsafe_store(at, 0)
                    self.minimums.unsafe_store(at, 0)
            for unit in range(ceildiv(last - first, UNIT)):
                self.transpose_unit(unit, panel)

    def transpose_unit(self, unit: Int, panel: Int):
        var source = self.rows.unsafe_offset(unit * UNIT)
        var lines = Array[Row, 16](fill=Row(0))
        comptime for n in range(16):
            var line = source.unsafe_offset(n * depth_of[Self.F]).unsafe_bitcast[Float32]()
            lines[n] = line.unsafe_load[width=16]()
        transpose(lines)
        var dest = self.codes.unsafe_offset((unit * PANELS + panel) * LANES * UNIT)
        comptime for k in range(16):
            dest.unsafe_bitcast[Float32]().unsafe_store(k * 16, lines[k])


@no_inline
def panel_tile[
    F: Format
](panels: Panels[F], inputs: Bytes, units: Int, first: Bool, output: Floats, stride: Int, rows: Int, columns: Int):
    """Adds the products of one block to `output[rows, columns]`, or sets it when the block is the first."""
    comptime I = PanelInputs[F]
    var starts = inputs.unsafe_offset(I.STARTS).unsafe_bitcast[Int32]()
    var input_scales = inputs.unsafe_offset(I.SCALES).unsafe_bitcast[Float32]()
    var input_sums = inputs.unsafe_offset(I.SUMS).unsafe_bitcast[Float32]()
    var scales = panels.scales
    var minimums = panels.minimums
    var codes = panels.codes
    var values = inputs.unsafe_bitcast[Int32]()
    comptime SHARED_SCALE = depth_of[F] == F.GROUP
    var sums = Array[Vector, PANELS * TILE](fill=Vector(0))
    for _ in range(units):
        comptime for g in range(UNIT // F.CODE_GROUP):
            var dots = Array[Integers, PANELS * TILE](fill=Integers(0))
            comptime if F.CODE_OFFSET > 0:
                comptime for i in range(PANELS * TILE):
                    dots[i] = Integers(starts.unsafe_load(i // PANELS))
            comptime for q in range(F.CODE_GROUP // 4):
                comptime k = g * F.CODE_GROUP // 4 + q
                var a = codes.unsafe_load[width = 4 * LANES](k * 4 * LANES)
                var b = codes.unsafe_load[width = 4 * LANES]((16 + k) * 4 * LANES)
                comptime for r in range(TILE):
                    var x = bitcast[DType.int8, 4 * LANES](Integers(values.unsafe_load(r * 16 + k)))
                    dots[PANELS * r] = dot4(dots[PANELS * r], a, x)
                    dots[PANELS * r + 1] = dot4(dots[PANELS * r + 1], b, x)
            comptime for p in range(PANELS):
                var scale = scales.unsafe_load[width=LANES](p * LANES)
                comptime for r in range(TILE):
                    comptime i = PANELS * r + p
                    var dot = dots[i].cast[DType.float32]()
                    comptime if SHARED_SCALE:
                        sums[i] = dot.fma(scale, sums[i])
                    else:
                        sums[i] = dot.fma(scale * input_scales.unsafe_load(r), sums[i])
                comptime if F.HAS_MINIMUM:
                    var minimum = minimums.unsafe_load[width=LANES](p * LANES)
                    comptime for r in range(TILE):
                        comptime i = PANELS * r + p
                        sums[i] = minimum.fma(Vector(-input_sums.unsafe_load(r)), sums[i])
            starts = starts.unsafe_offset(TILE)
            comptime if not SHARED_SCALE:
                input_scales = input_scales.unsafe_offset(TILE)
            input_sums = input_sums.unsafe_offset(TILE)
            scales = scales.unsafe_offset(COLUMNS)
            minimums = minimums.unsafe_offset(COLUMNS)
        codes = codes.unsafe_offset(COLUMNS * UNIT)
        values = values.unsafe_offset(TILE * UNIT // 4)
    comptime for r in range(TILE):
        if r < rows:
            comptime for p in range(PANELS):
                var place = output.unsafe_offset(r * stride + p * LANES)
                var sum = sums[PANELS * r + p]
                comptime if SHARED_SCALE:
                    sum *= input_scales.unsafe_load(r)
                if (p + 1) * LANES <= columns:
                    place.unsafe_store(0, sum if first else sum + place.unsafe_load[width=LANES]())
                else:
                    for n in range(columns - p * LANES):
                        place.unsafe_store(n, sum[n] + (0 if first else place.unsafe_load(n)))


@no_inline
def panel_columns[
    F: Format
](weights: Matrix, inputs: PanelInputs[F], output: Floats, width: Int, column0: Int, column1: Int):
    """`output[:, column0:column1]`."""
    var panels = Panels[F]()
    for chunk in range(0, inputs.rows, CHUNK):
        for first in range(0, inputs.depth, depth_of[F]):
            var last = min(inputs.depth, first + depth_of[F])
            for n in range(column0, column1, COLUMNS):
                var columns = min(COLUMNS, column1 - n)
                panels.pack(Matrix(weights.row(n), weights.row_bytes), columns, first, last)
                for row in range(chunk, min(inputs.rows, chunk + CHUNK), TILE):
                    panel_tile[F](
                        panels,
                        inputs.place(first // depth_of[F], row // TILE),
                        ceildiv(last - first, UNIT),
                        first == 0,
                        output.unsafe_offset(row * width + n),
                        width,
                        inputs.rows - row,
                        columns,
                    )
    panels.codes.unsafe_free()


@no_inline
def panel_product[
    F: Format, E: Epilogue
](x: Floats, weights: Matrix, output: Floats, rows: Int, width: Int, depth: Int, norm: Norm, epilogue: E):
    """See `linear`; `depth` is a whole number of the format's blocks."""
    var inputs = PanelInputs[F](rows, depth)
    var threads = threads_for(width * weights.row_bytes * (1 + rows // TILE))

    def pack(row0: Int, row1: Int) {imm}:
        var normed = scratch(4 * depth)
        for row in range(row0, row1):
            var source = norm.row(x.unsafe_offset(row * depth), depth, normed.unsafe_bitcast[Float32]())
            inputs.pack_row(source, row)
        normed.unsafe_free()

    over_rows(pack, rows, threads)

    def multiply(column0: Int, column1: Int) {imm}:
        panel_columns[F](weights, inputs, output, width, column0, column1)
        for t in range(rows):
            var place = output.unsafe_offset(t * width + column0)
            epilogue.apply(place, t, column0, column1 - column0)

    in_shares(multiply, width, threads, SHARES, COLUMNS)
    inputs.start.unsafe_free()

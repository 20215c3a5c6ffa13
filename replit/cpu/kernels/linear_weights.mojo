"""Weight rows interleaved step by step for products with many activation rows.

Rows of a matrix are often a multiple of 4 KiB apart and would evict each other from the cache.
"""

from .linear_formats import Bytes, Format


@fieldwise_init
struct Matrix(TrivialRegisterPassable):
    """Weight rows as they are stored, `row_bytes` apart."""

    var start: Bytes
    var row_bytes: Int

    def row(self, n: Int) -> Bytes:
        return self.start.unsafe_offset(n * self.row_bytes)

    def check[F: Format](self, depth: Int) raises:
        """Raises if the rows are not those of `depth` inputs."""
        if self.row_bytes * F.STEP != depth * F.WEIGHT_BYTES:
            raise Error("weights have rows of ", self.row_bytes, " bytes, not those of ", depth, " inputs")


@no_inline
def copy_steps[
    F: Format
](weights: Matrix, first: Int, steps: Int, rows: Int, stride: Int, packed: Bytes):
    """Steps `first` and following of `rows` rows; a step of all rows takes `stride` of them."""
    comptime SIZE = F.WEIGHT_BYTES
    for s in range(steps):
        for n in range(rows):
            var source = weights.row(n).unsafe_offset((first + s) * SIZE)
            var dest = packed.unsafe_offset((s * stride + n) * SIZE)
            dest.unsafe_store(0, source.unsafe_load[width=SIZE]())


@no_inline
def expand_steps[
    F: Format, D: Format
](weights: Matrix, first: Int, steps: Int, rows: Int, stride: Int, packed: Bytes):
    """The same for steps of `D`, into which rows of `F` are expanded as bfloat16."""
    comptime PARTS = F.GROUP // D.STEP
    for n in range(rows):
        var dest = packed.unsafe_offset(n * D.WEIGHT_BYTES)
        for group in range(first // PARTS, (first + steps) // PARTS):
            var values = F.decode(weights.row(n), group).cast[DType.bfloat16]()
            comptime for i in range(PARTS):
                var part = values.slice[D.STEP, offset = i * D.STEP]()
                dest.unsafe_bitcast[BFloat16]().unsafe_store(0, part)
                dest = dest.unsafe_offset(stride * D.WEIGHT_BYTES)


@always_inline
def pack_weights[
    F: Format, D: Format
](weights: Matrix, first: Int, steps: Int, rows: Int, stride: Int, packed: Bytes):
    comptime if F.EXPANDED:
        expand_steps[F, D](weights, first, steps, rows, stride, packed)
    else:
        copy_steps[D](weights, first, steps, rows, stride, packed)

"""What happens to the finished sums of a linear layer: nothing, GELU, or the residual added."""

from std.math import erf
from .linear_formats import Floats, LANES


trait Epilogue(TrivialRegisterPassable):
    def apply(self, output: Floats, row: Int, column: Int, count: Int):
        """Changes `count` finished sums at `output`, which is `[row, column]` of the result."""
        ...


@fieldwise_init
struct Identity(Epilogue):
    def apply(self, output: Floats, row: Int, column: Int, count: Int):
        pass


@always_inline
def gelu[width: Int](x: SIMD[DType.float32, width]) -> SIMD[DType.float32, width]:
    return 0.5 * x * (1 + erf(x * 0.7071067811865476))


@fieldwise_init
struct Gelu(Epilogue):
    """The exact GELU, x * (1 + erf(x / sqrt 2)) / 2."""

    def apply(self, output: Floats, row: Int, column: Int, count: Int):
        var i = 0
        while i + LANES <= count:
            output.unsafe_store(i, gelu(output.unsafe_load[width=LANES](i)))
            i += LANES
        while i < count:
            output.unsafe_store(i, gelu[1](output.unsafe_load(i)))
            i += 1


@fieldwise_init
struct Clip(Epilogue):
    """At most `limit`, at least `-limit`."""

    var limit: Float32

    def apply(self, output: Floats, row: Int, column: Int, count: Int):
        for i in range(count):
            output.unsafe_store(i, max(-self.limit, min(self.limit, output.unsafe_load(i))))


@fieldwise_init
struct AddResidual(Epilogue):
    var residual: Floats
    var stride: Int

    def apply(self, output: Floats, row: Int, column: Int, count: Int):
        var source = self.residual.unsafe_offset(row * self.stride + column)
        for i in range(count):
            output.unsafe_store(i, output.unsafe_load(i) + source.unsafe_load(i))

"""A tile of dot products kept in registers: `T` activation rows by `N` weight rows."""

from std.sys import prefetch, PrefetchOptions
from std.memory import bitcast
from .linear_formats import Bytes, Floats, Format, LANES, Vector

comptime Flags = PrefetchOptions().for_read().high_locality().to_data_cache()


@always_inline
def sum_lanes(v: Vector) -> Float32:
    """Adds the lanes as a tree, always in the same order."""
    comptime if LANES == 16:
        var w = v.slice[8]() + v.slice[8, offset=8]()
        var q = w.slice[4]() + w.slice[4, offset=4]()
        var d = q.slice[2]() + q.slice[2, offset=2]()
        return d[0] + d[1]
    elif LANES == 8:
        var q = v.slice[4]() + v.slice[4, offset=4]()
        var d = q.slice[2]() + q.slice[2, offset=2]()
        return d[0] + d[1]
    else:
        var d = v.slice[2]() + v.slice[2, offset=2]()
        return d[0] + d[1]


@no_inline
def tile[F: Format, T: Int, N: Int](
    weights: Bytes, weight_stride: Int, ahead: Int,
    inputs: Bytes, input_stride: Int,
    steps: Int, first: Bool, output: Floats, output_stride: Int,
):
    var sums = Array[Vector, T * N](fill=Vector(0))
    var w = weights
    var x = inputs
    for _ in range(steps):
        comptime for n in range(N):
            prefetch[Flags](w.unsafe_offset(n * weight_stride + ahead))
        var rows = Array[F.Weights, N](fill_with=lambda (n: Int) -> F.Weights: F.load_weights(w.unsafe_offset(n * weight_stride)))
        comptime for t in range(T):
            var row = F.load_inputs(x.unsafe_offset(t * input_stride))
            comptime for n in range(N):
                sums[t * N + n] = F.add_product(sums[t * N + n], rows[n], row)
        w = w.unsafe_offset(F.WEIGHT_BYTES)
        x = x.unsafe_offset(F.INPUT_BYTES)
    comptime for t in range(T):
        comptime for n in range(N):
            var place = output.unsafe_offset(t * output_stride + n)
            var before = Float32(0) if first else place.unsafe_load()
            place.unsafe_store(before + sum_lanes(sums[t * N + n]))

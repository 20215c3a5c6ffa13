"""A tile of dot products kept in registers: `T` activation rows by `N` weight rows."""

from std.math import ceildiv
from std.sys import PrefetchOptions, prefetch

from .linear_formats import Bytes, Floats, Format, LANES, Vector

comptime READ = PrefetchOptions().for_read().medium_locality().to_data_cache()
"""To the second-level cache: the first is full with what is multiplied now (bfloat16: 32 GB/s, to the first 25)."""
comptime LINE = 64


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


@fieldwise_init
struct Rows(TrivialRegisterPassable):
    """Rows of bytes: `[n, step]` is at `start + n * stride + step * advance`."""

    var start: Bytes
    var stride: Int
    var advance: Int


@fieldwise_init
struct Ahead(TrivialRegisterPassable):
    """Rows to fetch into the cache while a tile is computed, a step at a time."""

    var start: Bytes
    var stride: Int
    var count: Int


@no_inline
def tile[
    F: Format, T: Int, N: Int
](weights: Rows, inputs: Bytes, steps: Int, ahead: Ahead, first: Bool, output: Floats, stride: Int):
    """Adds the products of one block to `output[T, N]`, or sets it when the block is the first.

    The inputs are interleaved: `T` rows of a step, then those of the next.
    """
    var sums = Array[Vector, T * N](fill=Vector(0))
    var w = weights.start
    var x = inputs
    var next = ahead.start
    for _ in range(steps):
        for row in range(ahead.count):
            comptime for line in range(ceildiv(F.WEIGHT_BYTES, LINE)):
                prefetch[READ](next.unsafe_offset(row * ahead.stride + line * LINE))
        next = next.unsafe_offset(F.WEIGHT_BYTES)
        var rows = Array[F.Weights, N](
            fill_with=lambda (n: Int) -> F.Weights: F.load_weights(
                w.unsafe_offset(n * weights.stride)
            )
        )
        comptime for t in range(T):
            var row = F.load_inputs(x.unsafe_offset(t * F.INPUT_BYTES))
            comptime for n in range(N):
                sums[t * N + n] = F.add_product(sums[t * N + n], rows[n], row)
        w = w.unsafe_offset(weights.advance)
        x = x.unsafe_offset(T * F.INPUT_BYTES)
    comptime for t in range(T):
        comptime for n in range(N):
            var place = output.unsafe_offset(t * stride + n)
            var before = Float32(0) if first else place.unsafe_load()
            place.unsafe_store(before + sum_lanes(sums[t * N + n]))

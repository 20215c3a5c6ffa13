"""The two products of attention and the softmax between them, for some queries and a block of keys.

They share no kernel with the linear layers: their operands are activations and cache, in float32 and the cache's type, used
once. Like those, each sum has one order, whatever the number of queries: a score adds up its elements one after the other, a
sum of values its keys.
"""

from std.math import exp, iota
from std.sys.intrinsics import prefetch

from .attention_cache import Elements, KEYS, KEY_BLOCK
from .linear_formats import COLUMNS, Floats, LANES, READ, Sums

comptime QUERIES = 6 if LANES >= 8 else 2
"""Rows of a register tile."""
comptime PANELS = 4 if LANES == 16 else 2 if LANES == 8 else 1
"""Panels of keys that go through together."""
comptime NEGLIGIBLE = Float32(-1.0e30)
"""Start of a running maximum: exp(NEGLIGIBLE - x) is 0, never NaN."""


@always_inline
def panels_of[rows: Int]() -> Int:
    """Panels whose scores with so many queries fit in the registers."""
    return 1 if LANES == 8 and rows > 2 else PANELS


@always_inline
def value_vectors[rows: Int]() -> Int:
    """Vectors of 16 sums of each of so many queries that fit in the registers, with the values."""
    comptime if LANES == 16:
        return 24 // rows
    return max(1, 4 // rows)


@no_inline
def score_tile[
    dtype: DType, size: Int, rows: Int
](queries: Floats, keys: Elements[dtype], scores: Floats, ahead: Elements[dtype], fetch: Bool):
    """`scores[rows, PANELS * KEYS] = queries[rows, size] . keys`; fetches as many keys `ahead`."""
    comptime TOGETHER = panels_of[rows]()
    comptime for first in range(0, PANELS, TOGETHER):
        var sums = Array[Sums, rows * TOGETHER](fill=Sums(0))
        for e in range(size):
            var row = keys.unsafe_offset((first * size + e) * KEYS)
            if fetch:
                comptime for p in range(TOGETHER):
                    prefetch[READ](ahead.unsafe_offset(((first + p) * size + e) * KEYS))
            var panels = Array[Sums, TOGETHER](
                fill_with=lambda (p: Int) -> Sums: row.unsafe_load[width=KEYS](p * size * KEYS).cast[DType.float32]()
            )
            comptime for r in range(rows):
                var query = Sums(queries.unsafe_load(r * size + e))
                comptime for p in range(TOGETHER):
                    sums[r * TOGETHER + p] = query.fma(panels[p], sums[r * TOGETHER + p])
        comptime for r in range(rows):
            comptime for p in range(TOGETHER):
                scores.unsafe_store(r * KEY_BLOCK + (first + p) * KEYS, sums[r * TOGETHER + p])


def score[
    dtype: DType, size: Int
](rows: Int, queries: Floats, keys: Elements[dtype], scores: Floats, ahead: Elements[dtype]):
    """`scores[rows, KEY_BLOCK] = queries[rows, size] . keys`, and fetches the keys `ahead`."""
    for first in range(0, KEY_BLOCK, PANELS * KEYS):
        for row in range(0, rows, QUERIES):
            comptime for count in range(1, QUERIES + 1):
                if min(QUERIES, rows - row) == count:
                    score_tile[dtype, size, count](
                        queries.unsafe_offset(row * size),
                        keys.unsafe_offset(first * size),
                        scores.unsafe_offset(row * KEY_BLOCK + first),
                        ahead.unsafe_offset(first * size),
                        row == 0,
                    )


@no_inline
def add_tile[
    dtype: DType, size: Int, rows: Int
](weights: Floats, values: Elements[dtype], count: Int, sums: Floats, ahead: Elements[dtype], fetch: Bool):
    """`sums[rows, size] += weights[rows, count] @ values[count, size]`; fetches as many values `ahead`."""
    comptime part = min(size, value_vectors[rows]() * COLUMNS)
    comptime for first in range(0, size, part):
        comptime vectors = min(part, size - first) // COLUMNS
        var totals = Array[Sums, rows * vectors](fill=Sums(0))
        comptime for i in range(rows * vectors):
            totals[i] = sums.unsafe_load[width=COLUMNS](i // vectors * size + first + i % vectors * COLUMNS)
        for k in range(count):
            var place = values.unsafe_offset(k * size + first)
            if fetch:
                comptime for v in range(vectors):
                    prefetch[READ](ahead.unsafe_offset(k * size + first + v * COLUMNS))
            var row = Array[Sums, vectors](
                fill_with=lambda (v: Int) -> Sums: place.unsafe_load[width=COLUMNS](v * COLUMNS).cast[DType.float32]()
            )
            comptime for r in range(rows):
                var weight = Sums(weights.unsafe_load(r * KEY_BLOCK + k))
                comptime for v in range(vectors):
                    totals[r * vectors + v] = weight.fma(row[v], totals[r * vectors + v])
        comptime for i in range(rows * vectors):
            sums.unsafe_store(i // vectors * size + first + i % vectors * COLUMNS, totals[i])


def add_values[
    dtype: DType, size: Int
](rows: Int, weights: Floats, values: Elements[dtype], count: Int, sums: Floats, ahead: Elements[dtype]):
    """`sums[rows, size] += weights[rows, count] @ values[count, size]`, and fetches the values `ahead`."""
    for row in range(0, rows, QUERIES):
        comptime for tile in range(1, QUERIES + 1):
            if min(QUERIES, rows - row) == tile:
                add_tile[dtype, size, tile](
                    weights.unsafe_offset(row * KEY_BLOCK),
                    values,
                    count,
                    sums.unsafe_offset(row * size),
                    ahead,
                    row == 0,
                )


@inline(.always)
def scale_row[size: Int](row: Floats, factor: Float32):
    comptime for i in range(0, size, COLUMNS):
        row.unsafe_store(i, row.unsafe_load[width=COLUMNS](i) * factor)


@no_inline
def softmax_step[
    size: Int
](scores: Floats, visible: Int, bias: Float32, slope: Float32, row: Floats, maximum: Floats, total: Floats):
    """Turns the scores of one query with KEY_BLOCK keys into weights against the running maximum.

    The first `visible` keys take part; key `i` gets the ALiBi term `bias + slope * i`. `row`, the sum of values so
    far, and `total`, the sum of weights so far, are rescaled to the new maximum.
    """
    if visible <= 0:
        comptime for i in range(0, KEY_BLOCK, COLUMNS):
            scores.unsafe_store(i, Sums(0))
        return
    var before = maximum.unsafe_load()
    var highest = Sums(before)
    comptime for i in range(0, KEY_BLOCK, COLUMNS):
        var index = iota[DType.float32, COLUMNS](Float32(i))
        var score = scores.unsafe_load[width=COLUMNS](i) + index.fma(Sums(slope), Sums(bias))
        score = index.lt(Sums(Float32(visible))).select(score, Sums(NEGLIGIBLE))
        scores.unsafe_store(i, score)
        highest = max(highest, score)
    var after = highest.reduce_max()
    var sum = Sums(0)
    comptime for i in range(0, KEY_BLOCK, COLUMNS):
        var weight = exp(scores.unsafe_load[width=COLUMNS](i) - after)
        scores.unsafe_store(i, weight)
        sum += weight
    var so_far = total.unsafe_load()
    if after != before:
        var correction = exp(before - after)
        so_far *= correction
        scale_row[size](row, correction)
        maximum.unsafe_store(0, after)
    total.unsafe_store(0, so_far + sum.reduce_add())


@no_inline
def merge[
    size: Int
](row: Floats, maximum: Floats, total: Floats, other: Floats, other_maximum: Float32, other_total: Float32):
    """Adds to a query's sum of values, its maximum and its total those of the keys that follow."""
    var before = maximum.unsafe_load()
    var after = max(before, other_maximum)
    var old = exp(before - after)
    var new = exp(other_maximum - after)
    maximum.unsafe_store(0, after)
    total.unsafe_store(0, total.unsafe_load() * old + other_total * new)
    comptime for i in range(0, size, COLUMNS):
        var sum = row.unsafe_load[width=COLUMNS](i) * old
        row.unsafe_store(i, other.unsafe_load[width=COLUMNS](i).fma(Sums(new), sum))

"""Causal ALiBi attention over MAX's paged key-value cache, on the CPU in float32.

One call stores the new keys and values in their pages, then attends. A sequence with a single new token
takes the decode path: each key and value is read once for all query heads of its group, in chunks of fixed
size, so that its result depends neither on the rest of the batch nor on the number of threads. Longer inputs
go through in blocks of queries, as two small matrix products with an online softmax between them.

Within a page the positions of a head lie one after the other, `[key or value, layer, kv head, slot, element]`: as MAX
declares it, with the heads of a position together, a head's keys are as far apart as pages of memory are large,
which no prefetcher follows (15 GB/s where this reads 30). Nothing else looks into the pages.
"""

import extensibility
from extensibility import InputTensor, OutputTensor
from extensibility import _MutableInputTensor as MutableInputTensor
from max.gpu.host import DeviceContext
from max.runtime.asyncrt import parallelism_level
from std.math import align_up, ceildiv, exp, iota
from std.sys import simd_width_of
from std.sys.info import CompilationTarget
from std.sys.intrinsics import PrefetchOptions, prefetch

from .threads import Phases, Team, on_threads

comptime Floats = Pointer[Float32, MutUntrackedOrigin]
comptime Indices = Pointer[UInt32, MutUntrackedOrigin]

comptime WIDTH = simd_width_of[DType.float32]()
comptime Vector = SIMD[DType.float32, WIDTH]
# A register tile of the small matrix products: TILE_ROWS x TILE_VECTORS accumulators.
comptime TILE_ROWS = 6
comptime TILE_VECTORS = 4 if CompilationTarget.has_avx512f() else 2
comptime KEY_BLOCK = 64  # keys scored at a time; divides the page size, so a block never crosses pages
comptime BLOCK_ROWS = 96  # rows (queries x heads of a group) of a prefill block; a multiple of TILE_ROWS
comptime CHUNK = 1024  # keys of one piece of decode work; a multiple of KEY_BLOCK
comptime SUMS = 24 if CompilationTarget.has_avx512f() else 12  # vectors of sums that fit in the registers
comptime KEYS_AT_ONCE = 4  # keys scored together: each part of a query is loaded once for them
# The block that comes next goes to the second-level cache: with the present one it does not fit in the first.
comptime TO_SECOND_LEVEL = PrefetchOptions().for_read().medium_locality()
comptime ATTENTION_PHASES = 3
comptime LINE = 16  # floats of a cache line
comptime NEGLIGIBLE = Float32(-1.0e30)  # start of a running maximum: exp(NEGLIGIBLE - x) is 0, never NaN
# Below this many multiply-adds a second thread costs more than it saves.
comptime WORTH_A_THREAD = 1 << 17


@fieldwise_init
struct Layer(Copyable, ImplicitlyCopyable, Movable):
    """One layer of the cache, `blocks[page, key or value, layer, kv head, slot, element]`, and its heads."""

    var blocks: Floats
    var pages: Indices  # page of each block of positions, [sequences, pages_per_sequence]
    var pages_per_sequence: Int
    var page_size: Int
    var page_stride: Int
    var stride: Int  # to the next layer
    var value_offset: Int  # from a key to its value
    var size: Int  # of a head
    var n_kv_heads: Int
    var group: Int  # query heads of one kv head
    var scale: Float32
    var slopes: Floats  # ALiBi, [heads]

    @inline(.always)
    def keys(self, sequence: Int, position: Int, kv_head: Int) -> Floats:
        """The key of a position; those of the following positions of its page come after it."""
        var page = Int(self.pages[unsafe_offset=sequence * self.pages_per_sequence + position // self.page_size])
        var slot = kv_head * self.page_size + position % self.page_size
        return self.blocks.unsafe_offset(page * self.page_stride + slot * self.size)

    def following(self, count: Int) -> Self:
        """The layer that many further on."""
        var layer = self
        layer.blocks = self.blocks.unsafe_offset(count * self.stride)
        return layer


@fieldwise_init
struct Sequence(Copyable, ImplicitlyCopyable, Movable):
    """The new tokens of one sequence: rows `start .. start + length` of the batch, positions from `cached` on."""

    var index: Int
    var start: Int
    var length: Int
    var cached: Int
    var first_task: Int  # its first piece of work

    def chunks(self) -> Int:
        """Pieces of work of each kv head if there is one new token, else 0."""
        return ceildiv(self.cached + 1, CHUNK) if self.length == 1 else 0


@inline(.always)
def copy(destination: Floats, source: Floats, count: Int):
    for i in range(0, count, WIDTH):
        destination.unsafe_store(i, source.unsafe_load[width=WIDTH](i))


# --- small matrix products ---------------------------------------------------------------------------------


def matmul_tile[
    rows: Int, vectors: Int
](a: Floats, a_stride: Int, b: Floats, b_stride: Int, c: Floats, c_stride: Int, depth: Int, accumulate: Bool):
    """`c[rows, vectors * WIDTH] (+)= a[rows, depth] @ b[depth, vectors * WIDTH]`, all sums in registers."""
    var sums = Array[Vector, rows * vectors](fill=0)
    if accumulate:
        comptime for r in range(rows):
            comptime for v in range(vectors):
                sums[r * vectors + v] = c.unsafe_load[width=WIDTH](r * c_stride + v * WIDTH)
    for k in range(depth):
        var row = b.unsafe_offset(k * b_stride)
        comptime for r in range(rows):
            var scalar = Vector(a[unsafe_offset=r * a_stride + k])
            comptime for v in range(vectors):
                sums[r * vectors + v] = scalar.fma(row.unsafe_load[width=WIDTH](v * WIDTH), sums[r * vectors + v])
    comptime for r in range(rows):
        comptime for v in range(vectors):
            c.unsafe_store(r * c_stride + v * WIDTH, sums[r * vectors + v])


def matmul[
    columns: Int
](rows: Int, a: Floats, a_stride: Int, b: Floats, b_stride: Int, c: Floats, depth: Int, accumulate: Bool):
    """`c[rows, columns] (+)= a[rows, depth] @ b[depth, columns]`; `rows` is a multiple of TILE_ROWS."""
    comptime tile = TILE_VECTORS * WIDTH
    comptime rest = columns % tile // WIDTH
    for r in range(0, rows, TILE_ROWS):
        var a_rows = a.unsafe_offset(r * a_stride)
        var c_rows = c.unsafe_offset(r * columns)
        comptime for i in range(columns // tile):
            matmul_tile[TILE_ROWS, TILE_VECTORS](
                a_rows, a_stride, b.unsafe_offset(i * tile), b_stride, c_rows.unsafe_offset(i * tile), columns, depth, accumulate
            )
        comptime if rest > 0:
            comptime done = columns - columns % tile
            matmul_tile[TILE_ROWS, rest](
                a_rows, a_stride, b.unsafe_offset(done), b_stride, c_rows.unsafe_offset(done), columns, depth, accumulate
            )


# --- softmax -----------------------------------------------------------------------------------------------


@inline(.always)
def softmax_step[
    size: Int
](scores: Floats, visible: Int, bias: Float32, slope: Float32, row: Floats, mut maximum: Float32, mut total: Float32):
    """Turns the scores of one query with KEY_BLOCK keys into weights against the running maximum.

    The first `visible` keys take part; key `i` gets the ALiBi term `bias + slope * i`. `row`, the sum of values so
    far, and `total`, the sum of weights so far, are rescaled to the new maximum.
    """
    var highest = Vector(maximum)
    comptime for i in range(0, KEY_BLOCK, WIDTH):
        var index = iota[DType.float32, WIDTH](Float32(i))
        var score = scores.unsafe_load[width=WIDTH](i) + index.fma(Vector(slope), Vector(bias))
        score = index.lt(Vector(Float32(visible))).select(score, Vector(NEGLIGIBLE))
        scores.unsafe_store(i, score)
        highest = max(highest, score)
    var new_maximum = highest.reduce_max()
    var sum = Vector(0)
    comptime for i in range(0, KEY_BLOCK, WIDTH):
        var weight = exp(scores.unsafe_load[width=WIDTH](i) - new_maximum)
        scores.unsafe_store(i, weight)
        sum += weight
    if new_maximum != maximum:
        var correction = exp(maximum - new_maximum)
        total *= correction
        comptime for i in range(0, size, WIDTH):
            row.unsafe_store(i, row.unsafe_load[width=WIDTH](i) * correction)
        maximum = new_maximum
    total += sum.reduce_add()


# --- prefill -----------------------------------------------------------------------------------------------


def transpose_keys[size: Int](keys: Floats, count: Int, transposed: Floats):
    """Lays `count` keys out as columns, `[size, KEY_BLOCK]`; the columns beyond them are zero."""
    for i in range(KEY_BLOCK):
        var key = keys.unsafe_offset(i * size)
        for e in range(size):
            transposed[unsafe_offset=e * KEY_BLOCK + i] = key[unsafe_offset=e] if i < count else Float32(0)


def attend_block[
    size: Int
](layer: Layer, sequence: Sequence, kv_head: Int, first: Int, count: Int, q: Floats, q_stride: Int, output: Floats, scratch: Floats):
    """Attention of queries `first .. first + count` of a sequence, for the heads of one group.

    Rows of the block are (query, head) pairs, heads fastest. `scratch` holds `Attention.BLOCK_FLOATS`.
    """
    var group = layer.group
    var rows = count * group
    var padded = align_up(rows, TILE_ROWS)
    var queries = scratch  # [BLOCK_ROWS, size], scaled
    var values = queries.unsafe_offset(BLOCK_ROWS * size)  # [BLOCK_ROWS, size]
    var transposed = values.unsafe_offset(BLOCK_ROWS * size)  # [size, KEY_BLOCK]
    var scores = transposed.unsafe_offset(size * KEY_BLOCK)  # [BLOCK_ROWS, KEY_BLOCK]
    var maxima = scores.unsafe_offset(BLOCK_ROWS * KEY_BLOCK)  # [BLOCK_ROWS]
    var totals = maxima.unsafe_offset(BLOCK_ROWS)  # [BLOCK_ROWS]
    for r in range(padded):
        var token = sequence.start + first + min(r, rows - 1) // group
        var head = kv_head * group + min(r, rows - 1) % group
        var query = q.unsafe_offset(token * q_stride + head * size)
        comptime for i in range(0, size, WIDTH):
            queries.unsafe_store(r * size + i, query.unsafe_load[width=WIDTH](i) * layer.scale)
            values.unsafe_store(r * size + i, Vector(0))
        maxima[unsafe_offset=r] = NEGLIGIBLE
        totals[unsafe_offset=r] = 0

    var end = sequence.cached + first + count  # keys that the last query sees
    for key in range(0, end, KEY_BLOCK):
        var keys = layer.keys(sequence.index, key, kv_head)
        var present = min(KEY_BLOCK, end - key)
        transpose_keys[size](keys, present, transposed)
        matmul[KEY_BLOCK](padded, queries, size, transposed, KEY_BLOCK, scores, size, False)
        for r in range(rows):
            var position = sequence.cached + first + r // group
            var slope = layer.slopes[unsafe_offset=kv_head * group + r % group]
            softmax_step[size](
                scores.unsafe_offset(r * KEY_BLOCK),
                position + 1 - key,
                slope * Float32(key - position),
                slope,
                values.unsafe_offset(r * size),
                maxima[unsafe_offset=r],
                totals[unsafe_offset=r],
            )
        var block_values = keys.unsafe_offset(layer.value_offset)
        matmul[size](padded, scores, KEY_BLOCK, block_values, size, values, present, True)

    for r in range(rows):
        var token = sequence.start + first + r // group
        var head = kv_head * group + r % group
        var row = output.unsafe_offset((token * layer.n_kv_heads * group + head) * size)
        var factor = 1 / totals[unsafe_offset=r]
        comptime for i in range(0, size, WIDTH):
            row.unsafe_store(i, values.unsafe_load[width=WIDTH](r * size + i) * factor)


# --- decode ------------------------------------------------------------------------------------------------


@inline(.always)
def fetch[count: Int](place: Floats):
    """Fetches `count` floats ahead of their use."""
    comptime for i in range(0, count, LINE):
        prefetch[TO_SECOND_LEVEL](place.unsafe_offset(i))


@inline(.always)
def score_some[
    size: Int, rows: Int, count: Int
](queries: Floats, keys: Floats, scores: Floats):
    """`scores[rows, KEY_BLOCK] = queries[rows, size] . keys[count, size]`, all sums in registers."""
    var sums = Array[Vector, rows * count](fill=0)
    comptime for e in range(0, size, WIDTH):
        comptime for i in range(count):
            var part = keys.unsafe_load[width=WIDTH](i * size + e)
            comptime for r in range(rows):
                sums[i * rows + r] = part.fma(queries.unsafe_load[width=WIDTH](r * size + e), sums[i * rows + r])
    comptime for r in range(rows):
        comptime for i in range(count):
            scores[unsafe_offset=r * KEY_BLOCK + i] = sums[i * rows + r].reduce_add()


@inline(.always)
def score_keys[
    size: Int, rows: Int
](queries: Floats, keys: Floats, count: Int, scores: Floats, ahead: Floats):
    """Scores `count` keys, each loaded once, and fetches as many `ahead`."""
    comptime together = max(1, min(KEYS_AT_ONCE, SUMS // 2 // rows))
    var whole = count // together * together
    for i in range(0, whole, together):
        fetch[together * size](ahead.unsafe_offset(i * size))
        score_some[size, rows, together](queries, keys.unsafe_offset(i * size), scores.unsafe_offset(i))
    for i in range(whole, count):
        score_some[size, rows, 1](queries, keys.unsafe_offset(i * size), scores.unsafe_offset(i))


@inline(.always)
def add_values[
    size: Int, rows: Int
](weights: Floats, values: Floats, count: Int, sums: Floats, ahead: Floats):
    """`sums[rows, size] += weights[rows, count] @ values[count, size]`, and fetches as many values `ahead`."""
    comptime part = min(size, SUMS // rows * WIDTH)
    comptime for first in range(0, size, part):
        comptime n = min(part, size - first)
        comptime vectors = n // WIDTH
        var totals = Array[Vector, rows * vectors](fill=0)
        comptime for i in range(rows * vectors):
            totals[i] = sums.unsafe_load[width=WIDTH](i // vectors * size + first + i % vectors * WIDTH)
        for i in range(count):
            var place = i * size + first
            fetch[n](ahead.unsafe_offset(place))
            comptime for v in range(vectors):
                var value = values.unsafe_load[width=WIDTH](place + v * WIDTH)
                comptime for r in range(rows):
                    var weight = Vector(weights[unsafe_offset=r * KEY_BLOCK + i])
                    totals[r * vectors + v] = weight.fma(value, totals[r * vectors + v])
        comptime for i in range(rows * vectors):
            sums.unsafe_store(i // vectors * size + first + i % vectors * WIDTH, totals[i])


def attend_chunk[
    size: Int, rows: Int
](layer: Layer, sequence: Sequence, head: Int, kv_head: Int, begin: Int, end: Int, q: Floats, partial: Floats):
    """Attention of one query over keys `begin .. end`, for `rows` heads of one group from `head` on.

    Writes for each head its sum of weighted values, their total weight and their maximum: `[rows, size + 2]`.
    """
    comptime record = size + 2
    var queries_storage = Array[Float32, rows * size](fill=0)
    var sums_storage = Array[Float32, rows * size](fill=0)
    var scores_storage = Array[Float32, rows * KEY_BLOCK](fill=0)
    var queries = queries_storage.unsafe_ptr().unsafe_origin_cast[MutUntrackedOrigin]()
    var sums = sums_storage.unsafe_ptr().unsafe_origin_cast[MutUntrackedOrigin]()
    var scores = scores_storage.unsafe_ptr().unsafe_origin_cast[MutUntrackedOrigin]()
    var maxima = Array[Float32, rows](fill=NEGLIGIBLE)
    var totals = Array[Float32, rows](fill=0)
    comptime for i in range(0, rows * size, WIDTH):
        queries.unsafe_store(i, q.unsafe_load[width=WIDTH](head * size + i) * layer.scale)
    for key in range(begin, end, KEY_BLOCK):
        var keys = layer.keys(sequence.index, key, kv_head)
        var count = min(KEY_BLOCK, end - key)
        var next = layer.keys(sequence.index, key + KEY_BLOCK, kv_head) if key + KEY_BLOCK < end else keys
        score_keys[size, rows](queries, keys, count, scores, next)
        comptime for r in range(rows):
            var slope = layer.slopes[unsafe_offset=head + r]
            var bias = slope * Float32(key - sequence.cached)
            softmax_step[size](
                scores.unsafe_offset(r * KEY_BLOCK), count, bias, slope, sums.unsafe_offset(r * size), maxima[r], totals[r]
            )
        var values = keys.unsafe_offset(layer.value_offset)
        add_values[size, rows](scores, values, count, sums, next.unsafe_offset(layer.value_offset))
    comptime for r in range(rows):
        copy(partial.unsafe_offset(r * record), sums.unsafe_offset(r * size), size)
        partial[unsafe_offset=r * record + size] = totals[r]
        partial[unsafe_offset=r * record + size + 1] = maxima[r]
    # The pointers do not keep their storage alive.
    _ = queries_storage^
    _ = sums_storage^
    _ = scores_storage^


def attend_group_chunk[
    size: Int
](layer: Layer, sequence: Sequence, kv_head: Int, begin: Int, end: Int, q: Floats, partial: Floats):
    """`attend_chunk` for all heads of a group, as many at a time as registers hold."""
    var first = kv_head * layer.group
    var done = 0
    while done < layer.group:
        var head = first + done
        var record = partial.unsafe_offset(done * (size + 2))
        var left = layer.group - done
        if left >= 4:
            attend_chunk[size, 4](layer, sequence, head, kv_head, begin, end, q, record)
            done += 4
        elif left == 3:
            attend_chunk[size, 3](layer, sequence, head, kv_head, begin, end, q, record)
            done += 3
        elif left == 2:
            attend_chunk[size, 2](layer, sequence, head, kv_head, begin, end, q, record)
            done += 2
        else:
            attend_chunk[size, 1](layer, sequence, head, kv_head, begin, end, q, record)
            done += 1


def merge_chunks[size: Int](partials: Floats, chunks: Int, chunk_stride: Int, output: Floats):
    """The attention of one head from the records of its chunks, in order."""
    var maximum = NEGLIGIBLE
    for c in range(chunks):
        maximum = max(maximum, partials[unsafe_offset=c * chunk_stride + size + 1])
    var total = Float32(0)
    comptime for i in range(0, size, WIDTH):
        output.unsafe_store(i, Vector(0))
    for c in range(chunks):
        var record = partials.unsafe_offset(c * chunk_stride)
        var factor = exp(record[unsafe_offset=size + 1] - maximum)
        total += record[unsafe_offset=size] * factor
        comptime for i in range(0, size, WIDTH):
            output.unsafe_store(i, record.unsafe_load[width=WIDTH](i).fma(Vector(factor), output.unsafe_load[width=WIDTH](i)))
    comptime for i in range(0, size, WIDTH):
        output.unsafe_store(i, output.unsafe_load[width=WIDTH](i) / total)


# --- the op ------------------------------------------------------------------------------------------------


@extensibility.register("replit.attention")
struct PagedAlibiAttention:
    """`output[T, H * D]` from the fused `qkv[T, (H + 2K) * D]` of a ragged batch, see the module's head.

    Raises if a group has more query heads than a block has rows, or if a page is no multiple of KEY_BLOCK.
    """

    @staticmethod
    def execute[
        head_size: Int,
        n_heads: Int,
        target: StaticString,
    ](
        output: OutputTensor[dtype=DType.float32, rank=2, ...],
        qkv: InputTensor[dtype=DType.float32, rank=2, ...],
        row_offsets: InputTensor[dtype=DType.uint32, rank=1, ...],
        blocks: MutableInputTensor[dtype=DType.float32, rank=6, ...],
        page_stride: InputTensor[dtype=DType.int64, rank=1, ...],
        cache_lengths: InputTensor[dtype=DType.uint32, rank=1, ...],
        lookup_table: InputTensor[dtype=DType.uint32, rank=2, ...],
        slopes: InputTensor[dtype=DType.float32, rank=1, ...],
        layer_index: UInt32,
        scale: Float32,
        ctx: DeviceContext,
    ) raises:
        var layer = layer_of[head_size, n_heads](blocks, page_stride, lookup_table, slopes, layer_index, scale)
        var sequences = split(row_offsets, cache_lengths, layer)
        var attention = Attention[head_size](layer, sequences^, floats(qkv.unsafe_ptr()), floats(output.unsafe_ptr()))
        attention.run(layer)


def layer_of[
    head_size: Int, n_heads: Int
](
    blocks: MutableInputTensor[dtype=DType.float32, rank=6, ...],
    page_stride: InputTensor[dtype=DType.int64, rank=1, ...],
    lookup_table: InputTensor[dtype=DType.uint32, rank=2, ...],
    slopes: InputTensor[dtype=DType.float32, rank=1, ...],
    layer_index: UInt32,
    scale: Float32,
) raises -> Layer:
    comptime assert head_size % WIDTH == 0, "the head size must be a multiple of the vector width"
    var shape = blocks.shape()
    var n_kv_heads = shape[4]
    var layer_stride = shape[3] * n_kv_heads * head_size
    var stride = Int(page_stride.unsafe_ptr()[unsafe_offset=0])
    var layer = Layer(
        blocks=floats(blocks.unsafe_ptr()).unsafe_offset(Int(layer_index) * layer_stride),
        pages=indices(lookup_table.unsafe_ptr()),
        pages_per_sequence=lookup_table.shape()[1],
        page_size=shape[3],
        page_stride=stride if stride > 0 else 2 * shape[2] * layer_stride,
        stride=layer_stride,
        value_offset=shape[2] * layer_stride,
        size=head_size,
        n_kv_heads=n_kv_heads,
        group=n_heads // n_kv_heads,
        scale=scale,
        slopes=floats(slopes.unsafe_ptr()),
    )
    if layer.page_size % KEY_BLOCK != 0:
        raise Error("the page size must be a multiple of 64")
    if layer.group > BLOCK_ROWS:
        raise Error("more than 96 query heads share one key-value head")
    return layer


@inline(.always)
def floats(pointer: Pointer[Float32, _]) -> Floats:
    return pointer.unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin]()


@inline(.always)
def indices(pointer: Pointer[UInt32, _]) -> Indices:
    return pointer.unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin]()


def split(
    row_offsets: InputTensor[dtype=DType.uint32, rank=1, ...],
    cache_lengths: InputTensor[dtype=DType.uint32, rank=1, ...],
    layer: Layer,
) -> List[Sequence]:
    """The sequences of a batch, each with the number of its first piece of work; a last empty one ends the list."""
    var sequences = List[Sequence]()
    var tasks = 0
    var count = cache_lengths.shape()[0]
    for i in range(count):
        var start = Int(row_offsets.unsafe_ptr()[unsafe_offset=i])
        var length = Int(row_offsets.unsafe_ptr()[unsafe_offset=i + 1]) - start
        var cached = Int(cache_lengths.unsafe_ptr()[unsafe_offset=i])
        sequences.append(Sequence(i, start, length, cached, tasks))
        var pieces = ceildiv(cached + 1, CHUNK) if length == 1 else ceildiv(length, BLOCK_ROWS // layer.group)
        tasks += pieces * layer.n_kv_heads
    sequences.append(Sequence(count, 0, 0, 0, tasks))
    return sequences^


struct Attention[size: Int]:
    """Attention for a batch, in one layer or in several after each other: its pieces of work, and their records."""

    comptime BLOCK_FLOATS = 2 * BLOCK_ROWS * (Self.size + 1) + KEY_BLOCK * (Self.size + BLOCK_ROWS)
    var layer: Layer
    var sequences: List[Sequence]
    var qkv: Floats
    var output: Floats
    var partials: List[Float32]

    def __init__(out self, layer: Layer, var sequences: List[Sequence], qkv: Floats, output: Floats):
        self.layer = layer
        var count = sequences[len(sequences) - 1].first_task * layer.group * (Self.size + 2)
        self.sequences = sequences^
        self.qkv = qkv
        self.output = output
        self.partials = List[Float32](unsafe_uninit_length=count)

    def record(self) -> Int:
        """Floats of one piece of decode work."""
        return self.layer.group * (Self.size + 2)

    def n_heads(self) -> Int:
        return self.layer.n_kv_heads * self.layer.group

    def row_stride(self) -> Int:
        return (self.n_heads() + 2 * self.layer.n_kv_heads) * Self.size

    def tasks(self) -> Int:
        return self.sequences[len(self.sequences) - 1].first_task

    def threads(self) -> Int:
        """Threads that the work is worth."""
        var work = 0
        for i in range(len(self.sequences) - 1):
            ref sequence = self.sequences[i]
            work += sequence.length * (sequence.cached + sequence.length) * self.n_heads() * Self.size * 2
        return max(1, min(min(parallelism_level(None), self.tasks()), work // WORTH_A_THREAD))

    def store(self, layer: Layer):
        """The new keys and values of sequences with several new tokens into their pages."""
        for i in range(len(self.sequences) - 1):
            if self.sequences[i].length > 1:
                for kv_head in range(self.layer.n_kv_heads):
                    self.store_head(layer, self.sequences[i], kv_head)

    def store_head(self, layer: Layer, sequence: Sequence, kv_head: Int):
        """The new keys and values of one head into their pages."""
        for i in range(sequence.length):
            var row = self.qkv.unsafe_offset((sequence.start + i) * self.row_stride())
            var key = row.unsafe_offset((self.n_heads() + kv_head) * Self.size)
            var slot = layer.keys(sequence.index, sequence.cached + i, kv_head)
            copy(slot, key, Self.size)
            var value = key.unsafe_offset(self.layer.n_kv_heads * Self.size)
            copy(slot.unsafe_offset(layer.value_offset), value, Self.size)

    def place(self, task: Int, head_of_group: Int) -> Floats:
        """The record of a head."""
        var start = floats(self.partials.unsafe_ptr())
        return start.unsafe_offset(task * self.record() + head_of_group * (Self.size + 2))

    @no_inline
    def attend(self, layer: Layer, task: Int, space: Floats):
        """One piece of work; several new tokens need BLOCK_FLOATS of space."""
        var i = 0
        while self.sequences[i + 1].first_task <= task:
            i += 1
        var sequence = self.sequences[i]
        var pieces = (self.sequences[i + 1].first_task - sequence.first_task) // self.layer.n_kv_heads
        var kv_head = (task - sequence.first_task) // pieces
        var piece = (task - sequence.first_task) % pieces
        if sequence.length == 1:
            var query = self.qkv.unsafe_offset(sequence.start * self.row_stride())
            var begin = piece * CHUNK
            var end = min(begin + CHUNK, sequence.cached + 1)
            if end > sequence.cached:  # no other piece reads the new key
                self.store_head(layer, sequence, kv_head)
            attend_group_chunk[Self.size](layer, sequence, kv_head, begin, end, query, self.place(task, 0))
            if pieces == 1:
                for head in range(self.layer.group):
                    self.finish(sequence, kv_head * self.layer.group + head, self.place(task, head), 1)
            return
        var queries = BLOCK_ROWS // self.layer.group
        var first = piece * queries
        var count = min(queries, sequence.length - first)
        attend_block[Self.size](
            layer, sequence, kv_head, first, count, self.qkv, self.row_stride(), self.output, space
        )

    def merge(self):
        """The output of the sequences whose work was cut into chunks."""
        for i in range(len(self.sequences) - 1):
            ref sequence = self.sequences[i]
            var chunks = sequence.chunks()
            if chunks > 1:
                for head in range(self.n_heads()):
                    var task = sequence.first_task + head // self.layer.group * chunks
                    self.finish(sequence, head, self.place(task, head % self.layer.group), chunks)

    def finish(self, sequence: Sequence, head: Int, records: Floats, chunks: Int):
        """The output of a head with one new token."""
        var output = self.output.unsafe_offset((sequence.start * self.n_heads() + head) * Self.size)
        merge_chunks[Self.size](records, chunks, self.record(), output)

    def share(self, layer: Layer, mut team: Team):
        """All of it, as up to three phases of a team: none where no thread needs what another one has done."""

        def store(piece: Int) {imm}:
            self.store(layer)

        def merge(piece: Int) {imm}:
            self.merge()

        var prefill = False
        var chunked = False
        for i in range(len(self.sequences) - 1):
            prefill |= self.sequences[i].length > 1
            chunked |= self.sequences[i].chunks() > 1
        var space = List[Float32](unsafe_uninit_length=Self.BLOCK_FLOATS if prefill else 1)

        def attend(task: Int) {imm}:
            self.attend(layer, task, floats(space.unsafe_ptr()))

        if prefill:
            team.share(store, 1)
        team.share(attend, self.tasks())
        if chunked:
            team.share(merge, 1)
        _ = space^

    def run(self, layer: Layer):
        """With a team of its own."""
        var phases = Phases(ATTENTION_PHASES)

        def thread(number: Int) {imm}:
            var team = Team(phases)
            self.share(layer, team)

        on_threads(thread, self.threads())
        _ = phases^

"""Causal ALiBi attention over MAX's paged key-value cache, on the CPU: a batch cut into pieces for the threads.

One call stores the new keys and values in their pages, then attends. A sequence whose new tokens fit in a block of queries
is cut by its keys, each chunk of them read once for all its queries and all heads of a group; a longer one by its queries.
"""

import extensibility
from extensibility import InputTensor, OutputTensor
from extensibility import _MutableInputTensor as MutableInputTensor
from max.gpu.host import DeviceContext
from max.runtime.asyncrt import parallelism_level
from std.math import ceildiv

from .attention_block import CHUNK, Queries, Softmax, Space, attend_all, attend_chunk, load_queries
from .attention_cache import BLOCK_ROWS, Layer, layer_of
from .linear_formats import Floats
from .threads import Phases, Team, on_threads

comptime ATTENTION_PHASES = 3
comptime MULTIPLY_ADDS_A_THREAD = 1 << 17
"""Multiply-adds below which a second thread costs more than it saves."""


@fieldwise_init
struct Sequence(Copyable, ImplicitlyCopyable, Movable):
    """The new tokens of one sequence: rows `start .. start + length` of the batch, positions from `cached` on."""

    var index: Int
    var start: Int
    var length: Int
    var cached: Int
    var pieces: Int  # of each kv head
    var by_keys: Bool
    var first_task: Int
    var first_record: Int  # where the softmaxes of its chunks are, if there are several

    def merges(self) -> Bool:
        """Whether its chunks have to be added up when all are done."""
        return self.by_keys and self.pieces > 1


@extensibility.register("replit.attention")
struct PagedAlibiAttention:
    """`output[T, H * D]` from the fused `qkv[T, (H + 2K) * D]` of a ragged batch, see the module's head."""

    @staticmethod
    def execute[
        dtype: DType,
        //,
        head_size: Int,
        n_heads: Int,
        target: StaticString,
    ](
        output: OutputTensor[dtype=DType.float32, rank=2, ...],
        qkv: InputTensor[dtype=DType.float32, rank=2, ...],
        row_offsets: InputTensor[dtype=DType.uint32, rank=1, ...],
        blocks: MutableInputTensor[dtype=dtype, rank=6, ...],
        page_stride: InputTensor[dtype=DType.int64, rank=1, ...],
        cache_lengths: InputTensor[dtype=DType.uint32, rank=1, ...],
        lookup_table: InputTensor[dtype=DType.uint32, rank=2, ...],
        slopes: InputTensor[dtype=DType.float32, rank=1, ...],
        layer_index: UInt32,
        scale: Float32,
        ctx: DeviceContext,
    ) raises:
        var layer = layer_of[head_size, n_heads](blocks, page_stride, lookup_table, slopes, layer_index, scale)
        var attention = Attention[head_size](
            layer,
            row_offsets,
            cache_lengths,
            rebind[Floats](qkv.unsafe_ptr()),
            rebind[Floats](output.unsafe_ptr()),
        )
        attention.run(layer)


struct Attention[size: Int, dtype: DType]:
    """Attention for a batch, in one layer or in several after each other."""

    var layer: Layer[Self.dtype]
    var sequences: List[Sequence]
    var qkv: Floats
    var output: Floats
    var records: List[Float32]
    var tasks: Int
    var rows: Int  # most of a block

    def __init__(
        out self,
        layer: Layer[Self.dtype],
        row_offsets: InputTensor[dtype=DType.uint32, rank=1, ...],
        cache_lengths: InputTensor[dtype=DType.uint32, rank=1, ...],
        qkv: Floats,
        output: Floats,
    ):
        self.layer = layer
        self.qkv = qkv
        self.output = output
        self.sequences = List[Sequence]()
        self.tasks = 0
        self.rows = 1
        var record = 0
        for i in range(cache_lengths.shape()[0]):
            var start = Int(row_offsets.unsafe_ptr()[unsafe_offset=i])
            var length = Int(row_offsets.unsafe_ptr()[unsafe_offset=i + 1]) - start
            var cached = Int(cache_lengths.unsafe_ptr()[unsafe_offset=i])
            var rows = length * layer.group
            var by_keys = rows <= BLOCK_ROWS
            var pieces = ceildiv(cached + length, CHUNK) if by_keys else ceildiv(length, BLOCK_ROWS // layer.group)
            self.sequences.append(Sequence(i, start, length, cached, pieces, by_keys, self.tasks, record))
            self.tasks += pieces * layer.n_kv_heads
            self.rows = max(self.rows, min(rows, BLOCK_ROWS))
            if self.sequences[i].merges():
                record += pieces * layer.n_kv_heads * Softmax[Self.size].floats(rows)
        self.records = List[Float32](unsafe_uninit_length=record)

    def threads(self) -> Int:
        """Threads that the work is worth."""
        var work = 0
        for sequence in self.sequences:
            work += sequence.length * (sequence.cached + sequence.length)
        work *= self.layer.n_kv_heads * self.layer.group * Self.size * 2
        return max(1, min(min(parallelism_level(None), self.tasks), work // MULTIPLY_ADDS_A_THREAD))

    def store(self, layer: Layer[Self.dtype], sequence: Sequence, kv_head: Int):
        """The new keys and values of one head into their pages."""
        var heads = self.layer.n_kv_heads * self.layer.group
        for i in range(sequence.length):
            var row = (sequence.start + i) * (heads + 2 * self.layer.n_kv_heads)
            var key = self.qkv.unsafe_offset((row + heads + kv_head) * Self.size)
            var value = key.unsafe_offset(self.layer.n_kv_heads * Self.size)
            layer.store(sequence.index, sequence.cached + i, kv_head, key, value)

    def record(self, sequence: Sequence, kv_head: Int, chunk: Int) -> Softmax[Self.size]:
        """Where the softmax of a chunk is kept."""
        var rows = sequence.length * self.layer.group
        var place = sequence.first_record + (kv_head * sequence.pieces + chunk) * Softmax[Self.size].floats(rows)
        return Softmax[Self.size](rebind[Floats](self.records.unsafe_ptr()).unsafe_offset(place), rows)

    def queries(self, sequence: Sequence, kv_head: Int, first: Int, count: Int) -> Queries:
        """A block of a sequence's queries."""
        return Queries(sequence.index, kv_head, sequence.start + first, sequence.cached + first, count)

    @no_inline
    def attend(self, layer: Layer[Self.dtype], task: Int, space: Space[Self.size]):
        """One piece of work."""
        var i = 0
        while i + 1 < len(self.sequences) and self.sequences[i + 1].first_task <= task:
            i += 1
        var sequence = self.sequences[i]
        var kv_head = (task - sequence.first_task) // sequence.pieces
        var piece = (task - sequence.first_task) % sequence.pieces
        if sequence.length == 1 and piece + 1 == sequence.pieces:
            self.store(layer, sequence, kv_head)  # no other piece reads the new key
        if sequence.merges():
            var block = self.queries(sequence, kv_head, 0, sequence.length)
            load_queries[Self.size](layer, block, self.qkv, space.queries())
            attend_chunk[Self.size](
                layer, block, piece * CHUNK, space.queries(), space.scores(), self.record(sequence, kv_head, piece)
            )
            return
        var most = sequence.length if sequence.by_keys else BLOCK_ROWS // layer.group
        var first = piece * most
        var block = self.queries(sequence, kv_head, first, min(most, sequence.length - first))
        attend_all[Self.size](layer, block, self.qkv, self.output, space)

    def merge(self, space: Space[Self.size]):
        """The output of the sequences whose work was cut into chunks."""
        for sequence in self.sequences:
            if sequence.merges():
                for kv_head in range(self.layer.n_kv_heads):
                    var sum = space.sum(sequence.length * self.layer.group)
                    sum.reset()
                    for chunk in range(sequence.pieces):
                        sum.add(self.record(sequence, kv_head, chunk))
                    sum.write(self.layer, self.queries(sequence, kv_head, 0, sequence.length), self.output)

    def share(self, layer: Layer[Self.dtype], mut team: Team):
        """All of it, as up to three phases of a team: none where no thread needs what another one has done."""
        var several = List[Int]()
        var chunked = False
        for i in range(len(self.sequences)):
            chunked |= self.sequences[i].merges()
            if self.sequences[i].length > 1:
                several.append(i)
        var space = Space[Self.size](self.rows)
        var heads = self.layer.n_kv_heads

        def store(piece: Int) {imm}:
            self.store(layer, self.sequences[several[piece // heads]], piece % heads)

        def attend(task: Int) {imm}:
            self.attend(layer, task, space)

        def merge(piece: Int) {imm}:
            self.merge(space)

        if len(several) > 0:
            team.share(store, len(several) * heads)
        team.share(attend, self.tasks)
        if chunked:
            team.share(merge, 1)
        _ = space^

    def run(self, layer: Layer[Self.dtype]):
        """With a team of its own."""
        var phases = Phases(ATTENTION_PHASES)

        def thread(number: Int) {imm}:
            var team = Team(phases)
            self.share(layer, team)

        on_threads(thread, self.threads())
        _ = phases^

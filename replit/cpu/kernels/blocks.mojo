"""Consecutive blocks of the Replit decoder as one op: attention and feed-forward, each added to what came in.

For few rows one team goes through all of it: a thread is woken once a token, where ops of their own would wake it five
times a block, which takes longer than nano's products. For many rows the steps run one after the other.
"""

import extensibility
from extensibility import InputTensor, InputVariadicTensors
from extensibility import _MutableInputTensor as MutableInputTensor
from max.gpu.host import DeviceContext
from std.sys import simd_width_of

from .attention import ATTENTION_PHASES, Attention
from .attention_cache import layer_of
from .linear import Activations, Result, format_of, is_encoding
from .linear_epilogue import AddResidual, Clip, Gelu
from .linear_amx import Tiles, tiles_if_allowed
from .linear_formats import Bytes, Floats, Format, PANEL
from .linear_inputs import Norm
from .linear_product import FEW_ROWS, Product
from .linear_panels import Weights
from .threads import Phases, Team, on_threads, threads_for

comptime WEIGHTS = 6
"""Of a block, in this order: attention's norm, queries with keys and values, attention's output, the feed-forward's
norm, up, down."""


@fieldwise_init
struct Stored(Copyable, ImplicitlyCopyable, Movable):
    """A weight as it is stored: `[rows, bytes]`, or `[panels, bytes]`."""

    var start: Bytes
    var count: Int
    var bytes: Int

    def gains(self) -> Floats:
        return self.start.unsafe_bitcast[Float32]()

    def weights[F: Format, panels: Bool](self, rows: Int, depth: Int) raises -> Weights:
        """So many rows; raises if these are not those of `depth` inputs."""
        var weights = Weights(self.start, rows, self.bytes // PANEL if panels else self.bytes)
        weights.check[F, panels](self.count, depth)
        return weights


@fieldwise_init
struct Memory(TrivialRegisterPassable):
    """What goes through a block, `[rows, …]`: its result, and what is between."""

    var result: Floats
    var qkv: Floats
    var attended: Floats
    var middle: Floats  # the sum after attention
    var hidden: Floats


@fieldwise_init
struct Widths(TrivialRegisterPassable):
    """Of the activations: the block's own, and those between its steps."""

    var model: Int
    var qkv: Int
    var heads: Int  # of all heads together
    var hidden: Int


@fieldwise_init
struct Block[Qkv: Format, Out: Format, Up: Format, Down: Format, panels: Bool](TrivialRegisterPassable):
    """The products of one block."""

    var project: Product[Self.Qkv, Self.panels, Clip]
    var join: Product[Self.Out, Self.panels, AddResidual]
    var up: Product[Self.Up, Self.panels, Gelu]
    var down: Product[Self.Down, Self.panels, AddResidual]

    def __init__(
        out self,
        w: List[Stored],
        first: Int,
        x: Floats,
        m: Memory,
        rows: Int,
        width: Widths,
        epsilon: Float32,
        clip: Float32,
        tiles: Tiles,
    ) raises:
        """Of the weights from `first` on: `x[rows, width]`."""
        var attention_norm = Norm(w[first].gains(), epsilon)
        var norm = Norm(w[first + 3].gains(), epsilon)
        var no_norm = Norm(x, -1)
        var qkv = w[first + 1].weights[Self.Qkv, Self.panels](width.qkv, width.model)
        var out = w[first + 2].weights[Self.Out, Self.panels](width.model, width.heads)
        var up = w[first + 4].weights[Self.Up, Self.panels](width.hidden, width.model)
        var down = w[first + 5].weights[Self.Down, Self.panels](width.model, width.hidden)
        self.project = Product[Self.Qkv, Self.panels](
            x, qkv, m.qkv, rows, width.model, attention_norm, Clip(clip), tiles
        )
        self.join = Product[Self.Out, Self.panels](
            m.attended, out, m.middle, rows, width.heads, no_norm, AddResidual(x, width.model), tiles
        )
        self.up = Product[Self.Up, Self.panels](m.middle, up, m.hidden, rows, width.model, norm, Gelu(), tiles)
        self.down = Product[Self.Down, Self.panels](
            m.hidden, down, m.result, rows, width.hidden, no_norm, AddResidual(m.middle, width.model), tiles
        )

    def bytes(self) -> Int:
        """Of the weights."""
        return self.project.bytes() + self.join.bytes() + self.up.bytes() + self.down.bytes()


def copy(destination: Floats, source: Floats, count: Int):
    comptime WIDTH = simd_width_of[DType.float32]()
    for i in range(0, count - WIDTH + 1, WIDTH):
        destination.unsafe_store(i, source.unsafe_load[width=WIDTH](i))
    for i in range(count // WIDTH * WIDTH, count):
        destination.unsafe_store(i, source.unsafe_load(i))


@fieldwise_init
struct Slice(TrivialRegisterPassable):
    """Which of the blocks a pass goes through; what it leaves in the middle is kept for the pass that goes on there."""

    var start: Int
    var stop: Int
    var resumes: Bool
    var pauses: Bool
    var kept: Floats

    def __init__(out self, numbers: Pointer[Int64, MutUntrackedOrigin], first: Int, count: Int):
        """Of `count` blocks from layer `first` on. `numbers`: the first layer, the one after the last (0: to the end),
        and the address of `[rows, width]` floats."""
        var begin = Int(numbers[unsafe_offset=0])
        var end = Int(numbers[unsafe_offset=1])
        self.start = max(begin - first, 0)
        self.stop = min(end - first, count) if end > 0 else count
        self.resumes = 0 < begin and first <= begin and begin < first + count
        self.pauses = first < end and end <= first + count
        self.kept = Floats(unsafe_from_address=Int(numbers[unsafe_offset=2]))


@extensibility.register("replit.blocks")
struct Blocks:
    """`x + attention(norm(x))`, then `x + down(gelu(up(norm(x))))`, `count` times; queries, keys, values are clipped.

    `weights` are panels or rows of bytes, WEIGHTS of them for each block. The results after the first are memory.
    """

    @staticmethod
    def execute[
        dtype: DType,
        //,
        head_size: Int,
        n_heads: Int,
        count: Int,
        qkv_encoding: StaticString,
        output_encoding: StaticString,
        up_encoding: StaticString,
        down_encoding: StaticString,
        panels: Bool,
        target: StaticString,
    ](
        result: Result,
        qkv: Result,
        attended: Result,
        middle: Result,
        hidden: Result,
        x: Activations,
        weights: InputVariadicTensors[dtype=DType.uint8, rank=2, size = WEIGHTS * count, ...],
        row_offsets: InputTensor[dtype=DType.uint32, rank=1, ...],
        blocks: MutableInputTensor[dtype=dtype, rank=6, ...],
        page_stride: InputTensor[dtype=DType.int64, rank=1, ...],
        cache_lengths: InputTensor[dtype=DType.uint32, rank=1, ...],
        lookup_table: InputTensor[dtype=DType.uint32, rank=2, ...],
        slice: InputTensor[dtype=DType.int64, rank=1, ...],
        slopes: InputTensor[dtype=DType.float32, rank=1, ...],
        first_layer: UInt32,
        scale: Float32,
        epsilon: Float32,
        clip: Float32,
        ctx: DeviceContext,
    ) raises:
        comptime assert is_encoding[qkv_encoding] and is_encoding[output_encoding], "no kernel for this encoding"
        comptime assert is_encoding[up_encoding] and is_encoding[down_encoding], "no kernel for this encoding"
        comptime Qkv = format_of[qkv_encoding]
        comptime Out = format_of[output_encoding]
        comptime Up = format_of[up_encoding]
        comptime Down = format_of[down_encoding]
        var rows = x.dim_size(0)
        var memory = Memory(
            rebind[Floats](result.unsafe_ptr()),
            rebind[Floats](qkv.unsafe_ptr()),
            rebind[Floats](attended.unsafe_ptr()),
            rebind[Floats](middle.unsafe_ptr()),
            rebind[Floats](hidden.unsafe_ptr()),
        )
        var w = List[Stored]()
        comptime for i in range(WEIGHTS * count):
            w.append(Stored(rebind[Bytes](weights[i].unsafe_ptr()), weights[i].dim_size(0), weights[i].dim_size(1)))
        var widths = Widths(x.dim_size(1), qkv.dim_size(1), n_heads * head_size, hidden.dim_size(1))
        var tiles = tiles_if_allowed()
        var part = Slice(rebind[Pointer[Int64, MutUntrackedOrigin]](slice.unsafe_ptr()), Int(first_layer), count)
        if part.resumes:
            copy(memory.result, part.kept, rows * x.dim_size(1))
        var steps = List[Block[Qkv, Out, Up, Down, panels]]()
        var bytes = 0
        for i in range(count):
            # a block's result is the next one's input, and is overwritten when nothing reads it any more
            var inputs = rebind[Floats](x.unsafe_ptr()) if i == 0 and not part.resumes else memory.result
            steps.append(
                Block[Qkv, Out, Up, Down, panels](w, WEIGHTS * i, inputs, memory, rows, widths, epsilon, clip, tiles)
            )
            bytes += steps[i].bytes()
        var layer = layer_of[head_size, n_heads](blocks, page_stride, lookup_table, slopes, first_layer, scale)
        var attention = Attention[head_size](layer, row_offsets, cache_lengths, memory.qkv, memory.attended)
        if rows > FEW_ROWS:
            for i in range(part.start, part.stop):
                steps[i].project.run()
                attention.run(layer.following(i))
                steps[i].join.run()
                steps[i].up.run()
                steps[i].down.run()
            if part.pauses:
                copy(part.kept, memory.result, rows * x.dim_size(1))
            return
        var threads = threads_for(bytes)
        var phases = Phases(count * (4 + ATTENTION_PHASES))

        def thread(number: Int) {imm}:
            var team = Team(phases)
            for i in range(part.start, part.stop):
                steps[i].project.stream(team, threads)
                attention.share(layer.following(i), team)
                steps[i].join.stream(team, threads)
                steps[i].up.stream(team, threads)
                steps[i].down.stream(team, threads)

        on_threads(thread, threads)
        if part.pauses:
            copy(part.kept, memory.result, rows * x.dim_size(1))
        _ = phases^
        _ = attention^
        _ = steps^

"""A decoder as one ragged graph over MAX's paged key-value cache: prefill, decode, batches and scoring alike.

What an architecture adds is its blocks. T tokens, B sequences, R rows that get logits, H heads, K key/value heads,
D head size, E model size.
"""

from __future__ import annotations

from collections.abc import Iterable

from max.dtype import DType
from max.graph import BufferType, DeviceRef, Graph, TensorType, TensorValue, Type, Weight, ops

from replit.cpu import layers as cpu_layers
from replit.cpu.layers import Stored
from replit.decoder.alibi import alibi_slopes
from replit.decoder.config import DecoderConfig
from replit.gpu import layers as gpu_layers
from replit.runtime.kv_cache import CacheInputs, cache_input_types
from replit.runtime.target import CPU, DECODER, LAY_OUT, Target
from replit.runtime.weight_memory import WeightTypes
from weights.tensor import Encoding

_DTYPES = {
    Encoding.FLOAT32: DType.float32,
    Encoding.FLOAT16: DType.float16,
    Encoding.BFLOAT16: DType.bfloat16,
}


def build_graph(
    config: DecoderConfig,
    weights: WeightTypes,
    target: Target,
    decoder: type[DecoderGraph],
) -> Graph:
    """The graph of a model whose weights have the given encodings; `decoder` computes its blocks.

    Inputs: tokens int64 `[T]`, row offsets uint32 `[B + 1]`, rows with logits int64 `[R]`, then MAX's paged-cache
    inputs (`cache_input_types`). Output: float32 logits `[R, vocab]`; with MAX's kernels also the most probable
    ids, int64 `[R]`, which are all that a greedy step has to bring back from a GPU.
    """
    device = DeviceRef.GPU() if target.on_gpu else DeviceRef.CPU()
    inputs: list[Type] = [
        TensorType(DType.int64, ["tokens"], device),
        TensorType(DType.uint32, ["offsets"], device),
        TensorType(DType.int64, ["rows"], device),
        *cache_input_types(config, device, _DTYPES[target.cache]),
    ]
    with Graph(DECODER, input_types=inputs, custom_extensions=[target.kernels]) as graph:
        tokens, row_offsets, rows, *cache_inputs = graph.inputs
        cache = CacheInputs.of(cache_inputs)
        forward = decoder(config, weights, row_offsets.tensor, cache, target)
        logits = forward(tokens.tensor, rows.tensor)
        if target.own_kernels:
            graph.output(logits)
        else:
            graph.output(logits, ops.argmax(logits).reshape((-1,)))
    if target.panels:
        add_lay_out(graph, {encoding for encoding, shape in weights.values() if target.in_panels(shape)})
    return graph


def add_lay_out(decoder: Graph, encodings: Iterable[Encoding]) -> None:
    """Adds to a model one graph for each encoding, which lays out weights in panels: kernels/layout.mojo."""
    device = DeviceRef.CPU()
    for encoding in sorted(encodings):
        types = [
            BufferType(DType.uint8, ["panels", "panel_bytes"], device),
            TensorType(DType.uint8, ["rows", "row_bytes"], device),
        ]
        with Graph(
            LAY_OUT + encoding, input_types=types, custom_extensions=[CPU.kernels], module=decoder.module
        ) as graph:
            panels, rows = graph.inputs
            parameters: dict[str, bool | int | str | DType] = {"encoding": str(encoding)}
            ops.inplace_custom("replit.lay_out", device, [panels.buffer, rows.tensor], [], parameters)
            graph.output()


class DecoderGraph:
    """What every architecture shares, and what its layers share, while the graph is built."""

    def __init__(
        self,
        config: DecoderConfig,
        weights: WeightTypes,
        row_offsets: TensorValue,
        cache: CacheInputs,
        target: Target = CPU,
    ) -> None:
        self.config = config
        self.own_kernels = target.own_kernels
        self.layers = cpu_layers if target.own_kernels else gpu_layers
        self.weights = {name: graph_weight(name, *kind, target) for name, kind in weights.items()}
        self.row_offsets = row_offsets
        self.cache = cache
        slopes = alibi_slopes(config.n_heads, config.alibi_bias_max)
        self.slopes = ops.constant(slopes, DType.float32, row_offsets.device)

    def __call__(self, tokens: TensorValue, rows: TensorValue) -> TensorValue:
        config, weights, layers = self.config, self.weights, self.layers
        table = weights["token_embd.weight"]
        x = layers.lookup(tokens, table, config.d_model)  # [T, E]
        x = self.blocks(x)
        x = layers.lookup(rows, Stored(x), config.d_model)  # [R, E]
        output = weights.get("output.weight", table)
        logits = layers.logits(x, weights["output_norm.weight"], output, config.layer_norm_eps)
        return logits if config.logit_scale is None else logits * config.logit_scale

    def blocks(self, x: TensorValue) -> TensorValue:
        """All layers, `[T, E]` to `[T, E]`."""
        for layer in range(self.config.n_layers):
            x = self.block(x, layer)
        return x

    def block(self, x: TensorValue, layer: int) -> TensorValue:
        """One layer, `[T, E]` to `[T, E]`."""
        raise NotImplementedError

    def weight(self, layer: int, name: str) -> Stored:
        """A weight of one layer."""
        return self.weights[f"blk.{layer}.{name}.weight"]

    def attention(self, qkv: TensorValue, layer: int) -> TensorValue:
        """Attention of `[T, (H + 2K) * D]` over this layer's cache, `[T, H * D]`."""
        attended: TensorValue = self.layers.attention(
            self.config, qkv, self.row_offsets, self.cache, self.slopes, self.index(layer)
        )
        return attended

    def index(self, layer: int) -> TensorValue:
        """The number of a layer as a kernel takes it."""
        return ops.constant(layer, DType.uint32, DeviceRef.CPU())


def graph_weight(name: str, encoding: Encoding, shape: tuple[int, ...], target: Target = CPU) -> Stored:
    """A weight of the graph, bound to memory when the compiled model is initialized."""
    dtype = DType.uint8 if target.own_kernels else _DTYPES[encoding]
    device = DeviceRef.GPU() if target.on_gpu else DeviceRef.CPU()
    weight = Weight(name, dtype, target.stored_shape(encoding, shape), device, align=1 if target.own_kernels else None)
    # a GPU's are there when they are bound
    value = Graph.current.add_weight(weight, force_initial_weight_on_host=not target.on_gpu)
    return Stored(value, encoding, shape[0], target.in_panels(shape))

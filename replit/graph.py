"""The decoder as one ragged graph over MAX's paged key-value cache: prefill, decode, batches and scoring alike.

T tokens, B sequences, R rows that get logits, H heads, K key/value heads, D head size, E model size.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from max.dtype import DType
from max.graph import DeviceRef, Graph, TensorType, TensorValue, Type, Weight, ops

from replit import layers
from replit.alibi import alibi_slopes
from replit.architecture import DecoderConfig
from replit.config import ReplitConfig
from replit.kv_cache import CacheInputs, cache_input_types
from replit.weight_memory import WeightTypes
from weights.tensor import Encoding

KERNELS = Path(__file__).parent / "kernels"

_DTYPES = {
    Encoding.FLOAT32: DType.float32,
    Encoding.FLOAT16: DType.float16,
    Encoding.BFLOAT16: DType.bfloat16,
}


def build_graph(config: DecoderConfig, weights: WeightTypes, decoder: type[Decoder] | None = None) -> Graph:
    """The graph of a model whose weights have the given encodings; `decoder` computes its blocks.

    Inputs: tokens int64 `[T]`, row offsets uint32 `[B + 1]`, rows with logits int64 `[R]`, then MAX's paged-cache
    inputs (`cache_input_types`). Output: float32 logits `[R, vocab]`.
    """
    device = DeviceRef.CPU()
    inputs: list[Type] = [
        TensorType(DType.int64, ["tokens"], device),
        TensorType(DType.uint32, ["offsets"], device),
        TensorType(DType.int64, ["rows"], device),
        *cache_input_types(config, device),
    ]
    with Graph("replit", input_types=inputs, custom_extensions=[KERNELS]) as graph:
        tokens, row_offsets, rows, *cache_inputs = graph.inputs
        cache = CacheInputs.of(cache_inputs)
        forward = (decoder or ReplitDecoder)(config, weights, row_offsets.tensor, cache)
        graph.output(forward(tokens.tensor, rows.tensor))
    return graph


class Decoder:
    """What every architecture shares, and what its layers share, while the graph is built."""

    def __init__(
        self,
        config: DecoderConfig,
        weights: WeightTypes,
        row_offsets: TensorValue,
        cache: CacheInputs,
    ) -> None:
        self.config = config
        self.weights = {name: graph_weight(name, *kind) for name, kind in weights.items()}
        self.row_offsets = row_offsets
        self.cache = cache
        slopes = alibi_slopes(config.n_heads, config.alibi_bias_max)
        self.slopes = ops.constant(slopes, DType.float32, layers.CPU)

    def __call__(self, tokens: TensorValue, rows: TensorValue) -> TensorValue:
        config, weights = self.config, self.weights
        table = weights["token_embd.weight"]
        x = layers.lookup(tokens, table, config.d_model)  # [T, E]
        for layer in range(config.n_layers):
            x = self.block(x, layer)
        x = layers.lookup(rows, layers.Stored(x), config.d_model)  # [R, E]
        output = weights.get("output.weight", table)
        logits = layers.norm_linear(x, weights["output_norm.weight"], output, config.layer_norm_eps)
        return logits if config.logit_scale is None else logits * config.logit_scale

    def block(self, x: TensorValue, layer: int) -> TensorValue:
        """One layer, `[T, E]` to `[T, E]`."""
        raise NotImplementedError

    def weight(self, layer: int, name: str) -> layers.Stored:
        """A weight of one layer."""
        return self.weights[f"blk.{layer}.{name}.weight"]

    def attention(self, qkv: TensorValue, layer: int) -> TensorValue:
        """Attention of `[T, (H + 2K) * D]` over this layer's cache, `[T, H * D]`."""
        index = ops.constant(layer, DType.uint32, layers.CPU)
        return layers.attention(self.config, qkv, self.row_offsets, self.cache, self.slopes, index)


class ReplitDecoder(Decoder):
    """MPT's block: a fused projection, and GELU between two products."""

    config: ReplitConfig

    def block(self, x: TensorValue, layer: int) -> TensorValue:
        """See `Decoder.block`."""
        eps, clip = self.config.layer_norm_eps, self.config.clip_qkv
        weight = partial(self.weight, layer)
        qkv = layers.norm_linear(x, weight("attn_norm"), weight("attn_qkv"), eps)
        if clip is not None:
            qkv = ops.max(ops.min(qkv, clip), -clip)
        x = layers.linear_add(x, self.attention(qkv, layer), weight("attn_output"))
        hidden = layers.norm_linear_gelu(x, weight("ffn_norm"), weight("ffn_up"), eps)
        return layers.linear_add(x, hidden, weight("ffn_down"))


def graph_weight(name: str, encoding: Encoding, shape: tuple[int, ...]) -> layers.Stored:
    """A weight of the graph, bound to memory when the compiled model is initialized."""
    dtype = DType.uint8 if encoding.is_quantized else _DTYPES[encoding]
    stored = (*shape[:-1], encoding.row_bytes(shape[-1])) if encoding.is_quantized else shape
    weight = Weight(name, dtype, stored, layers.CPU, align=1)
    return layers.Stored(Graph.current.add_weight(weight), encoding)

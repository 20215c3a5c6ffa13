"""Replit Code's block in the decoder graph of replit/decoder/graph.py: MPT's.

T tokens, E model size.
"""

from __future__ import annotations

from itertools import groupby

from max.graph import Graph, TensorValue, ops

from replit.config import ReplitConfig
from replit.cpu import layers as cpu_layers
from replit.decoder import graph
from replit.gpu import layers as gpu_layers
from replit.runtime.target import CPU, Target
from replit.runtime.weight_memory import WeightTypes

_BLOCK = ("attn_norm", "attn_qkv", "attn_output", "ffn_norm", "ffn_up", "ffn_down")


def build_graph(config: ReplitConfig, weights: WeightTypes, target: Target = CPU) -> Graph:
    """See replit.decoder.graph.build_graph; the inputs and the output are the same."""
    return graph.build_graph(config, weights, target, ReplitGraph)


class ReplitGraph(graph.DecoderGraph):
    """MPT's block: a fused projection, and GELU between two products. On the CPU all of a block is one op."""

    config: ReplitConfig

    def blocks(self, x: TensorValue) -> TensorValue:
        """See `DecoderGraph.blocks`."""
        if not self.own_kernels:
            return super().blocks(x)
        layers = [[self.weight(layer, name) for name in _BLOCK] for layer in range(self.config.n_layers)]
        for _, group in groupby(enumerate(layers), lambda layer: [weight.encoding for weight in layer[1]]):
            numbers, weights = zip(*group, strict=True)
            x = cpu_layers.blocks(
                self.config,
                x,
                weights,
                self.config.clip_qkv,
                self.row_offsets,
                self.cache,
                self.slopes,
                self.index(numbers[0]),
            )
        return x

    def block(self, x: TensorValue, layer: int) -> TensorValue:
        """See `DecoderGraph.block`."""
        eps, clip = self.config.layer_norm_eps, self.config.clip_qkv
        layers = gpu_layers  # on the CPU see `blocks`
        attn_norm, attn_qkv, attn_output, ffn_norm, ffn_up, ffn_down = (self.weight(layer, name) for name in _BLOCK)
        if clip is None:
            place = self.row_offsets, self.cache
            q = layers.norm_queries(self.config, x, attn_norm, attn_qkv, *place, self.index(layer))
            attended = layers.attend(self.config, q, *place, self.slopes, self.index(layer))
        else:
            qkv = layers.norm_linear(x, attn_norm, attn_qkv, eps)
            attended = self.attention(ops.max(ops.min(qkv, clip), -clip), layer)
        x = layers.linear_add(x, attended, attn_output)
        hidden = layers.norm_linear_gelu(x, ffn_norm, ffn_up, eps)
        return layers.linear_add(x, hidden, ffn_down)

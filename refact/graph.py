"""Refact's block in the graph of replit/decoder/graph.py: one key/value head, a SiLU-gated feed-forward layer."""

from __future__ import annotations

from functools import partial

from max.graph import Graph, TensorValue, ops

from refact.config import RefactConfig
from replit.decoder import graph
from replit.runtime.target import CPU, Target
from replit.runtime.weight_memory import WeightTypes


def build_graph(config: RefactConfig, weights: WeightTypes, target: Target = CPU) -> Graph:
    """See replit.decoder.graph.build_graph; the inputs and the output are the same."""
    return graph.build_graph(config, weights, target, RefactGraph)


class RefactGraph(graph.DecoderGraph):
    """LayerNorm before each half, as in MPT. The reference's ALiBi by key position is MPT's plus a constant a row."""

    def block(self, x: TensorValue, layer: int) -> TensorValue:
        """See `graph.DecoderGraph.block`."""
        eps = self.config.layer_norm_eps
        layers, weight = self.layers, partial(self.weight, layer)
        q, k, v = (layers.norm_linear(x, weight("attn_norm"), weight(f"attn_{part}"), eps) for part in "qkv")
        qkv = ops.concat([q, k, v], axis=1)  # [T, (H + 2K) * D]
        x = layers.linear_add(x, self.attention(qkv, layer), weight("attn_output"))
        gate = layers.norm_linear(x, weight("ffn_norm"), weight("ffn_gate"), eps)
        up = layers.norm_linear(x, weight("ffn_norm"), weight("ffn_up"), eps)
        return layers.linear_add(x, ops.silu(gate) * up, weight("ffn_down"))

"""Refact as an architecture of the family, see replit/decoder/architecture.py."""

from __future__ import annotations

from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING

from refact.config import (
    ALIBI_BIAS_MAX,
    GGUF_NAME,
    HUB_CLASSES,
    MODEL_TYPE,
    RefactConfig,
    from_checkpoint,
)
from refact.weight_names import map_weights
from replit.decoder.architecture import Architecture
from replit.runtime.target import CPU, Target

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from max.graph import Graph

    from replit.runtime.weight_memory import WeightTypes


def build_graph(config: RefactConfig, weights: WeightTypes, target: Target = CPU) -> Graph:
    """See refact.graph.build_graph, imported only when something is compiled."""
    from refact import graph

    return graph.build_graph(config, weights, target)


def add_gguf_config(writer: GGUFWriter, config: RefactConfig) -> None:
    """llama.cpp's keys of the architecture "refact"; the inverse of refact.config's reader."""
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.ffn_size)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_layer_norm_rms_eps(config.layer_norm_eps)
    if not isclose(config.alibi_bias_max, ALIBI_BIAS_MAX):
        writer.add_max_alibi_bias(config.alibi_bias_max)


REFACT = Architecture(
    gguf_name=GGUF_NAME,
    hub_classes=HUB_CLASSES,
    model_types=(MODEL_TYPE,),
    read_config=from_checkpoint,
    map_weights=map_weights,
    build_graph=build_graph,
    graph_source=Path(__file__).with_name("graph.py"),
    add_gguf_config=add_gguf_config,
)

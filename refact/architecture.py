"""Refact as an architecture of the family, see replit/decoder/architecture.py."""

from __future__ import annotations

from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refact.config import (
    ALIBI_BIAS_MAX,
    GGUF_NAME,
    HUB_CLASSES,
    MODEL_TYPE,
    RefactConfig,
    ffn_size,
    from_checkpoint,
)
from refact.weight_names import hub_tensors, map_weights
from replit.decoder.architecture import Architecture, add_gguf_dimensions
from replit.runtime.target import CPU, Target
from weights.errors import UserError

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
    add_gguf_dimensions(writer, config)
    writer.add_layer_norm_rms_eps(config.layer_norm_eps)
    if not isclose(config.alibi_bias_max, ALIBI_BIAS_MAX):
        writer.add_max_alibi_bias(config.alibi_bias_max)


def hub_config(config: RefactConfig) -> dict[str, Any]:
    """A config.json as the published one. Raises UserError for a width that its formula does not give."""
    inner = next((n for n in (4 * config.d_model, config.ffn_size * 3 // 2) if ffn_size(n) == config.ffn_size), None)
    if inner is None:
        raise UserError(
            f"a gated layer of {config.ffn_size} is no multiple of 256, which config.json cannot say; expected one: "
            "keep the model in GGUF"
        )
    return {
        "architectures": list(HUB_CLASSES),
        "model_type": MODEL_TYPE,
        "n_embd": config.d_model,
        "n_head": config.n_heads,
        "n_layer": config.n_layers,
        "n_inner": inner,
        "n_positions": config.max_seq_len,
        "vocab_size": config.vocab_size,
        "layer_norm_epsilon": config.layer_norm_eps,
        "multi_query": True,
        "tie_word_embeddings": config.tied_embeddings,
        "attention_softmax_in_fp32": True,
        "scale_attention_softmax_in_fp32": True,
        "attention_bias_in_fp32": True,
    }


REFACT = Architecture(
    gguf_name=GGUF_NAME,
    hub_classes=HUB_CLASSES,
    model_types=(MODEL_TYPE,),
    read_config=from_checkpoint,
    map_weights=map_weights,
    build_graph=build_graph,
    graph_source=Path(__file__).with_name("graph.py"),
    add_gguf_config=add_gguf_config,
    hub_tensors=hub_tensors,
    hub_config=hub_config,
    suffix_first=True,  # the order of Refact's own product
)

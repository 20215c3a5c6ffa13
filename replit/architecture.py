"""Replit Code as an architecture of the family, see replit/decoder/architecture.py."""

from __future__ import annotations

from math import isclose, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replit import mosaic_config
from replit.config import HUB_ARCHITECTURES, ReplitConfig, from_checkpoint
from replit.decoder.architecture import Architecture, add_gguf_dimensions
from replit.runtime.target import CPU, Target
from replit.weight_names import hub_tensors, map_weights

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from max.graph import Graph

    from replit.runtime.weight_memory import WeightTypes


def build_graph(config: ReplitConfig, weights: WeightTypes, target: Target = CPU) -> Graph:
    """See replit.graph.build_graph, imported only when something is compiled."""
    from replit import graph

    return graph.build_graph(config, weights, target)


def add_gguf_config(writer: GGUFWriter, config: ReplitConfig) -> None:
    """llama.cpp's keys of the architecture "mpt"; the inverse of replit.config's reader."""
    add_gguf_dimensions(writer, config)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_max_alibi_bias(config.alibi_bias_max)
    if config.clip_qkv is not None:
        writer.add_clamp_kqv(config.clip_qkv)
    # llama.cpp has no such keys for this architecture: it would load the file and be wrong.
    if config.logit_scale is not None:
        writer.add_logit_scale(config.logit_scale)
    if not isclose(config.softmax_scale, 1 / sqrt(config.head_dim), rel_tol=1e-6):
        writer.add_attention_scale(config.softmax_scale)


def hub_config(config: ReplitConfig) -> dict[str, Any]:
    """A config.json for llm-foundry's code, and for transformers' where every head has keys and values of its own."""
    grouped = config.n_kv_heads != config.n_heads
    kind = {"attn_type": "grouped_query_attention", "kv_n_heads": config.n_kv_heads} if grouped else {}
    usual = isclose(config.softmax_scale, 1 / sqrt(config.head_dim), rel_tol=1e-6)
    ratio = config.ffn_size / config.d_model
    ffn = {} if ratio.is_integer() else {"ffn_config": {"ffn_type": "mptmlp", "ffn_hidden_size": config.ffn_size}}
    return {
        "architectures": ["MPTForCausalLM" if grouped else "MptForCausalLM"],
        "model_type": "mpt",
        "d_model": config.d_model,
        "n_heads": config.n_heads,
        "n_layers": config.n_layers,
        "expansion_ratio": int(ratio),
        "max_seq_len": config.max_seq_len,
        "vocab_size": config.vocab_size,
        "layer_norm_epsilon": config.layer_norm_eps,
        "no_bias": True,
        "norm_type": "low_precision_layernorm",
        "logit_scale": config.logit_scale,
        "tie_word_embeddings": config.tied_embeddings,
        "attn_config": {
            "attn_type": "multihead_attention",
            "alibi": True,
            "alibi_bias_max": int(config.alibi_bias_max) if config.alibi_bias_max % 1 == 0 else config.alibi_bias_max,
            "clip_qkv": config.clip_qkv,
            "softmax_scale": None if usual else config.softmax_scale,
        }
        | kind,
    } | ffn


REPLIT = Architecture(
    gguf_name="mpt",
    hub_classes=(*HUB_ARCHITECTURES, mosaic_config.CLASS),
    model_types=("mpt", mosaic_config.MODEL_TYPE),
    read_config=from_checkpoint,
    map_weights=map_weights,
    build_graph=build_graph,
    graph_source=Path(__file__).with_name("graph.py"),
    add_gguf_config=add_gguf_config,
    hub_tensors=hub_tensors,
    hub_config=hub_config,
)

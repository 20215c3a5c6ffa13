"""The config.json that replit-code-v1-3b had before May 2023, when its code was MosaicML's first GPT ("mosaic_gpt").

Its keys lie flat. They are put where MPT's reader expects them; what has no place there is refused by that reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CLASS = "ReplitLM"
MODEL_TYPE = "mosaic_gpt"
_ATTENTION = {
    "alibi": "alibi",
    "alibi_bias_max": "alibi_bias_max",
    "attn_clip_qkv": "clip_qkv",
    "attn_qk_ln": "qk_ln",
    "prefix_lm": "prefix_lm",
    "softmax_scale": "softmax_scale",
}


def modernized(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """`config` in MPT's layout; itself if it is of that already."""
    if config.get("model_type") != MODEL_TYPE:
        return config
    moved = {*_ATTENTION, "mlp_ratio", "low_precision_layernorm"}
    kept = {key: value for key, value in config.items() if key not in moved}
    names = config.get("architectures")
    if isinstance(names, list):
        kept["architectures"] = ["MPTForCausalLM" if name == CLASS else name for name in names]
    low = config.get("low_precision_layernorm", False)
    return kept | {
        "model_type": "mpt",
        "expansion_ratio": config.get("mlp_ratio"),
        "norm_type": "low_precision_layernorm" if low else "layernorm",
        "attn_config": {new: config[old] for old, new in _ATTENTION.items() if old in config},
    }

"""Which tensor of a Replit Code file is which weight, and what shape each must have: whole-name templates in tables."""

from __future__ import annotations

from replit.config import ReplitConfig
from replit.decoder.weight_names import (
    EMBEDDING,
    OUTPUT,
    OUTPUT_NORM,
    dropped_names,
    hub_names,
    known_names,
    match_weights,
    shapes_of,
)
from weights.files.checkpoint import Checkpoint
from weights.tensor import Tensor

# Hub names (after one of HUB_PREFIXES) to canonical ones; the first of two names for a weight are
# those of replit-code-v1-3b before May 2023.
_HUB_NAMES = {
    "wte.weight": EMBEDDING,
    "ln_f.weight": OUTPUT_NORM,
    "norm_f.weight": OUTPUT_NORM,
}
_HUB_BLOCK_NAMES = {
    "ln_1.weight": "attn_norm.weight",
    "ln_2.weight": "ffn_norm.weight",
    "mlp.mlp_up.weight": "ffn_up.weight",
    "mlp.mlp_down.weight": "ffn_down.weight",
    "norm_1.weight": "attn_norm.weight",
    "attn.Wqkv.weight": "attn_qkv.weight",
    "attn.out_proj.weight": "attn_output.weight",
    "norm_2.weight": "ffn_norm.weight",
    "ffn.up_proj.weight": "ffn_up.weight",
    "ffn.down_proj.weight": "ffn_down.weight",
}


def expected_shapes(config: ReplitConfig) -> dict[str, tuple[int, ...]]:
    """Canonical name to shape ([out, in] for matrices), in the order the forward pass uses them."""
    model, ffn = config.d_model, config.ffn_size
    block = {
        "attn_norm.weight": (model,),
        "attn_qkv.weight": (config.qkv_dim, model),  # rows: queries, keys, values
        "attn_output.weight": (model, model),
        "ffn_norm.weight": (model,),
        "ffn_up.weight": (ffn, model),
        "ffn_down.weight": (model, ffn),
    }
    return shapes_of(config, block)


def map_weights(checkpoint: Checkpoint, config: ReplitConfig) -> dict[str, Tensor]:
    """Canonical name to tensor, in the order of `expected_shapes`.

    Raises UserError for a tensor that is missing, surplus, or of a wrong shape or type.
    """
    shapes = expected_shapes(config)
    names = known_names(shapes, _hub_names(config), checkpoint)
    return match_weights(checkpoint, shapes, names, dropped_names(config.tied_embeddings))


def hub_tensors(config: ReplitConfig) -> dict[str, tuple[str, ...]]:
    """The names of llm-foundry's and transformers' state dicts, in the forward pass's order."""
    present = {canonical: hub for hub, canonical in _hub_names(config).items()}  # the later of two names
    names: dict[str, tuple[str, ...]] = {
        f"transformer.{present[name]}": (name,) for name in expected_shapes(config) if name in present
    }
    return names if config.tied_embeddings else names | {"lm_head.weight": (OUTPUT,)}


def _hub_names(config: ReplitConfig) -> dict[str, str]:
    """Every hub name that a model of this configuration may use, to its canonical name; without prefixes."""
    return hub_names(_HUB_NAMES, _HUB_BLOCK_NAMES, "blocks", config.n_layers)

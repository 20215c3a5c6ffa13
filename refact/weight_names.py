"""Which tensor of a Refact file is which weight. Canonical names are GGUF's, see replit/decoder/weight_names.py.

The hub's files fuse keys with values, and the gate with the other half of its layer; an early revision stored them
apart, as GGUF does. Fused tensors are cut into views by rows, so nothing is copied.
"""

from __future__ import annotations

from dataclasses import replace

from refact.config import RefactConfig
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
from weights.errors import UserError
from weights.files.checkpoint import Checkpoint
from weights.tensor import Tensor

_HUB_NAMES = {
    "wte.weight": EMBEDDING,
    "ln_f.weight": OUTPUT_NORM,
}
_HUB_BLOCK_NAMES = {
    "ln_1.weight": "attn_norm.weight",
    "attn.q.weight": "attn_q.weight",
    "attn.k.weight": "attn_k.weight",
    "attn.v.weight": "attn_v.weight",
    "attn.c_proj.weight": "attn_output.weight",
    "ln_2.weight": "ffn_norm.weight",
    "mlp.linear_1.weight": "ffn_gate.weight",
    "mlp.linear_3.weight": "ffn_up.weight",
    "mlp.c_proj.weight": "ffn_down.weight",
}
# A fused tensor's halves, in the order of its rows.
_FUSED = {
    "attn.kv.weight": ("attn.k.weight", "attn.v.weight"),
    "mlp.gate_up_proj.weight": ("mlp.linear_1.weight", "mlp.linear_3.weight"),
}


def expected_shapes(config: RefactConfig) -> dict[str, tuple[int, ...]]:
    """Canonical name to shape ([out, in] for matrices), in the order the forward pass uses them."""
    model, ffn = config.d_model, config.ffn_size
    block = {
        "attn_norm.weight": (model,),
        "attn_q.weight": (model, model),
        "attn_k.weight": (config.kv_dim, model),
        "attn_v.weight": (config.kv_dim, model),
        "attn_output.weight": (model, model),
        "ffn_norm.weight": (model,),
        "ffn_gate.weight": (ffn, model),
        "ffn_up.weight": (ffn, model),
        "ffn_down.weight": (model, ffn),
    }
    return shapes_of(config, block)


def map_weights(checkpoint: Checkpoint, config: RefactConfig) -> dict[str, Tensor]:
    """Canonical name to tensor, in the order of `expected_shapes`.

    Raises UserError for a tensor that is missing, surplus, or of a wrong shape or type.
    """
    shapes = expected_shapes(config)
    names = known_names(shapes, _hub_names(config), checkpoint)
    whole = replace(checkpoint, tensors=_cut(checkpoint))
    return match_weights(whole, shapes, names, dropped_names(config.tied_embeddings))


def hub_tensors(config: RefactConfig) -> dict[str, tuple[str, ...]]:
    """The names of the published state dict, its fused tensors as those whose rows they hold."""
    names: dict[str, tuple[str, ...]] = {"transformer.wte.weight": (EMBEDDING,)}
    halves = {part: fused for fused, parts in _FUSED.items() for part in parts}
    for layer in range(config.n_layers):
        for hub, canonical in _HUB_BLOCK_NAMES.items():
            name = f"transformer.h.{layer}.{halves.get(hub, hub)}"
            names[name] = (*names.get(name, ()), f"blk.{layer}.{canonical}")
    names["ln_f.weight"] = (OUTPUT_NORM,)
    return names if config.tied_embeddings else names | {"lm_head.weight": (OUTPUT,)}


def _hub_names(config: RefactConfig) -> dict[str, str]:
    # "ln_f" stands outside of "transformer" in the published files.
    return hub_names(_HUB_NAMES, _HUB_BLOCK_NAMES, "h", config.n_layers)


def _cut(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The tensors with the fused ones replaced by their halves, under the early revision's names."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in checkpoint.tensors.items():
        suffix = next((fused for fused in _FUSED if name.endswith(f".{fused}")), None)
        halves = {name: tensor} if suffix is None else _halves(checkpoint, tensor, suffix)
        if twice := tensors.keys() & halves.keys():
            raise UserError(
                f"{checkpoint.path}: {min(twice)!r} is there by itself and in a fused tensor; "
                "expected it once: save the model again"
            )
        tensors |= halves
    return tensors


def _halves(checkpoint: Checkpoint, tensor: Tensor, suffix: str) -> dict[str, Tensor]:
    if len(tensor.shape) != 2 or tensor.shape[0] % 2:
        raise UserError(
            f"{checkpoint.path}: tensor {tensor.name!r} has the shape {list(tensor.shape)}; "
            "expected a matrix of two halves: download the model again"
        )
    shape = (tensor.shape[0] // 2, tensor.shape[1])
    middle = tensor.data.size // 2
    first, second = (f"{tensor.name.removesuffix(suffix)}{part}" for part in _FUSED[suffix])
    return {
        first: Tensor(first, shape, tensor.encoding, tensor.data[:middle]),
        second: Tensor(second, shape, tensor.encoding, tensor.data[middle:]),
    }

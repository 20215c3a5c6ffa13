"""Which tensor of a file is which weight, and what shape each must have.

Canonical names are GGUF's. Whole-name templates in tables: every tensor of a file is renamed,
dropped with a reason, or an error, before anything compiles.
"""

from __future__ import annotations

from collections.abc import Mapping

from replit.config import ReplitConfig
from weights.errors import UserError
from weights.files.checkpoint import Checkpoint
from weights.tensor import Tensor

EMBEDDING = "token_embd.weight"
OUTPUT = "output.weight"
OUTPUT_NORM = "output_norm.weight"

# Hub names (with and without the leading "transformer.") to canonical ones; the first of two names for a weight are
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
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (config.vocab_size, model)}
    for layer in range(config.n_layers):
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    shapes[OUTPUT_NORM] = (model,)
    if not config.tied_embeddings:
        shapes[OUTPUT] = (config.vocab_size, model)
    return shapes


def map_weights(checkpoint: Checkpoint, config: ReplitConfig) -> dict[str, Tensor]:
    """Canonical name to tensor, in the order of `expected_shapes`.

    Raises UserError for a tensor that is missing, surplus, or of a wrong shape or type.
    """
    shapes = expected_shapes(config)
    names = _hub_names(config) if checkpoint.format == "safetensors" else {n: n for n in shapes}
    return match_weights(checkpoint, shapes, names, _dropped(config))


def match_weights(
    checkpoint: Checkpoint,
    shapes: Mapping[str, tuple[int, ...]],
    names: Mapping[str, str],
    dropped: Mapping[str, str],
) -> dict[str, Tensor]:
    """Canonical name to tensor, in the order of `shapes`; `names` maps the file's to canonical ones.

    `dropped` are tensors that are left aside, with the reason. Raises UserError like `map_weights`.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in checkpoint.tensors.items():
        canonical = names.get(name)
        if canonical is not None and canonical in shapes:
            _check(checkpoint, tensor, shapes[canonical])
            if canonical in found:
                raise UserError(
                    f"{checkpoint.path}: {found[canonical].name!r} and {name!r} are both "
                    f"{canonical}; expected it once: save the model again"
                )
            found[canonical] = tensor
        elif name not in dropped:
            raise _surplus(checkpoint, name)
    missing = [name for name in shapes if name not in found]
    if missing:
        raise UserError(
            f"{checkpoint.path}: {len(missing)} of {len(shapes)} tensors are missing, first "
            f"{_stored_name(missing[0], names)!r}; expected all: download or convert the file again"
        )
    return {name: found[name] for name in shapes}


def _hub_names(config: ReplitConfig) -> dict[str, str]:
    """Every hub name that a model of this configuration may use, to its canonical name."""
    names = dict(_HUB_NAMES)
    for layer in range(config.n_layers):
        for hub, canonical in _HUB_BLOCK_NAMES.items():
            names[f"blocks.{layer}.{hub}"] = f"blk.{layer}.{canonical}"
    names |= {f"transformer.{hub}": canonical for hub, canonical in names.items()}
    return names | {"lm_head.weight": OUTPUT}


def _stored_name(canonical: str, names: Mapping[str, str]) -> str:
    """The name under which the file should have held a weight: the last alias is the usual one."""
    return [stored for stored, name in names.items() if name == canonical][-1]


def _dropped(config: ReplitConfig) -> dict[str, str]:
    """Tensors that are left aside, with the reason."""
    if not config.tied_embeddings:
        return {}
    reason = "tied: the embedding table is the output matrix"
    return {"lm_head.weight": reason, OUTPUT: reason}


def _check(checkpoint: Checkpoint, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise UserError(
            f"{checkpoint.path}: tensor {tensor.name!r} has the shape {list(tensor.shape)}; "
            f"expected {list(shape)} by the file's configuration: download or convert it again"
        )
    if len(shape) == 1 and tensor.encoding.is_quantized:
        raise UserError(
            f"{checkpoint.path}: tensor {tensor.name!r} is stored as {tensor.encoding}; expected "
            "float32, float16 or bfloat16 for a norm: convert the model again"
        )


def _surplus(checkpoint: Checkpoint, name: str) -> UserError:
    why = "biases are not implemented" if name.endswith(".bias") else "the architecture has none"
    return UserError(
        f"{checkpoint.path}: unexpected tensor {name!r} ({why}); expected only the weights of a "
        "Replit Code model: use a file of that architecture"
    )

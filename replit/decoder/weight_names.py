"""Matches the tensors of a file with the weights that an architecture expects.

Canonical names are GGUF's. Every tensor of a file is renamed, dropped with a reason, or an error, before anything
compiles.
"""

from __future__ import annotations

from collections.abc import Mapping

from replit.decoder.config import DecoderConfig
from replit.decoder.hub_names import HUB_PREFIXES, OUTPUTS
from weights.errors import UserError
from weights.files.checkpoint import Checkpoint
from weights.tensor import Tensor

EMBEDDING = "token_embd.weight"
OUTPUT = "output.weight"
OUTPUT_NORM = "output_norm.weight"


def shapes_of(config: DecoderConfig, block: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Canonical name to shape of a model whose blocks have those weights, in the order the forward pass uses them."""
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (config.vocab_size, config.d_model)}
    for layer in range(config.n_layers):
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    shapes[OUTPUT_NORM] = (config.d_model,)
    if not config.tied_embeddings:
        shapes[OUTPUT] = (config.vocab_size, config.d_model)
    return shapes


def hub_names(outside: Mapping[str, str], block: Mapping[str, str], blocks: str, layers: int) -> dict[str, str]:
    """Hub names, without prefixes, to canonical ones: those `outside` the blocks, and every block's (`blocks.0.…`)."""
    return dict(outside) | {
        f"{blocks}.{layer}.{hub}": f"blk.{layer}.{canonical}"
        for layer in range(layers)
        for hub, canonical in block.items()
    }


def match_weights(
    checkpoint: Checkpoint,
    shapes: Mapping[str, tuple[int, ...]],
    names: Mapping[str, str],
    dropped: Mapping[str, str],
) -> dict[str, Tensor]:
    """Canonical name to tensor, in the order of `shapes`; `names` maps the file's to canonical ones.

    `dropped` are tensors that are left aside, with the reason. Raises UserError for a tensor that is missing,
    surplus, or of a wrong shape or type.
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
        elif name not in dropped and not _adds_nothing(name, tensor):
            raise _surplus(checkpoint, name)
    missing = [name for name in shapes if name not in found]
    if missing:
        raise UserError(
            f"{checkpoint.path}: {len(missing)} of {len(shapes)} tensors are missing, first "
            f"{_stored_name(missing[0], names)!r}; expected all: download or convert the file again"
        )
    return {name: found[name] for name in shapes}


def _stored_name(canonical: str, names: Mapping[str, str]) -> str:
    """The name under which the file should have held a weight: the last alias is the usual one."""
    return [stored for stored, name in names.items() if name == canonical][-1]


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
    why = "biases other than zero are not implemented" if name.endswith(".bias") else "the architecture has none"
    return UserError(
        f"{checkpoint.path}: unexpected tensor {name!r} ({why}); expected only the weights of a "
        "Replit Code model: use a file of that architecture"
    )


def known_names(
    shapes: Mapping[str, tuple[int, ...]], hub: Mapping[str, str], checkpoint: Checkpoint
) -> dict[str, str]:
    """Names of either kind to canonical ones; a weight's last one is what such a file usually calls it.

    Either kind in either format: candle writes GGUF files with the hub's names.
    """
    canonical = {name: name for name in shapes}
    from_hub = {f"{prefix}{name}": known for prefix in HUB_PREFIXES for name, known in hub.items()}
    from_hub |= dict.fromkeys(OUTPUTS[1:], OUTPUT)
    return from_hub | canonical if checkpoint.has_gguf_keys else canonical | from_hub


def dropped_names(tied: bool) -> dict[str, str]:
    """Tensors that are left aside, with the reason."""
    return dict.fromkeys(OUTPUTS, "tied: the embedding table is the output matrix") if tied else {}


def _adds_nothing(name: str, tensor: Tensor) -> bool:
    """Whether it is a bias of zeros, as some libraries save for a layer that has none."""
    return name.endswith(".bias") and len(tensor.shape) == 1 and not tensor.data.any()

"""The configuration of a model whose files hold tensors and nothing else, as candle's do.

Shapes say how wide it is, not into how many heads its queries are cut; that and the context are known of the published
models, which nobody trained in other shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from replit.decoder.hub_names import EMBEDDINGS, first_tensor
from weights.errors import UserError
from weights.files.checkpoint import Checkpoint
from weights.tensor import Tensor

#: Width, layers, rows of queries with keys and values, feed-forward: to heads, key/value heads, context.
_PUBLISHED = {
    (3072, 32, 5120, 12288): (24, 8, 4096),  # replit-code-v1_5-3b
    (2560, 32, 7680, 10240): (32, 32, 2048),  # replit-code-v1-3b
}
_QKV = ("attn.Wqkv.weight", "attn_qkv.weight")
_UP = ("ffn.up_proj.weight", "mlp.mlp_up.weight", "ffn_up.weight")


def is_described(metadata: Mapping[str, Any]) -> bool:
    """Whether there is a configuration at all."""
    return any(key in metadata for key in ("architectures", "model_type", "d_model", "n_embd"))


def config_of_shapes(checkpoint: Checkpoint) -> dict[str, Any]:
    """A config.json for the tensors of a published model. Raises UserError with what is missing for another."""
    table = first_tensor(checkpoint, EMBEDDINGS)
    fused, up = _ending(checkpoint, _QKV), _ending(checkpoint, _UP)
    matrices = [tensor for tensor in (table, *fused[:1], *up[:1]) if tensor is not None and len(tensor.shape) == 2]
    if len(matrices) < 3:
        raise _missing(checkpoint, "")
    rows, width = matrices[0].shape
    shape = (width, len(fused), matrices[1].shape[0], matrices[2].shape[0])
    if shape not in _PUBLISHED:
        said = f"its tensors say d_model {width}, {len(fused)} layers, {rows} tokens, and not how many heads"
        raise _missing(checkpoint, f" ({said} or which context)")
    heads, kv_heads, context = _PUBLISHED[shape]
    return {
        "architectures": ["MPTForCausalLM"],
        "d_model": width,
        "n_heads": heads,
        "n_layers": len(fused),
        "expansion_ratio": shape[3] // width,
        "max_seq_len": context,
        "vocab_size": rows,
        "attn_config": {"attn_type": "grouped_query_attention", "kv_n_heads": kv_heads, "alibi": True},
    }


def _ending(checkpoint: Checkpoint, suffixes: tuple[str, ...]) -> list[Tensor]:
    return [tensor for name, tensor in checkpoint.tensors.items() if name.endswith(suffixes)]


def _missing(checkpoint: Checkpoint, known: str) -> UserError:
    return UserError(
        f"there is no config.json beside {checkpoint.path}; expected the model's configuration there{known}: "
        "download it too, or give it with --config"
    )

"""Refact's decoder in plain NumPy float32, written from what is published about it: the truth for its graph.

T tokens, H heads, D head size, E model size. ALiBi as the model's own code adds it: by absolute key position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from refact.config import RefactConfig

Array = npt.NDArray[np.float32]


def logits(config: RefactConfig, weights: Mapping[str, Array], ids: Sequence[int]) -> Array:
    """Float32 logits [T, vocab] of every position of one sequence; canonical names, matrices as [out, in]."""
    x = weights["token_embd.weight"][np.asarray(ids)]  # [T, E]
    for layer in range(config.n_layers):
        block = {n.removeprefix(f"blk.{layer}."): w for n, w in weights.items() if f"blk.{layer}." in n}
        x = x + attention(config, block, layer_norm(x, block["attn_norm.weight"], config.layer_norm_eps))
        x = x + gated(block, layer_norm(x, block["ffn_norm.weight"], config.layer_norm_eps))
    x = layer_norm(x, weights["output_norm.weight"], config.layer_norm_eps)
    output: Array = x @ weights["output.weight"].T
    return output


def layer_norm(x: Array, gain: Array, eps: float) -> Array:
    """Not RMSNorm: the mean is removed."""
    x = x - x.mean(-1, keepdims=True)
    result: Array = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(eps)) * gain
    return result


def attention(config: RefactConfig, block: Mapping[str, Array], x: Array) -> Array:
    """All heads share one key and one value."""
    T, H, D = len(x), config.n_heads, config.head_dim
    q = (x @ block["attn_q.weight"].T).reshape(T, H, D)
    k, v = x @ block["attn_k.weight"].T, x @ block["attn_v.weight"].T  # [T, D]
    scores = np.einsum("thd,sd->hts", q, k) * np.float32(D**-0.5)
    scores = scores + slopes(H)[:, None, None] * np.arange(1, T + 1, dtype=np.float32)
    scores = np.where(np.tri(T, dtype=bool), scores, -np.inf)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    out = np.einsum("hts,sd->thd", powers / powers.sum(-1, keepdims=True), v)
    result: Array = out.reshape(T, H * D).astype(np.float32) @ block["attn_output.weight"].T
    return result


def slopes(heads: int) -> npt.NDArray[np.float64]:
    """2^(-8k/n) for the power of two below, then every second slope of twice as many."""
    n = 2 ** (heads.bit_length() - 1)
    extra = [2 ** (-4 * k / n) for k in range(1, 2 * (heads - n) + 1, 2)]
    return np.array([2 ** (-8 * k / n) for k in range(1, n + 1)] + extra)


def gated(block: Mapping[str, Array], x: Array) -> Array:
    """silu(gate) * up, then down."""
    gate, up = x @ block["ffn_gate.weight"].T, x @ block["ffn_up.weight"].T
    result: Array = (gate / (1 + np.exp(-gate)) * up) @ block["ffn_down.weight"].T
    return result

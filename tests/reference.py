"""The decoder in plain NumPy float32, written for reading: the truth that the graph is held to.

T tokens, H heads, K key/value heads, D head size, E model size. No cache, no batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from replit.config import ReplitConfig

Array = npt.NDArray[np.float32]

_erf = np.vectorize(math.erf, otypes=[np.float32])


def logits(config: ReplitConfig, weights: Mapping[str, Array], ids: Sequence[int]) -> Array:
    """Float32 logits [T, vocab] of every position of one sequence.

    `weights` has canonical names (replit/weight_names.py), matrices as [out, in].
    """
    embedding = weights["token_embd.weight"]
    x = embedding[np.asarray(ids)]  # [T, E]
    for layer in range(config.n_layers):
        block = f"blk.{layer}."
        normed = layer_norm(x, weights[block + "attn_norm.weight"], config.layer_norm_eps)
        x = x + attention(config, weights, block, normed)
        normed = layer_norm(x, weights[block + "ffn_norm.weight"], config.layer_norm_eps)
        x = x + feed_forward(weights, block, normed)
    x = layer_norm(x, weights["output_norm.weight"], config.layer_norm_eps)
    scores = x @ weights.get("output.weight", embedding).T
    return scores if config.logit_scale is None else scores * np.float32(config.logit_scale)


def layer_norm(x: Array, weight: Array, eps: float) -> Array:
    """Mean removed, variance one, scaled; no bias."""
    centred = x - x.mean(-1, keepdims=True)
    variance = np.square(centred).mean(-1, keepdims=True)
    return centred / np.sqrt(variance + np.float32(eps)) * weight


def attention(config: ReplitConfig, weights: Mapping[str, Array], block: str, x: Array) -> Array:
    """Causal grouped-query attention with ALiBi, [T, E] to [T, E]."""
    T, H, K, D = len(x), config.n_heads, config.n_kv_heads, config.head_dim
    qkv = x @ weights[block + "attn_qkv.weight"].T
    if config.clip_qkv is not None:
        qkv = qkv.clip(-config.clip_qkv, config.clip_qkv)
    q, k, v = np.split(qkv, [H * D, H * D + K * D], axis=-1)
    q = q.reshape(T, H, D).transpose(1, 0, 2)  # [H, T, D]
    k = np.repeat(k.reshape(T, K, D).transpose(1, 0, 2), H // K, axis=0)  # head h reads h // (H/K)
    v = np.repeat(v.reshape(T, K, D).transpose(1, 0, 2), H // K, axis=0)
    scores = q @ k.transpose(0, 2, 1) * np.float32(config.softmax_scale)  # [H, T, T]
    distance = np.arange(T)[None, :] - np.arange(T)[:, None]  # key minus query: 0 or negative
    scores = scores + alibi_slopes(H, config.alibi_bias_max)[:, None, None] * distance
    scores = np.where(distance <= 0, scores, np.float32(-np.inf))
    out = softmax(scores.astype(np.float32)) @ v  # [H, T, D]
    return out.transpose(1, 0, 2).reshape(T, H * D) @ weights[block + "attn_output.weight"].T


def feed_forward(weights: Mapping[str, Array], block: str, x: Array) -> Array:
    """Up, exact (erf) GELU, down."""
    hidden = x @ weights[block + "ffn_up.weight"].T
    hidden = hidden * np.float32(0.5) * (1 + _erf(hidden * np.float32(math.sqrt(0.5))))
    return hidden @ weights[block + "ffn_down.weight"].T


def alibi_slopes(heads: int, bias_max: float) -> Array:
    """One slope a head (llm-foundry's gen_slopes): powers of two, interleaved for other counts."""
    power = 2 ** math.ceil(math.log2(heads))
    slopes = 2.0 ** -(np.arange(1, power + 1) * bias_max / power)
    if power != heads:
        slopes = np.concatenate([slopes[1::2], slopes[::2]])[:heads]
    return slopes.astype(np.float32)


def softmax(x: Array) -> Array:
    """Over the last axis."""
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)

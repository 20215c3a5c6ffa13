"""Causal attention with ALiBi in two forms: by blocks for the CPU, and folded into plain attention for the GPU.

Shapes: B sequences, T tokens, H heads of size D, K key/value heads, G = H / K heads of a group.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

QUERY_BLOCK = 64
PADDING = 8  # elements that folding adds to a head; attention kernels want a multiple of 8
APART = 64.0  # what a document costs the one after it, in units of a score: exp(-64) is nothing


def alibi_slopes(n_heads: int, bias_max: float) -> Tensor:
    """Slopes [H] as in llm-foundry's `gen_slopes`, for any number of heads."""
    power = 1 << (n_heads - 1).bit_length()
    slopes = 2.0 ** (-torch.arange(1, power + 1, dtype=torch.float32) * bias_max / power)
    return slopes if power == n_heads else torch.cat([slopes[1::2], slopes[::2]])[:n_heads]


def alibi_mask(slopes: Tensor, length: int) -> Tensor:
    """Additive causal mask [H, T, T]: -slope * (q - k) for k <= q, else -inf."""
    position = torch.arange(length, device=slopes.device)
    distance = position[:, None] - position[None, :]
    bias = -slopes[:, None, None] * distance
    return bias.masked_fill(distance < 0, float("-inf"))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Causal attention [B, K, G, T, D] by blocks of queries, each against the keys up to its end.

    On a CPU, compiled, this takes a quarter of the time of `scaled_dot_product_attention` with a mask, which
    computes the masked half too and wants keys and values repeated for each head of a group.
    """
    b, n_kv, group, t, d = q.shape
    bias = mask.view(n_kv, group, t, t)
    blocks = []
    for start in range(0, t, QUERY_BLOCK):
        end = min(start + QUERY_BLOCK, t)
        rows = q[:, :, :, start:end].reshape(b, n_kv, -1, d)
        scores = (rows @ k[:, :, :end].transpose(-1, -2) * d**-0.5).view(b, n_kv, group, -1, end)
        weights = torch.softmax(scores.float() + bias[:, :, start:end, :end], dim=-1).to(v.dtype)
        blocks.append((weights.view(b, n_kv, -1, end) @ v[:, :, :end]).view(b, n_kv, group, -1, d))
    return torch.cat(blocks, dim=3)


def places(documents: Tensor) -> Tensor:
    """What folding adds to the keys, [B, 1, T, PADDING] bfloat16: the position in two exact parts, and the document.

    `documents` [B, T] counts the documents of a row, 0 to 255.
    """
    position = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    parts = [position // 256 * 256, position % 256, documents * APART]
    parts += [torch.zeros_like(documents)] * (PADDING - len(parts))
    return torch.stack([part.to(torch.bfloat16) for part in parts], dim=-1)[:, None]


def attend_folded(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor, where: Tensor) -> Tensor:
    """Causal attention [B, K, G, T, D] within documents, by an attention kernel that knows neither bias nor documents.

    A softmax does not change if all its scores do by the same amount, so the bias -slope * (q - k) may be slope * k:
    a product of elements that are added to queries and keys. bfloat16 holds them exactly where slopes are powers of
    two. A later document adds `APART` more, which leaves the earlier ones nothing. `where` is `places(...)`.
    """
    b, n_kv, group, t, d = q.shape
    one = torch.ones_like(slopes)
    add = torch.stack([slopes, slopes, one, *[torch.zeros_like(slopes)] * (PADDING - 3)], dim=-1).to(q.dtype)
    queries = torch.cat([q.reshape(b, -1, t, d) * d**-0.5, add[None, :, None].expand(b, -1, t, -1)], dim=-1)
    keys = torch.cat([k, where.to(k.dtype).expand(-1, n_kv, -1, -1)], dim=-1)
    keys, values = (x.repeat_interleave(group, dim=1) for x in (keys, F.pad(v, (0, PADDING))))
    out = F.scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=1.0)
    return out[..., :d].reshape(b, n_kv, group, t, d)

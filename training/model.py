"""Nano in PyTorch: the Replit (MPT) decoder with grouped-query attention and ALiBi, written for training.

No cache and no sampling: the product has those. Shapes: B sequences, T tokens, E model size, H heads, K key/value
heads, D head size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.loops import FADE, IGNORED

QUERY_BLOCK = 64


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the decoder; the feed-forward width is 4 E and the head size E / n_heads."""

    vocab_size: int = 8192
    d_model: int = 256
    n_layers: int = 6
    n_heads: int = 4
    n_kv_heads: int = 2
    max_seq_len: int = 2048
    alibi_bias_max: float = 8.0

    @property
    def head_dim(self) -> int:
        """D."""
        return self.d_model // self.n_heads


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


class Attention(nn.Module):
    """Causal grouped-query attention with ALiBi; q, k and v in one product, in this order."""

    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.c = c
        self.wqkv = nn.Linear(c.d_model, c.d_model + 2 * c.n_kv_heads * c.head_dim, bias=False)
        self.out_proj = nn.Linear(c.d_model, c.d_model, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        c = self.c
        b, t, e = x.shape
        kv = c.n_kv_heads * c.head_dim
        q, k, v = self.wqkv(x).split([e, kv, kv], dim=-1)
        # Head h reads key/value head h // G: [B, K, G, T, D] against [B, K, T, D].
        q = q.view(b, t, c.n_kv_heads, -1, c.head_dim).permute(0, 2, 3, 1, 4)
        k, v = (y.view(b, t, c.n_kv_heads, c.head_dim).transpose(1, 2) for y in (k, v))
        y = attend(q, k, v, mask)
        out: Tensor = self.out_proj(y.permute(0, 3, 1, 2, 4).reshape(b, t, e))
        return out


class Block(nn.Module):
    """x + attention(norm(x)), then x + down(gelu(up(norm(x)))) with the exact GELU."""

    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(c.d_model, eps=1e-5, bias=False)
        self.attn = Attention(c)
        self.norm_2 = nn.LayerNorm(c.d_model, eps=1e-5, bias=False)
        self.up_proj = nn.Linear(c.d_model, 4 * c.d_model, bias=False)
        self.down_proj = nn.Linear(4 * c.d_model, c.d_model, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attn(self.norm_1(x), mask)
        out: Tensor = x + self.down_proj(F.gelu(self.up_proj(self.norm_2(x))))
        return out


class Nano(nn.Module):
    """Token ids [B, T] to logits [B, T, V]; the output product shares the embedding."""

    slopes: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm_f = nn.LayerNorm(config.d_model, eps=1e-5, bias=False)
        self.register_buffer("slopes", alibi_slopes(config.n_heads, config.alibi_bias_max), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        """Normal 1/sqrt(fan in); projections into the residual start at zero, so that each block starts as identity."""
        nn.init.normal_(self.wte.weight, std=0.02)
        for name, p in self.blocks.named_parameters():
            if p.ndim == 2 and name.endswith(("out_proj.weight", "down_proj.weight")):
                nn.init.zeros_(p)
            elif p.ndim == 2:
                nn.init.normal_(p, std=p.shape[1] ** -0.5)

    def hidden(self, ids: Tensor) -> Tensor:
        """Normed final states [B, T, E]."""
        x = self.wte(ids)
        mask = alibi_mask(self.slopes, ids.shape[1])
        for block in self.blocks:
            x = block(x, mask)
        out: Tensor = self.norm_f(x)
        return out

    def forward(self, ids: Tensor) -> Tensor:
        return F.linear(self.hidden(ids), self.wte.weight)

    def loss(self, ids: Tensor, targets: Tensor, earlier: Tensor | None = None) -> Tensor:
        """Mean cross-entropy in nats; tokens of loops (training/loops.py) above FADE of their probability before cost.

        `earlier` [B, T] says where: the position of the same token one repetition before, ORDINARY or IGNORED.
        """
        logits = self(ids).float()
        nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
        if earlier is None:
            return nats.mean()
        p = torch.exp(-nats)
        before = p.detach().gather(1, earlier.clamp_min(0))
        # Unlikelihood: its gradient is large where a token is sure, as in loops. Short of 1, for the logarithm.
        unlikely = -torch.log1p(-0.9999 * p) * (p > FADE * before)
        each = torch.where(earlier >= 0, unlikely, nats)
        counted = earlier != IGNORED
        return (each * counted).sum() / counted.sum()

"""Nano in PyTorch: the Replit (MPT) decoder with grouped-query attention and ALiBi, written for training.

No cache and no sampling: the product has those. Shapes: B sequences, T tokens, E model size, H heads, K key/value
heads, D head size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.attention import alibi_mask, alibi_slopes, attend, attend_folded, places
from training.loops import FADE, IGNORED


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


class Attention(nn.Module):
    """Causal grouped-query attention with ALiBi; q, k and v in one product, in this order."""

    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.c = c
        self.wqkv = nn.Linear(c.d_model, c.d_model + 2 * c.n_kv_heads * c.head_dim, bias=False)
        self.out_proj = nn.Linear(c.d_model, c.d_model, bias=False)

    def forward(self, x: Tensor, slopes: Tensor, mask: Tensor, where: Tensor | None) -> Tensor:
        c = self.c
        b, t, e = x.shape
        kv = c.n_kv_heads * c.head_dim
        q, k, v = self.wqkv(x).split([e, kv, kv], dim=-1)
        # Head h reads key/value head h // G: [B, K, G, T, D] against [B, K, T, D].
        q = q.view(b, t, c.n_kv_heads, -1, c.head_dim).permute(0, 2, 3, 1, 4)
        k, v = (y.view(b, t, c.n_kv_heads, c.head_dim).transpose(1, 2) for y in (k, v))
        if where is not None:
            y = attend_folded(q, k, v, slopes, where)
        else:
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

    def forward(self, x: Tensor, slopes: Tensor, mask: Tensor, where: Tensor | None) -> Tensor:
        x = x + self.attn(self.norm_1(x), slopes, mask, where)
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

    def hidden(self, ids: Tensor, documents: Tensor | None = None) -> Tensor:
        """Normed final states [B, T, E]. With `documents` [B, T] a token sees its own document only."""
        x = self.wte(ids)
        where = None if documents is None else places(documents)
        mask = alibi_mask(self.slopes, ids.shape[1] if documents is None else 0)
        for block in self.blocks:
            x = block(x, self.slopes, mask, where)
        out: Tensor = self.norm_f(x)
        return out

    def forward(self, ids: Tensor) -> Tensor:
        return F.linear(self.hidden(ids), self.wte.weight)

    def loss(
        self, ids: Tensor, targets: Tensor, earlier: Tensor | None = None, documents: Tensor | None = None
    ) -> Tensor:
        """Mean cross-entropy in nats; tokens of loops (training/loops.py) above FADE of their probability before cost.

        `earlier` [B, T] says where: the position of the same token one repetition before, ORDINARY or IGNORED.
        """
        return self.loss_of_hidden(self.hidden(ids, documents), targets, earlier)

    def loss_of_hidden(self, hidden: Tensor, targets: Tensor, earlier: Tensor | None) -> Tensor:
        """`loss` from the final states [B, T, E]."""
        logits = F.linear(hidden, self.wte.weight).float()
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

"""The same model in plain PyTorch, for benchmarks/gpu.py: linear layers, SDPA with an ALiBi bias, a static cache, and
on a GPU one CUDA graph a decode step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from replit.decoder.alibi import alibi_slopes
from weights.quantization import to_float32


class PlainDecoder:
    """One batch of sequences of equal length, in bfloat16 on a GPU and in float32 on the CPU."""

    def __init__(self, config: Any, tensors: Mapping[str, Any], device: str, batch: int, length: int) -> None:
        self.config, self.device = config, device
        self.dtype = torch.bfloat16 if device != "cpu" else torch.float32
        self.weights = {name: self._load(tensor) for name, tensor in tensors.items()}
        shape = (config.n_layers, 2, batch, config.n_kv_heads, length, config.head_dim)
        self.cache = torch.zeros(shape, dtype=self.dtype, device=device)
        slopes = torch.tensor(alibi_slopes(config.n_heads, config.alibi_bias_max), device=device)
        self.slopes = slopes.view(1, -1, 1, 1)
        self.keys = torch.arange(length, device=device)
        self._graph: Any = None

    def _load(self, tensor: Any) -> torch.Tensor:
        data = torch.from_numpy(to_float32(tensor).copy()).to(self.device)
        return data.to(self.dtype) if data.dim() > 1 else data

    @torch.inference_mode()
    def forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """`ids` `[B, T]` at `positions` `[T]`; the float32 logits `[B, vocab]` after the last of them."""
        config, w = self.config, self.weights
        distance = self.keys - positions[:, None]
        bias = (self.slopes * distance).masked_fill(distance > 0, float("-inf")).to(self.dtype)
        x = F.embedding(ids, w["token_embd.weight"])
        for layer in range(config.n_layers):
            block = f"blk.{layer}."
            x = x + self._attention(self._norm(x, block + "attn_norm"), layer, positions, bias)
            hidden = F.gelu(F.linear(self._norm(x, block + "ffn_norm"), w[block + "ffn_up.weight"]))
            x = x + F.linear(hidden, w[block + "ffn_down.weight"])
        output = w.get("output.weight", w["token_embd.weight"])
        return F.linear(self._norm(x[:, -1], "output_norm"), output).float()

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        gain = self.weights[name + ".weight"]
        return F.layer_norm(x.float(), gain.shape, gain, None, self.config.layer_norm_eps).to(x.dtype)

    def _attention(self, x: torch.Tensor, layer: int, positions: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        config, block = self.config, f"blk.{layer}."
        qkv = F.linear(x, self.weights[block + "attn_qkv.weight"])
        widths = [config.n_heads * config.head_dim, config.kv_dim, config.kv_dim]
        q, k, v = (p.unflatten(-1, (-1, config.head_dim)).transpose(1, 2) for p in qkv.split(widths, -1))
        self.cache[layer, 0].index_copy_(2, positions, k)
        self.cache[layer, 1].index_copy_(2, positions, v)
        keys, values = self.cache[layer]
        attended = F.scaled_dot_product_attention(
            q, keys, values, attn_mask=bias, scale=config.softmax_scale, enable_gqa=config.n_heads != config.n_kv_heads
        )
        return F.linear(attended.transpose(1, 2).flatten(2), self.weights[block + "attn_output.weight"])

    def prefill(self, ids: list[int]) -> torch.Tensor:
        """The logits after `ids`, which every sequence begins with."""
        batch = self.cache.shape[2]
        tokens = torch.tensor([ids] * batch, device=self.device)
        return self.forward(tokens, torch.arange(len(ids), device=self.device))

    def decode(self, first: int, start: int, count: int) -> list[int]:
        """`count` greedy tokens from position `start` on, of the first sequence."""
        if self._graph is None:
            self._capture()
        self._ids.fill_(first)
        self._position.fill_(start)
        found = []
        for _ in range(count):
            self._step()
            found.append(int(self._ids[0, 0]))  # a step brings an id back, as ours does
        return found

    def _capture(self) -> None:
        self._ids = torch.zeros(self.cache.shape[2], 1, dtype=torch.int64, device=self.device)
        self._position = torch.zeros(1, dtype=torch.int64, device=self.device)
        if self.device == "cpu":
            self._graph, self._step = False, self._eager
            return
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._eager()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._eager()
        self._step = self._graph.replay

    @torch.inference_mode()
    def _eager(self) -> None:
        self._ids.copy_(self.forward(self._ids, self._position).argmax(-1, keepdim=True))
        self._position.add_(1)

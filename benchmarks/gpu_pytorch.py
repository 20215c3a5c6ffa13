"""The same model in plain PyTorch, for benchmarks/gpu.py: linear layers, SDPA with an ALiBi bias, a static cache, on a
GPU one CUDA graph a decode step, with its blocks as they are and compiled; and float32 logits to compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.gpu_hardware import timed
from benchmarks.gpu_setup import Figures, Setup, config_of, random_ids, tensors_of
from replit.decoder.alibi import alibi_slopes
from weights.quantization import to_float32
from weights.tensor import Encoding

_BLOCK = ("attn_norm", "attn_qkv", "attn_output", "ffn_norm", "ffn_up", "ffn_down")


def torch_device(setup: Setup) -> str:
    """PyTorch's name of the device."""
    return f"cuda:{setup.device.partition(':')[2] or '0'}" if setup.device.startswith("gpu") else "cpu"


def reference(setup: Setup) -> Figures:
    """Writes the float32 logits of nano and of the random weights, `[tokens, vocab]`, for `gpu_sections.check`."""
    from pipelines.registry import open_model

    device = torch_device(setup)
    for name, path in (("nano", "nano"), ("random", setup.path)):
        files = open_model(path, None, None)
        ids = setup.checked_ids(files.tokenizer)
        np.save(setup.reference_path(name), float32_logits(files.config, files.tensors, ids, device))
        yield {name: len(ids)}


@torch.inference_mode()
def float32_logits(config: Any, tensors: Mapping[str, Any], ids: list[int], device: str) -> np.ndarray:
    """Logits after every id, each weight in float32 only while it is used."""

    def weight(name: str) -> torch.Tensor:
        return load_weight(tensors[name], device).float()

    count = len(ids)
    slopes = torch.tensor(alibi_slopes(config.n_heads, config.alibi_bias_max), device=device).view(-1, 1, 1)
    positions = torch.arange(count, device=device)
    distance = (positions - positions[:, None]).float()
    bias = (slopes * distance).masked_fill(distance > 0, float("-inf"))
    x = weight("token_embd.weight")[torch.tensor(ids, device=device)]
    for layer in range(config.n_layers):
        gain, qkv, output, ffn_gain, up, down = (weight(f"blk.{layer}.{name}.weight") for name in _BLOCK)
        q, k, v = split_heads(config, F.linear(F.layer_norm(x, gain.shape, gain, None, config.layer_norm_eps), qkv))
        k, v = (part.repeat_interleave(config.n_heads // config.n_kv_heads, 0) for part in (k, v))
        scores = q @ k.transpose(1, 2) * config.softmax_scale + bias
        x = x + F.linear((scores.softmax(-1) @ v).transpose(0, 1).flatten(1), output)
        hidden = F.gelu(F.linear(F.layer_norm(x, ffn_gain.shape, ffn_gain, None, config.layer_norm_eps), up))
        x = x + F.linear(hidden, down)
    gain = weight("output_norm.weight")
    x = F.layer_norm(x, gain.shape, gain, None, config.layer_norm_eps)
    logits = F.linear(x, weight("output.weight" if "output.weight" in tensors else "token_embd.weight"))
    found: np.ndarray = logits.cpu().numpy()
    return found


def split_heads(config: Any, qkv: torch.Tensor) -> list[torch.Tensor]:
    """Queries, keys and values `[..., heads, T, D]` of `[..., T, (H + 2K) * D]`."""
    if getattr(config, "clip_qkv", None):
        qkv = qkv.clamp(-config.clip_qkv, config.clip_qkv)
    widths = [config.n_heads * config.head_dim, config.kv_dim, config.kv_dim]
    return [part.unflatten(-1, (-1, config.head_dim)).transpose(-3, -2) for part in qkv.split(widths, -1)]


def load_weight(tensor: Any, device: str) -> torch.Tensor:
    """A weight on the device: bfloat16 as it is stored, others in float32."""
    if tensor.encoding is Encoding.BFLOAT16:
        data = torch.from_numpy(np.array(tensor.data)).view(torch.bfloat16).view(tensor.shape)
        return data.to(device)
    return torch.from_numpy(to_float32(tensor).copy()).to(device)


def measure(setup: Setup) -> Figures:
    """Bandwidth and matrix rate, then decode of one sequence and of the largest batch, and prefill."""
    device = torch_device(setup)
    yield {"version": torch.__version__, "name": torch.cuda.get_device_name() if device != "cpu" else "cpu"}
    yield hardware(setup, device)
    config, tensors = config_of(setup.path), tensors_of(setup.path)
    depth, count = setup.prompts[0], setup.new_tokens
    weights = {name: load_weight(tensor, device) for name, tensor in tensors.items()}
    model = PlainDecoder(config, weights, device, 1, max(*setup.prompts, depth + count + 1))
    for prompt in setup.prompts:
        seconds = timed(lambda p=prompt: model.prefill(random_ids(p)).argmax().item(), setup.repeats)  # type: ignore[misc]
        yield {f"prefill_{prompt}_tokens_per_s": prompt / seconds}
    for batch in (1, setup.batches[-1]):
        model = PlainDecoder(config, weights, device, batch, depth + count + 1)
        seconds = timed(lambda m=model: m.decode(1, depth, count), setup.repeats)  # type: ignore[misc]
        yield {f"batch_{batch}_tokens_per_s": batch * count / seconds}
    model = PlainDecoder(config, weights, device, 1, depth + count + 1)
    for name, mode in (("compiled", None), ("autotuned", "max-autotune-no-cudagraphs")):
        model.compile(mode)
        yield {f"batch_1_{name}_tokens_per_s": count / timed(lambda: model.decode(1, depth, count), setup.repeats)}


def hardware(setup: Setup, device: str) -> dict[str, float]:
    """Bytes read and written a second by a copy, operations a second of a bfloat16 product of random matrices."""
    size, n = (64 << 20, 1024) if setup.quick else (4 << 30, 8192)
    source = torch.empty(size, dtype=torch.uint8, device=device)
    copy = torch.empty_like(source)
    a, b = (torch.randn(n, n, device=device).bfloat16() for _ in range(2))

    def synchronized(action: Callable[[], Any]) -> float:
        def run() -> None:
            for _ in range(10):
                action()
            if device != "cpu":
                torch.cuda.synchronize()

        return timed(run, setup.repeats) / 10

    bandwidth = 2 * size / synchronized(lambda: copy.copy_(source))
    return {"bandwidth": bandwidth, "matrix_rate": 2 * n**3 / synchronized(lambda: a @ b.T)}


class PlainDecoder:
    """One batch of sequences of equal length, in bfloat16 on a GPU and in float32 on the CPU."""

    def __init__(self, config: Any, weights: dict[str, torch.Tensor], device: str, batch: int, length: int) -> None:
        self.config, self.device = config, device
        length = -(-length // 64) * 64  # its attention kernels want rows of the bias aligned
        self.dtype = torch.bfloat16 if device != "cpu" else torch.float32
        self.weights = {name: w.to(self.dtype) if w.dim() > 1 else w for name, w in weights.items()}
        shape = (config.n_layers, 2, batch, config.n_kv_heads, length, config.head_dim)
        self.cache = torch.zeros(shape, dtype=self.dtype, device=device)
        slopes = torch.tensor(alibi_slopes(config.n_heads, config.alibi_bias_max), device=device)
        self.slopes = slopes.view(1, -1, 1, 1)
        self.keys = torch.arange(length, device=device)
        self._run_block: Callable[..., torch.Tensor] = self._block
        self._run_head: Callable[..., torch.Tensor] = self._head
        self._run_bias: Callable[..., torch.Tensor] = self._bias
        self._step: Callable[[], None] | None = None

    def compile(self, mode: str | None) -> None:
        """From now on blocks, bias and head are compiled; all layers share one compiled block."""
        torch._dynamo.reset()
        torch._inductor.config.coordinate_descent_tuning = True
        parts = (torch.compile(part, mode=mode, dynamic=False) for part in (self._block, self._head, self._bias))
        self._run_block, self._run_head, self._run_bias = parts
        self._step = None

    @torch.inference_mode()
    def forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """`ids` `[B, T]` at `positions` `[T]`; the float32 logits `[B, vocab]` after the last of them."""
        w = self.weights
        bias = self._run_bias(positions)
        x = F.embedding(ids, w["token_embd.weight"])
        for layer in range(self.config.n_layers):
            weights = [w[f"blk.{layer}.{name}.weight"] for name in _BLOCK]
            x = self._run_block(x, weights, self.cache[layer, 0], self.cache[layer, 1], positions, bias)
        return self._run_head(x, w["output_norm.weight"], w.get("output.weight", w["token_embd.weight"]))

    def _bias(self, positions: torch.Tensor) -> torch.Tensor:
        distance = self.keys - positions[:, None]
        return (self.slopes * distance).masked_fill(distance > 0, float("-inf")).to(self.dtype)

    def _block(
        self,
        x: torch.Tensor,
        weights: list[torch.Tensor],
        keys: torch.Tensor,
        values: torch.Tensor,
        positions: torch.Tensor,
        bias: torch.Tensor,
    ) -> torch.Tensor:
        config = self.config
        attn_gain, qkv, output, ffn_gain, up, down = weights
        q, k, v = split_heads(config, F.linear(self._norm(x, attn_gain), qkv))
        keys.index_copy_(2, positions, k)
        values.index_copy_(2, positions, v)
        groups = config.n_heads != config.n_kv_heads
        attended = F.scaled_dot_product_attention(
            q, keys, values, attn_mask=bias, scale=config.softmax_scale, enable_gqa=groups
        )
        x = x + F.linear(attended.transpose(1, 2).flatten(2), output)
        return x + F.linear(F.gelu(F.linear(self._norm(x, ffn_gain), up)), down)

    def _head(self, x: torch.Tensor, gain: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        return F.linear(self._norm(x[:, -1], gain), output).float()

    def _norm(self, x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x.float(), gain.shape, gain, None, self.config.layer_norm_eps).to(x.dtype)

    def prefill(self, ids: list[int]) -> torch.Tensor:
        """The logits after `ids`, which every sequence begins with."""
        tokens = torch.tensor([ids] * self.cache.shape[2], device=self.device)
        return self.forward(tokens, torch.arange(len(ids), device=self.device))

    def decode(self, first: int, start: int, count: int) -> list[int]:
        """`count` greedy tokens from position `start` on, of the first sequence."""
        if self._step is None:
            self._step = self._capture()
        self._ids.fill_(first)
        self._position.fill_(start)
        found = []
        for _ in range(count):
            self._step()
            found.append(int(self._ids[0, 0]))  # a step brings an id back, as ours does
        return found

    def _capture(self) -> Callable[[], None]:
        self._ids = torch.zeros(self.cache.shape[2], 1, dtype=torch.int64, device=self.device)
        self._position = torch.zeros(1, dtype=torch.int64, device=self.device)
        if self.device == "cpu":
            return self._eager
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._eager()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._eager()
        return graph.replay

    @torch.inference_mode()
    def _eager(self) -> None:
        self._ids.copy_(self.forward(self._ids, self._position).argmax(-1, keepdim=True))
        self._position.add_(1)

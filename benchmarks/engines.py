"""One engine in one process: loads a GGUF file, then measures a test for each line that it reads. See compare.py.

python -m benchmarks.engines ENGINE FILE TEST..., where a test is pp512, tg16 (tokens after one), tg16@4000 (after
4000), or tg16x8 (8 sequences at once). The named tests size the cache; a line of the input runs one of them, and its
median tokens a second are a line of the output.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any, Protocol

import numpy as np

REPEATS = 3


class Engine(Protocol):
    """What is measured: both calls end when their logits are there."""

    def prefill(self, tokens: list[int], sequences: int) -> None:
        """Starts every sequence with the same tokens."""

    def decode(self, tokens: int, sequences: int, start: int) -> None:
        """Generates so many tokens in each sequence, from position `start` on."""


class Ours:
    """This project, through its Python interface."""

    def __init__(self, path: str, length: int, sequences: int, mapped: bool) -> None:
        from pipelines.pipeline import load

        self.model = load(path, max_length=length, max_batch_size=sequences, mmap=mapped).model
        cache = self.model.cache.blocks
        cache[:] = (
            0.01 if cache.dtype == np.float32 else 0x3C24
        )  # bfloat16: 0.01. Pages that were never written are all one page of zeros, in the cache

    def prefill(self, tokens: list[int], sequences: int) -> None:
        for slot in range(sequences):
            self.model.prefill(slot, tokens)

    def decode(self, tokens: int, sequences: int, start: int) -> None:
        self.model.cache.lengths[:sequences] = start
        for _ in range(tokens):
            self.model.decode(range(sequences), [5] * sequences)


class LlamaCpp:
    """llama.cpp through llama-cpp-python's low-level interface."""

    def __init__(self, path: str, length: int, sequences: int, mapped: bool) -> None:
        import os

        import llama_cpp as llama

        self.llama = llama
        llama.llama_log_set(_silent(llama), None)
        llama.llama_backend_init()
        parameters = llama.llama_model_default_params()
        parameters.use_mmap = mapped
        self.model = llama.llama_model_load_from_file(path.encode(), parameters)
        context = llama.llama_context_default_params()
        context.n_ctx = length * sequences
        context.n_batch = context.n_ubatch = 512
        context.n_seq_max = sequences
        context.n_threads = context.n_threads_batch = os.cpu_count() or 1
        self.context = llama.llama_init_from_model(self.model, context)
        self.memory = llama.llama_get_memory(self.context)
        self.batch = llama.llama_batch_init(512, 0, 1)

    def prefill(self, tokens: list[int], sequences: int) -> None:
        self.llama.llama_memory_clear(self.memory, True)
        for sequence in range(sequences):
            for start in range(0, len(tokens), 512):
                part = tokens[start : start + 512]
                self._run([(t, start + i, sequence) for i, t in enumerate(part)], only_last=True)

    def decode(self, tokens: int, sequences: int, start: int) -> None:
        for sequence in range(sequences):
            self.llama.llama_memory_seq_rm(self.memory, sequence, start, -1)
        for step in range(tokens):
            self._run([(5, start + step, s) for s in range(sequences)], only_last=False)

    def _run(self, rows: list[tuple[int, int, int]], only_last: bool) -> None:
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence) in enumerate(rows):
            batch.token[i], batch.pos[i] = token, position
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            batch.logits[i] = not only_last or i == len(rows) - 1
        status = self.llama.llama_decode(self.context, batch)
        if status:
            raise RuntimeError(f"llama_decode returned {status}")
        self.llama.llama_get_logits(self.context)


class Torch:
    """The same decoder in plain PyTorch: F.linear, scaled_dot_product_attention, a static cache."""

    def __init__(self, path: str, length: int, sequences: int, mapped: bool) -> None:
        import torch

        from pipelines.registry import open_model
        from weights.quantization import to_float32
        from weights.tensor import Encoding

        self.torch = torch
        files = open_model(path, None, None)
        self.config = files.config
        half = files.tensors["token_embd.weight"].encoding is Encoding.BFLOAT16
        self.dtype = torch.bfloat16 if half else torch.float32
        self.weights = {
            name: torch.from_numpy(to_float32(tensor)).to(self.dtype) for name, tensor in files.tensors.items()
        }
        c = self.config
        shape = (c.n_layers, 2, sequences, c.n_kv_heads, length, c.head_dim)
        self.cache = torch.zeros(shape, dtype=self.dtype)
        from replit.decoder.alibi import alibi_slopes

        self.slopes = torch.from_numpy(alibi_slopes(c.n_heads, c.alibi_bias_max))[:, None, None]

    def prefill(self, tokens: list[int], sequences: int) -> None:
        ids = self.torch.tensor([tokens] * sequences)
        for start in range(0, len(tokens), 512):
            self._run(ids[:, start : start + 512], start)

    def decode(self, tokens: int, sequences: int, start: int) -> None:
        ids = self.torch.full((sequences, 1), 5)
        for step in range(tokens):
            self._run(ids, start + step)

    def _run(self, ids: Any, start: int) -> None:
        torch, c, w = self.torch, self.config, self.weights
        functional = torch.nn.functional
        B, T = ids.shape
        end = start + T
        distance = torch.arange(end)[None, :] - torch.arange(start, end)[:, None]
        bias = (self.slopes * distance).masked_fill(distance > 0, float("-inf")).to(self.dtype)
        with torch.inference_mode():
            x = functional.embedding(ids, w["token_embd.weight"])
            for layer in range(c.n_layers):
                name = f"blk.{layer}.%s.weight"
                h = functional.layer_norm(x, (c.d_model,), w[name % "attn_norm"], None, c.layer_norm_eps)
                qkv = functional.linear(h, w[name % "attn_qkv"])
                q, k, v = qkv.split([c.d_model, c.kv_dim, c.kv_dim], dim=-1)
                heads = [part.view(B, T, -1, c.head_dim).transpose(1, 2) for part in (q, k, v)]
                self.cache[layer, 0, :B, :, start:end] = heads[1]
                self.cache[layer, 1, :B, :, start:end] = heads[2]
                k, v = self.cache[layer, :, :B, :, :end]
                attend = functional.scaled_dot_product_attention
                a = attend(heads[0], k, v, bias, scale=c.softmax_scale, enable_gqa=True)
                x = x + functional.linear(a.transpose(1, 2).reshape(B, T, -1), w[name % "attn_output"])
                h = functional.layer_norm(x, (c.d_model,), w[name % "ffn_norm"], None, c.layer_norm_eps)
                h = functional.gelu(functional.linear(h, w[name % "ffn_up"]))
                x = x + functional.linear(h, w[name % "ffn_down"])
            last = functional.layer_norm(x[:, -1], (c.d_model,), w["output_norm.weight"], None, c.layer_norm_eps)
            functional.linear(last, w["token_embd.weight"])


ENGINES: dict[str, Callable[[str, int, int, bool], Engine]] = {"ours": Ours, "llama.cpp": LlamaCpp, "torch": Torch}
_TEST = re.compile(r"(pp|tg)(\d+)(?:@(\d+))?(?:x(\d+))?")


def parse(test: str) -> tuple[str, int, int, int]:
    """Kind, tokens, tokens before, sequences."""
    match = _TEST.fullmatch(test)
    if match is None:
        raise SystemExit(f"{test!r} is no test; expected one like pp512, tg16, tg16@4000, tg16x8")
    kind, tokens, before, sequences = match.groups()
    return kind, int(tokens), int(before or 1), int(sequences or 1)


def measure(engine: Engine, test: str, fresh: bool) -> list[float]:
    """Tokens a second of each counted run; unless `fresh`, the test was the last one too and the cache is filled."""
    kind, tokens, before, sequences = parse(test)
    rates = []
    prompt = np.random.default_rng(0).integers(5, 8000, tokens if kind == "pp" else before).tolist()
    if kind == "tg" and fresh:
        engine.prefill(prompt, sequences)
    for _ in range(REPEATS + fresh):
        start = time.perf_counter()
        if kind == "pp":
            engine.prefill(prompt, sequences)
        else:
            engine.decode(tokens, sequences, before)
        rates.append(tokens * sequences / (time.perf_counter() - start))
    return rates[-REPEATS:]


def _silent(llama: Any) -> Any:
    @llama.llama_log_callback
    def log(level: int, text: bytes, data: Any) -> None:
        pass

    global _log  # the library keeps only a pointer
    _log = log
    return log


def main() -> None:
    name, path, *tests = sys.argv[1:]
    mapped = name.endswith("+mmap")
    cases = [parse(test) for test in tests]
    length = max(tokens + before for _, tokens, before, _ in cases)
    sequences = max(case[3] for case in cases)
    engine = ENGINES[name.removesuffix("+mmap")](path, length, sequences, mapped)
    last = ""
    for line in sys.stdin:
        test = line.strip()
        print(median(measure(engine, test, test != last)), flush=True)
        last = test


if __name__ == "__main__":
    main()

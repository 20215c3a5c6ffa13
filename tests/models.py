"""Small random models for the tests: weights from a seed, compiled with the product's own code."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.terminal.progress import Quiet
from replit.architecture import REPLIT
from replit.config import ReplitConfig
from replit.cpu.model import CpuModel
from replit.runtime.bind import bind_weights
from replit.runtime.compile import CompileOptions, compile_model
from replit.runtime.target import CPU, Target
from replit.runtime.weight_memory import weight_types
from replit.weight_names import expected_shapes
from weights.quantization import to_float32
from weights.tensor import Encoding, Tensor

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RandomModel:
    """A configuration and its float32 weights, those of matrices as [out, in]."""

    config: ReplitConfig
    weights: dict[str, Array]

    def tensors(self, encoding: Encoding) -> dict[str, Tensor]:
        """The weights as a file would hold them, matrices in `encoding`."""
        return {name: as_tensor(name, array, encoding) for name, array in self.weights.items()}

    def rounded(self) -> dict[str, Array]:
        """The weights as bfloat16 holds them, in float32."""
        return {name: to_float32(tensor) for name, tensor in self.tensors(Encoding.BFLOAT16).items()}

    def compiled(self, encoding: Encoding = Encoding.FLOAT32, slots: int = 1, max_length: int = 1024) -> CpuModel:
        """The model, compiled and bound as the product does it."""
        return compiled_from(self.config, self.tensors(encoding), slots, max_length)


def compiled_from(
    config: ReplitConfig, tensors: dict[str, Tensor], slots: int = 1, max_length: int = 1024, target: Target = CPU
) -> CpuModel:
    """A model of these tensors as they are stored."""
    types = weight_types(tensors, None)
    compiled = compile_model(config, types, CompileOptions(), Quiet(), REPLIT, target)
    bound = bind_weights(compiled, tensors, types, mapped=not target.panels, target=target)
    return CpuModel(config, bound, slots, max_length, target)


def random_model(
    n_heads: int, n_kv_heads: int | None = None, head_dim: int = 16, vocab: int = 101, seed: int = 7
) -> RandomModel:
    """Two layers whose activations have the size of a trained model's, so that errors mean something."""
    d_model = n_heads * head_dim
    config = ReplitConfig(
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads or n_heads,
        n_layers=2,
        ffn_size=4 * d_model,
        vocab_size=vocab,
        max_seq_len=2048,
        alibi_bias_max=8.0,
        layer_norm_eps=1e-5,
        softmax_scale=1 / math.sqrt(head_dim),
        clip_qkv=None,
        logit_scale=None,
        tied_embeddings=True,
    )
    generator = np.random.default_rng([seed, n_heads, config.n_kv_heads])
    weights = {}
    for name, shape in expected_shapes(config).items():
        values = generator.standard_normal(shape, np.float32)
        weights[name] = values / math.sqrt(shape[1]) if len(shape) == 2 else 1 + values / 10
    return RandomModel(config, {name: array.astype(np.float32) for name, array in weights.items()})


def as_tensor(name: str, array: Array, encoding: Encoding) -> Tensor:
    """`array` stored in `encoding`; vectors stay float32, as in GGUF files."""
    from weights.quantization import quantize

    if array.ndim == 1 or encoding is Encoding.FLOAT32:
        return Tensor(name, array.shape, Encoding.FLOAT32, array.reshape(-1).view(np.uint8))
    return Tensor(name, array.shape, encoding, quantize(array, encoding).reshape(-1))


def random_ids(model: RandomModel, count: int, seed: int = 0) -> list[int]:
    """Token ids of a random text."""
    generator = np.random.default_rng([seed, count])
    ids: list[int] = generator.integers(0, model.config.vocab_size, count).tolist()
    return ids


def score(model: CpuModel, ids: list[int]) -> Array:
    """Logits `[len(ids), vocab]` after every id, computed in slot 0 in passes as large as the product's."""
    model.truncate(0, 0)
    chunk = model.prompt_chunk
    parts = [ids[start : start + chunk] for start in range(0, len(ids), chunk)]
    return np.concatenate([model.extend([0], [part], range(len(part))) for part in parts])

"""The NumPy decoder of reference.py against transformers' MPT, and against what it once gave."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_files import ModelFile, write_gguf

import reference
from replit.config import from_checkpoint
from replit.weight_names import map_weights
from weights.files.checkpoint import open_checkpoint
from weights.quantization import to_float32


def loaded(path: Path) -> tuple[Any, dict[str, Any]]:
    checkpoint = open_checkpoint(path)
    config = from_checkpoint(checkpoint)
    tensors = map_weights(checkpoint, config)
    return config, {name: to_float32(tensor) for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("heads", "attention"),
    [(4, {}), (6, {"clip_qkv": 1.0, "softmax_scale": 0.3}), (24, {})],
)
def test_equals_transformers(tmp_path: Path, heads: int, attention: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch", reason="compares with transformers' MPT")
    transformers = pytest.importorskip("transformers", reason="compares with transformers' MPT")
    torch.manual_seed(heads)
    config = transformers.MptConfig(
        d_model=8 * heads, n_heads=heads, n_layers=2, vocab_size=101, max_seq_len=400,
        attn_config=attention,
    )  # fmt: skip
    model = transformers.MptForCausalLM(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.1)
    model.save_pretrained(tmp_path)
    ids = torch.randint(0, 101, (1, 300))
    with torch.no_grad():
        expected = model(ids).logits[0].numpy()
    ours = reference.logits(*loaded(tmp_path), ids[0].tolist())
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_grouped_queries_equal_repeated_heads(tmp_path: Path) -> None:
    """Grouped-query attention is multi-head attention whose key and value heads are repeated."""
    config, weights = loaded(write_gguf(tmp_path / "m.gguf", ModelFile()))
    ids = list(range(5, 45))
    grouped = reference.logits(config, weights, ids)
    groups = config.n_heads // config.n_kv_heads
    for layer in range(config.n_layers):
        name = f"blk.{layer}.attn_qkv.weight"
        q, k, v = np.split(weights[name], [24, 32])
        k, v = (np.repeat(w.reshape(2, 4, 24), groups, axis=0).reshape(24, 24) for w in (k, v))
        weights[name] = np.concatenate([q, k, v])
    multi_head = replace(config, n_kv_heads=config.n_heads)
    repeated = reference.logits(multi_head, weights, ids)
    np.testing.assert_allclose(grouped, repeated, atol=1e-5)


def test_earlier_positions_do_not_see_later_ones(tmp_path: Path) -> None:
    config, weights = loaded(write_gguf(tmp_path / "m.gguf", ModelFile()))
    short = reference.logits(config, weights, [7, 8, 9])
    long = reference.logits(config, weights, [7, 8, 9, 10, 11])
    np.testing.assert_allclose(long[:3], short, atol=1e-5)


def test_alibi_slopes_of_24_heads() -> None:
    """As published for the 3.3B model: 16 powers, then 8 between them."""
    slopes = reference.alibi_slopes(24, 8.0)
    np.testing.assert_allclose(slopes[:16], 2.0 ** (-np.arange(1, 17) / 2), rtol=1e-6)
    np.testing.assert_allclose(slopes[16:], 2.0 ** (-(2 * np.arange(8) + 1) / 4), rtol=1e-6)


def test_logit_scale_and_untied_output(tmp_path: Path) -> None:
    model = ModelFile(keys={"logit_scale": 0.5})
    tensors = model.tensors()
    tensors["output.weight"] = tensors["token_embd.weight"][::-1].copy()
    scaled = reference.logits(*loaded(write_gguf(tmp_path / "a.gguf", model, tensors)), [5, 6])
    tied = reference.logits(*loaded(write_gguf(tmp_path / "b.gguf", ModelFile())), [5, 6])
    np.testing.assert_allclose(scaled, 0.5 * tied[:, ::-1], atol=1e-5)

"""replit-code-v1-3b: its attention of 32 heads of 80, its files before May 2023, its tokenizer in the pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from test_model import greedy
from test_unigram import train

import reference
from models import RandomModel, random_ids, random_model, score
from pipelines.registry import open_model
from replit.architecture import REPLIT
from replit.config import from_checkpoint
from replit.cpu.model import CpuModel
from replit.decoder import gguf_export
from replit.weight_names import map_weights
from weights.errors import UserError
from weights.files.checkpoint import open_checkpoint
from weights.quantization import to_float32
from weights.tensor import Encoding

# The published file's keys, for a model of one tenth of the size.
OLD_CONFIG: dict[str, Any] = {
    "alibi": True,
    "alibi_bias_max": 8,
    "architectures": ["ReplitLM"],
    "attn_clip_qkv": None,
    "attn_impl": "torch",
    "attn_pdrop": 0,
    "attn_qk_ln": False,
    "attn_uses_sequence_id": False,
    "d_model": 320,
    "emb_pdrop": 0,
    "embedding_fraction": 1.0,
    "low_precision_layernorm": True,
    "max_seq_len": 2048,
    "mlp_ratio": 4,
    "model_type": "mosaic_gpt",
    "n_heads": 4,
    "n_layers": 2,
    "no_bias": True,
    "prefix_lm": False,
    "softmax_scale": None,
    "torch_dtype": "float32",
    "vocab_size": 900,
}
OLD_NAMES = {
    "attn_norm": "ln_1", "attn_qkv": "attn.Wqkv", "attn_output": "attn.out_proj",
    "ffn_norm": "ln_2", "ffn_up": "mlp.mlp_up", "ffn_down": "mlp.mlp_down",
    "token_embd": "wte", "output_norm": "ln_f",
}  # fmt: skip


def old_name(canonical: str) -> str:
    *block, name, weight = canonical.split(".")
    layer = f"blocks.{block[1]}." if block else ""
    return f"transformer.{layer}{OLD_NAMES[name]}.{weight}"


@pytest.fixture(scope="module")
def small() -> RandomModel:
    return random_model(4, head_dim=80, vocab=900)


@pytest.fixture(scope="module")
def old_directory(small: RandomModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("v1")
    save_file({old_name(n): w for n, w in small.weights.items()}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(OLD_CONFIG))
    (directory / "spiece.model").write_bytes(train())
    return directory


@pytest.fixture(scope="module")
def v1() -> RandomModel:
    """Two layers of the published width."""
    return random_model(32, head_dim=80, vocab=211)


@pytest.fixture(scope="module")
def v1_model(v1: RandomModel) -> CpuModel:
    return v1.compiled(max_length=512)


def test_32_heads_of_80_equal_the_numpy_decoder(v1: RandomModel, v1_model: CpuModel) -> None:
    ids = random_ids(v1, 130)
    expected = reference.logits(v1.config, v1.weights, ids)
    np.testing.assert_allclose(score(v1_model, ids), expected, atol=1e-4, rtol=0)


def test_32_heads_of_80_equal_transformers(v1: RandomModel, v1_model: CpuModel) -> None:
    """Logits, and 200 greedy tokens; one pass over what the cached decode gave shows both."""
    torch = pytest.importorskip("torch", reason="compares with torch, which is not installed")
    pytest.importorskip("transformers", reason="compares with transformers, which is not installed")
    from record_golden import transformers_model

    theirs = transformers_model(v1)
    prompt = random_ids(v1, 20)
    tokens = greedy(v1_model, prompt, 200)
    ids = prompt + tokens
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(score(v1_model, ids), expected, atol=1e-4, rtol=0)
    assert expected[len(prompt) - 1 : -1].argmax(-1).tolist() == tokens


def test_files_of_before_may_2023(small: RandomModel, old_directory: Path) -> None:
    files = open_model(str(old_directory), None, None)
    assert files.config == small.config
    for name, tensor in files.tensors.items():
        np.testing.assert_array_equal(to_float32(tensor), small.weights[name], name)
    text = "def f(x):\n    return  x\n"
    assert files.tokenizer.decode(files.tokenizer.encode(text)) == text
    assert files.tokenizer.eos_token_id == 1


def test_conversion_to_gguf_keeps_the_tokenizer(old_directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "v1.gguf"
    gguf_export.write(gguf_export.plan(open_checkpoint(old_directory), "v1", Encoding.Q8_0, REPLIT), path)
    before, after = open_model(str(old_directory), None, None), open_model(str(path), None, None)
    text = "def f(x):\n\t\treturn   x  # ½ é 漢\n\n\n"
    assert after.tokenizer.encode(text) == before.tokenizer.encode(text)
    assert after.tokenizer.special == before.tokenizer.special


def test_old_and_new_names_of_one_weight_are_refused_together(
    small: RandomModel, old_directory: Path, tmp_path: Path
) -> None:
    tensors = {old_name(n): w for n, w in small.weights.items()}
    tensors["transformer.norm_f.weight"] = tensors["transformer.ln_f.weight"].copy()
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(OLD_CONFIG))
    checkpoint = open_checkpoint(tmp_path)
    with pytest.raises(UserError, match="'transformer.ln_f.weight' and 'transformer.norm_f.weight' are both"):
        map_weights(checkpoint, from_checkpoint(checkpoint))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alibi": False}, "alibi is False; expected True"),
        ({"attn_qk_ln": True}, "qk_ln is True; expected False"),
        ({"prefix_lm": True}, "prefix_lm is True; expected False"),
    ],
)
def test_old_configurations_that_are_refused(
    small: RandomModel, changes: dict[str, Any], message: str, old_directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").symlink_to(old_directory / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(OLD_CONFIG | changes))
    with pytest.raises(UserError, match=message):
        open_model(str(tmp_path), None, None)

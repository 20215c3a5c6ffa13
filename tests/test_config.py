"""Configurations from GGUF keys and from config.json: what is read, and what is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_files import ModelFile, config_json, vocabulary, write_gguf, write_hub_directory

from replit.config import ReplitConfig, from_checkpoint
from weights.errors import UserError
from weights.files.checkpoint import open_checkpoint

VOCABULARY = len(vocabulary()[0])
EXPECTED = ReplitConfig(
    d_model=24,
    n_heads=6,
    n_kv_heads=2,
    n_layers=2,
    ffn_size=96,
    vocab_size=VOCABULARY,
    max_seq_len=128,
    alibi_bias_max=8.0,
    layer_norm_eps=1e-5,
    softmax_scale=0.5,
    clip_qkv=None,
    logit_scale=None,
    tied_embeddings=True,
)


def from_gguf(tmp_path: Path, **keys: Any) -> ReplitConfig:
    path = write_gguf(tmp_path / "m.gguf", ModelFile(keys=keys))
    return from_checkpoint(open_checkpoint(path))


def from_json(tmp_path: Path, **changes: Any) -> ReplitConfig:
    return from_checkpoint(open_checkpoint(write_hub_directory(tmp_path / "m", ModelFile(), **changes)))


def attention(**changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = config_json(ModelFile())["attn_config"]
    return config | changes


def test_gguf_keys(tmp_path: Path) -> None:
    config = from_gguf(tmp_path)
    assert replace(config, layer_norm_eps=1e-5) == EXPECTED
    assert config.layer_norm_eps == float(np.float32(1e-5))  # GGUF holds float32
    assert (config.head_dim, config.kv_dim, config.qkv_dim) == (4, 8, 40)


@pytest.mark.parametrize(
    ("keys", "changed"),
    [
        ({"attention.head_count_kv": None}, {"n_kv_heads": 6}),
        ({"attention.clamp_kqv": 6.0}, {"clip_qkv": 6.0}),
        ({"attention.clamp_kqv": 0.0}, {"clip_qkv": None}),
        ({"attention.scale": 0.25}, {"softmax_scale": 0.25}),
        ({"logit_scale": 0.5}, {"logit_scale": 0.5}),
        ({"attention.key_length": 4, "vocab_size": VOCABULARY}, {}),
    ],
)
def test_optional_gguf_keys(tmp_path: Path, keys: dict[str, Any], changed: dict[str, Any]) -> None:
    config = replace(from_gguf(tmp_path, **keys), layer_norm_eps=1e-5)
    assert config == replace(EXPECTED, **changed)


def test_a_duplicated_output_matrix_is_tied_and_another_is_not(tmp_path: Path) -> None:
    model = ModelFile()
    tensors = model.tensors()
    for output, tied in (
        (tensors["token_embd.weight"], True),
        (tensors["token_embd.weight"] + 1, False),
        (tensors["token_embd.weight"].astype(np.float16), False),
    ):
        path = write_gguf(tmp_path / "m.gguf", model, tensors | {"output.weight": output})
        assert from_checkpoint(open_checkpoint(path)).tied_embeddings is tied


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"embedding_length": None}, "mpt.embedding_length is missing; expected a positive whole"),
        ({"block_count": 0}, "mpt.block_count is 0; expected a positive whole number"),
        ({"context_length": "long"}, "mpt.context_length is 'long'; expected a positive whole"),
        ({"context_length": "long" * 99_999}, "longlong'; expected a positive whole number"),
        ({"attention.head_count": 1 << 31}, "mpt.attention.head_count is 2147483648; expected"),
        ({"attention.max_alibi_bias": 0.0}, "mpt.attention.max_alibi_bias is 0.0; expected a pos"),
        ({"attention.max_alibi_bias": None}, "mpt.attention.max_alibi_bias is missing; expected"),
        ({"attention.layer_norm_epsilon": float("nan")}, "mpt.attention.layer_norm_epsilon is nan"),
        ({"attention.clamp_kqv": -1.0}, "mpt.attention.clamp_kqv is -1.0; expected a positive"),
        ({"attention.head_count": 5}, "cannot divide the embedding size 24 into 5 heads"),
        ({"attention.head_count_kv": 4}, "cannot divide 6 heads among 4 key/value heads"),
        ({"attention.key_length": 8}, "mpt.attention.key_length is 8; expected 4, the only arith"),
        ({"use_parallel_residual": True}, "mpt.use_parallel_residual is True; expected False"),
        ({"rope.freq_base": 1e4}, "mpt.rope.freq_base is 10000.0; expected no such key"),
        ({"vocab_size": 7}, f"mpt.vocab_size says 7 tokens, the embedding table has {VOCABULARY}"),
    ],
)
def test_gguf_keys_that_are_refused(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        from_gguf(tmp_path, **keys)
    assert message in str(raised.value)
    assert str(tmp_path / "m.gguf") in str(raised.value)
    assert len(str(raised.value)) < 2100


def test_a_token_list_of_another_length(tmp_path: Path) -> None:
    tensors = ModelFile().tensors()
    tensors["token_embd.weight"] = tensors["token_embd.weight"][:-1]
    path = write_gguf(tmp_path / "m.gguf", ModelFile(), tensors)
    message = f"tokenizer.ggml.tokens says {VOCABULARY} tokens, the embedding table has"
    with pytest.raises(UserError, match=message):
        from_checkpoint(open_checkpoint(path))


def test_a_gguf_without_an_embedding(tmp_path: Path) -> None:
    tensors = ModelFile().tensors()
    del tensors["token_embd.weight"]
    path = write_gguf(tmp_path / "m.gguf", ModelFile(), tensors)
    with pytest.raises(UserError, match=r"tensor 'token_embd.weight' is missing; expected the emb"):
        from_checkpoint(open_checkpoint(path))


def test_config_json(tmp_path: Path) -> None:
    assert from_json(tmp_path) == EXPECTED


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        (
            {"architectures": ["MptForCausalLM"], "layer_norm_epsilon": 1e-6},
            {"layer_norm_eps": 1e-6},
        ),
        ({"norm_eps": 1e-6}, {"layer_norm_eps": 1e-6}),
        ({"architectures": None}, {}),
        ({"expansion_ratio": 2.5}, {"ffn_size": 60}),
        ({"expansion_ratio": None}, {}),
        ({"ffn_config": {"ffn_type": "mptmlp", "ffn_hidden_size": 80}}, {"ffn_size": 80}),
        ({"ffn_config": {"ffn_act_fn": {"name": "gelu", "approximate": "none"}}}, {}),
        ({"logit_scale": 0.5}, {"logit_scale": 0.5}),
        ({"logit_scale": "inv_sqrt_d_model"}, {"logit_scale": 1 / sqrt(24)}),
        ({"tie_word_embeddings": False}, {"tied_embeddings": False}),
        ({"attn_config": attention(softmax_scale=0.2)}, {"softmax_scale": 0.2}),
        ({"attn_config": attention(clip_qkv=6)}, {"clip_qkv": 6.0}),
        ({"attn_config": attention(alibi_bias_max=16)}, {"alibi_bias_max": 16.0}),
        (
            {"attn_config": attention(attn_type="multihead_attention", kv_n_heads=None)},
            {"n_kv_heads": 6},
        ),
        (
            {"attn_config": attention(attn_type="multiquery_attention", kv_n_heads=None)},
            {"n_kv_heads": 1},
        ),
        ({"attn_config": {"alibi": True}}, {"n_kv_heads": 6}),
        ({"architectures": ["MptForCausalLM"], "attn_config": None}, {"n_kv_heads": 6}),
    ],
)
def test_optional_config_keys(tmp_path: Path, changes: dict[str, Any], changed: dict[str, Any]) -> None:
    assert from_json(tmp_path, **changes) == replace(EXPECTED, **changed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architectures": ["LlamaForCausalLM"]},
            "architectures is ['LlamaForCausalLM']; expected",
        ),
        ({"architectures": None, "model_type": "llama"}, "architectures is None; expected MPTFor"),
        ({"d_model": "24"}, "d_model is '24'; expected a positive whole number"),
        ({"d_model": True}, "d_model is True; expected a positive whole number"),
        ({"n_layers": -1}, "n_layers is -1; expected a positive whole number"),
        ({"n_heads": 0}, "n_heads is 0; expected a positive whole number"),
        ({"vocab_size": None}, "vocab_size is None; expected a positive whole number"),
        ({"norm_type": "rmsnorm"}, "norm_type is 'rmsnorm'; expected 'low_precision_layernorm' or"),
        ({"logit_scale": "half"}, "logit_scale is 'half'; expected a finite number"),
        ({"logit_scale": 1e39}, "logit_scale is 1e+39; expected a finite number in 32 bits"),
        ({"logit_scale": 10**400}, "0; expected a finite number in 32 bits"),
        ({"layer_norm_epsilon": 1e-46}, "layer_norm_epsilon is 1e-46; expected a positive number"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1; expected true or false"),
        (
            {"final_logit_softcapping": 30.0},
            "final_logit_softcapping is 30.0; expected no such key",
        ),
        ({"block_overrides": {"order": []}}, "block_overrides is {'order': []}; expected no such"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}; expected no"),
        ({"attn_config": [1]}, "attn_config is [1]; expected a mapping of keys to values"),
        ({"attn_config": attention(alibi=False)}, "attn_config.alibi is False; expected True"),
        ({"attn_config": {}}, "attn_config.alibi is missing; expected true"),
        ({"attn_config": attention(prefix_lm=True)}, "attn_config.prefix_lm is True; expected Fal"),
        ({"attn_config": attention(qk_ln=True)}, "attn_config.qk_ln is True; expected False"),
        ({"attn_config": attention(rope=True)}, "attn_config.rope is True; expected False"),
        ({"attn_config": attention(attn_type="flash")}, "attn_config.attn_type is 'flash'; expect"),
        ({"attn_config": attention(kv_n_heads=None)}, "attn_config.kv_n_heads is None; expected"),
        (
            {"attn_config": attention(sliding_window_size=64)},
            "attn_config.sliding_window_size is 64",
        ),
        (
            {"attn_config": attention(softmax_scale=float("inf"))},
            "attn_config.softmax_scale is inf",
        ),
        ({"ffn_config": {"ffn_type": "mptglu"}}, "ffn_config.ffn_type is 'mptglu'; expected 'mpt"),
        (
            {"ffn_config": {"ffn_act_fn": {"name": "gelu", "approximate": "tanh"}}},
            "ffn_config.ffn_act_fn is {'name': 'gelu', 'approximate': 'tanh'}; expected",
        ),
    ],
)
def test_config_keys_that_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        from_json(tmp_path, **changes)
    assert message in str(raised.value)


def test_safetensors_without_config(tmp_path: Path) -> None:
    directory = write_hub_directory(tmp_path / "m", ModelFile())
    (directory / "config.json").unlink()
    with pytest.raises(UserError, match=r"there is no config.json beside .*model.safetensors; exp"):
        from_checkpoint(open_checkpoint(directory))


def test_another_architecture(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", ModelFile())
    content = path.read_bytes().replace(b"\x03\0\0\0\0\0\0\0mpt", b"\x03\0\0\0\0\0\0\0gpt", 1)
    path.write_bytes(content)
    with pytest.raises(UserError, match="holds the architecture 'gpt'; expected 'mpt': give a GGUF"):
        from_checkpoint(open_checkpoint(path))


def test_what_transformers_itself_writes(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="compares with transformers' MPT")
    written = transformers.MptConfig(
        d_model=32,
        n_heads=4,
        n_layers=3,
        vocab_size=99,
        max_seq_len=77,
        expansion_ratio=2,
        layer_norm_epsilon=1e-6,
        attn_config={"clip_qkv": 3.0, "softmax_scale": 0.3, "alibi_bias_max": 6},
    )
    config = json.loads(written.to_json_string(use_diff=False))
    directory = write_hub_directory(tmp_path / "m", ModelFile())
    (directory / "config.json").write_text(json.dumps(config))
    assert from_checkpoint(open_checkpoint(directory)) == ReplitConfig(
        d_model=32, n_heads=4, n_kv_heads=4, n_layers=3, ffn_size=64, vocab_size=99, max_seq_len=77, alibi_bias_max=6.0,
        layer_norm_eps=1e-6, softmax_scale=0.3, clip_qkv=3.0, logit_scale=None, tied_embeddings=True,
    )  # fmt: skip

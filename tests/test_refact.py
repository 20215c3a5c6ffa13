"""Refact: the graph against NumPy; configuration, names and conversion from every layout of its files."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest
import reference_refact
from safetensors.numpy import save_file
from test_model import greedy
from tiny_model import write_tokenizer

from models import RandomModel, as_tensor, random_ids, score
from pipelines.pipeline import load
from pipelines.registry import architecture_of, open_model
from pipelines.terminal.progress import Quiet
from refact.architecture import REFACT
from refact.config import RefactConfig, from_checkpoint
from refact.weight_names import expected_shapes, map_weights
from replit.cpu.model import CpuModel
from replit.decoder import gguf_export
from replit.runtime.bind import bind_weights
from replit.runtime.compile import CompileOptions, compile_model
from replit.runtime.weight_memory import weight_types
from weights.errors import UserError
from weights.files.checkpoint import open_checkpoint
from weights.quantization import to_float32
from weights.tensor import Encoding

Array = npt.NDArray[np.float32]


def random_refact(n_heads: int = 32, head_dim: int = 64, vocab: int = 640, seed: int = 3) -> RandomModel:
    """Two layers with an attention of the published shape, activations of the size of a trained model's."""
    size = n_heads * head_dim
    config = RefactConfig(
        d_model=size, n_heads=n_heads, n_kv_heads=1, n_layers=2, ffn_size=768, vocab_size=vocab, max_seq_len=4096,
        alibi_bias_max=8.0, layer_norm_eps=1e-5, softmax_scale=1 / math.sqrt(head_dim), tied_embeddings=False,
    )  # fmt: skip
    generator = np.random.default_rng([seed, n_heads, head_dim])
    weights: dict[str, Array] = {}
    for name, shape in expected_shapes(config).items():
        values = generator.standard_normal(shape, np.float32)
        weights[name] = values / np.float32(math.sqrt(shape[1])) if len(shape) == 2 else 1 + values / 10
    return RandomModel(config, weights)  # type: ignore[arg-type]  # shares the shape, not the class


def compiled(model: RandomModel, encoding: Encoding = Encoding.FLOAT32, slots: int = 1) -> CpuModel:
    tensors = {name: as_tensor(name, array, encoding) for name, array in model.weights.items()}
    types = weight_types(tensors, None)
    body = compile_model(model.config, types, CompileOptions(), Quiet(), REFACT)
    return CpuModel(model.config, bind_weights(body, tensors, types, mapped=False), slots, 1024)


@pytest.fixture(scope="module")
def random() -> RandomModel:
    return random_refact()


@pytest.fixture(scope="module")
def graph(random: RandomModel) -> CpuModel:
    return compiled(random, slots=3)


@pytest.mark.parametrize("length", [1, 2, 65, 128, 129, 300])
def test_logits_equal_the_numpy_decoder(random: RandomModel, graph: CpuModel, length: int) -> None:
    ids = random_ids(random, length)
    expected = reference_refact.logits(random.config, random.weights, ids)  # type: ignore[arg-type]
    np.testing.assert_allclose(score(graph, ids), expected, atol=1e-4, rtol=0)


def test_greedy_tokens_equal_the_numpy_decoder(random: RandomModel, graph: CpuModel) -> None:
    """200 tokens; that NumPy computes them whole also shows that the cached decode equals no cache."""
    prompt = random_ids(random, 20)
    tokens = greedy(graph, prompt, 200)
    whole = reference_refact.logits(random.config, random.weights, prompt + tokens)  # type: ignore[arg-type]
    assert whole[len(prompt) - 1 : -1].argmax(-1).tolist() == tokens


def test_cached_and_batched_decode_equal_one_pass(random: RandomModel, graph: CpuModel) -> None:
    ids = random_ids(random, 60)
    whole = score(graph, ids)
    for slot in range(3):
        graph.prefill(slot, ids[: 20 + slot])
    for step in range(30):
        logits = graph.decode([0, 1, 2], [ids[20 + slot + step] for slot in range(3)])
        for slot in range(3):
            np.testing.assert_allclose(logits[slot], whole[20 + slot + step], atol=1e-5, rtol=0)


def test_bfloat16_weights_stay_within_their_bound() -> None:
    model = random_refact(4, 32)
    rounded = {n: to_float32(as_tensor(n, w, Encoding.BFLOAT16)) for n, w in model.weights.items()}
    ids = random_ids(model, 100)
    expected = reference_refact.logits(model.config, rounded, ids)  # type: ignore[arg-type]
    # 64 000 logits: which activation rounds which way depends on the order of sums, and two go beyond three hundredths.
    found = score(compiled(model, Encoding.BFLOAT16), ids)
    np.testing.assert_allclose(found, expected, atol=4e-2, rtol=0)
    assert np.quantile(np.abs(found - expected), 0.999) < 3e-2


CONFIG: dict[str, Any] = {
    "architectures": ["GPTRefactForCausalLM"],
    "model_type": "gpt_refact",
    "n_embd": 128,
    "n_head": 4,
    "n_layer": 2,
    "n_positions": 4096,
    "n_inner": 1100,
    "vocab_size": 640,
    "layer_norm_epsilon": 1e-5,
    "multi_query": True,
    "activation_function": "gelu_pytorch_tanh",
}
HUB = {
    "attn_norm": "ln_1", "attn_q": "attn.q", "attn_k": "attn.k", "attn_v": "attn.v", "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2", "ffn_gate": "mlp.linear_1", "ffn_up": "mlp.linear_3", "ffn_down": "mlp.c_proj",
}  # fmt: skip


def hub_tensors(weights: dict[str, Array], fused: bool) -> dict[str, Array]:
    """The names that the repository uses now (fused), or in its early revision."""
    result = {
        "transformer.wte.weight": weights["token_embd.weight"],
        "ln_f.weight": weights["output_norm.weight"],
        "lm_head.weight": weights["output.weight"],
    }
    for layer in range(2):
        for name, hub in HUB.items():
            result[f"transformer.h.{layer}.{hub}.weight"] = weights[f"blk.{layer}.{name}.weight"]
        if fused:
            block = f"transformer.h.{layer}."
            for whole, parts in (("attn.kv", "attn.k attn.v"), ("mlp.gate_up_proj", "mlp.linear_1 mlp.linear_3")):
                halves = [result.pop(f"{block}{part}.weight") for part in parts.split()]
                result[f"{block}{whole}.weight"] = np.concatenate(halves)
    return result


def write_hub(directory: Path, tensors: dict[str, Array], **changes: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(CONFIG | changes))
    write_tokenizer(directory / "tokenizer.json", digits_apart=True)
    return directory


@pytest.fixture(scope="module")
def small() -> RandomModel:
    return random_refact(4, 32)


@pytest.mark.parametrize("fused", [True, False])
def test_both_layouts_of_the_hub_give_the_same_weights(small: RandomModel, fused: bool, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_hub(tmp_path, hub_tensors(small.weights, fused)))
    config = from_checkpoint(checkpoint)
    assert config == small.config
    for name, tensor in map_weights(checkpoint, config).items():
        np.testing.assert_array_equal(to_float32(tensor), small.weights[name], name)


def test_a_hub_directory_runs_in_the_same_pipeline(random: RandomModel, tmp_path: Path) -> None:
    directory = write_hub(tmp_path, hub_tensors(random.weights, True), n_embd=2048, n_head=32)
    pipeline = load(str(directory), max_length=256)
    ids = random_ids(random, 30)
    expected = reference_refact.logits(random.config, random.weights, ids)  # type: ignore[arg-type]
    np.testing.assert_allclose(pipeline.logits(ids), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("encoding", [Encoding.FLOAT32, Encoding.BFLOAT16, Encoding.Q8_0, Encoding.Q4_K])
def test_conversion_to_gguf_and_back(small: RandomModel, encoding: Encoding, tmp_path: Path) -> None:
    weights = random_refact(8, 32).weights  # rows of 256, a q4_k block
    source = write_hub(tmp_path / "hub", hub_tensors(weights, True), n_embd=256, n_head=8, n_inner=1100)
    checkpoint = open_checkpoint(source)
    path = tmp_path / "refact.gguf"
    gguf_export.write(gguf_export.plan(checkpoint, "refact", encoding, architecture_of(checkpoint)), path)
    fields = gguf.GGUFReader(path).fields
    assert fields["general.architecture"].contents() == "refact"
    assert fields["tokenizer.ggml.pre"].contents() == "refact"
    assert fields["refact.attention.layer_norm_rms_epsilon"].contents() == pytest.approx(1e-5)
    files = open_model(str(path), None, None)
    eps = float(np.float32(1e-5))  # a float32 in the file
    assert files.config == dataclasses.replace(from_checkpoint(checkpoint), layer_norm_eps=eps)  # type: ignore[type-var]
    error = {Encoding.FLOAT32: 0, Encoding.BFLOAT16: 0.004, Encoding.Q8_0: 0.02, Encoding.Q4_K: 0.2}[encoding]
    for name, tensor in files.tensors.items():
        scale = np.abs(weights[name]).max()
        assert np.abs(to_float32(tensor) - weights[name]).max() <= error * scale, name


def test_the_output_matrix_is_tied_where_the_file_has_none_or_a_copy(small: RandomModel, tmp_path: Path) -> None:
    tensors = hub_tensors(small.weights, True)
    copy = tensors | {"lm_head.weight": tensors["transformer.wte.weight"].copy()}
    checkpoint = open_checkpoint(write_hub(tmp_path / "copy", copy))
    config = from_checkpoint(checkpoint)
    assert config.tied_embeddings
    assert "output.weight" not in map_weights(checkpoint, config)
    del tensors["lm_head.weight"]
    assert from_checkpoint(open_checkpoint(write_hub(tmp_path / "none", tensors))).tied_embeddings
    checkpoint = open_checkpoint(write_hub(tmp_path / "no", tensors, tie_word_embeddings=False))
    with pytest.raises(UserError, match="tie_word_embeddings is False; expected True"):
        from_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"multi_query": False}, "multi_query is False; expected True"),
        ({"scale_attn_weights": False}, "scale_attn_weights is False; expected True"),
        ({"n_head": 3}, "cannot divide the embedding size 128 into 3 heads"),
        ({"n_layer": 9999}, "the configuration says 9999 layers"),
        ({"n_embd": None}, "n_embd is None; expected a positive whole number"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is True; expected False"),
        ({"n_inner": 2200}, r"mlp.c_proj.weight' has the shape \[128, 768\]; expected \[128, 1536\]"),
        ({"architectures": ["LlamaForCausalLM"]}, "architectures is .*Llama.*; expected MPTForCausalLM"),
    ],
)
def test_configurations_that_are_refused(
    small: RandomModel, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    source = write_hub(tmp_path, hub_tensors(small.weights, True), **changes)
    with pytest.raises(UserError, match=message):
        open_model(str(source), None, None)


def test_a_weight_that_is_there_twice_is_refused(small: RandomModel, tmp_path: Path) -> None:
    tensors = hub_tensors(small.weights, True) | hub_tensors(small.weights, False)
    with pytest.raises(UserError, match="is there by itself and in a fused tensor"):
        open_model(str(write_hub(tmp_path, tensors)), None, None)


def test_published_width_of_the_gated_layer() -> None:
    from refact.config import ffn_size

    assert ffn_size(4 * 2048) == 5632

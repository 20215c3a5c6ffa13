"""Models as other programs store them, built with gguf-py, safetensors and torch: what they compute, or what to type.

The truth for logits is the NumPy decoder of tests/reference.py in float64, on weights that gguf-py expanded.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from model_files import MERGES, ModelFile, config_json, hub_name, vocabulary, write_gguf, write_hub_directory
from safetensors.numpy import save_file
from tiny_model import write_tokenizer
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

import reference
from models import compiled_from
from pipelines.commands.cli import replit
from pipelines.commands.convert import convert
from pipelines.commands.inspect import inspect
from pipelines.engine.slots import Slots
from pipelines.pipeline import load
from pipelines.registry import architecture_of
from pipelines.terminal.progress import Quiet
from refact.config import from_checkpoint as refact_config
from replit.config import ReplitConfig, from_checkpoint
from replit.decoder.encodings import COMPUTED_IN
from replit.decoder.finite import check_finite
from replit.weight_names import map_weights
from weights.convert import ggml_name
from weights.errors import UserError
from weights.files.checkpoint import Checkpoint, open_checkpoint
from weights.quantization import to_float32
from weights.tensor import Encoding
from weights.tokenizers.load import load_tokenizer

Array = npt.NDArray[Any]
WIDE = ModelFile(d_model=256, n_heads=4, n_kv_heads=2, ffn_size=512, n_layers=2)


def error_of(path: Path, **options: Any) -> str:
    with pytest.raises(UserError) as raised:
        opened(path, **options)
    return str(raised.value).replace(str(path), "PATH")


def opened(path: Path, **options: Any) -> tuple[Checkpoint, ReplitConfig, Mapping[str, Any]]:
    checkpoint = open_checkpoint(path, **options)
    config = from_checkpoint(checkpoint)
    return checkpoint, config, map_weights(checkpoint, config)


def hub_arrays(model: ModelFile) -> dict[str, Array]:
    return {hub_name(name): array for name, array in model.tensors().items()}


# --- an output matrix of its own -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stated", [{}, {"tie_word_embeddings": True}, {"tie_word_embeddings": False}])
def test_an_output_matrix_with_other_values_is_used(tmp_path: Path, stated: dict[str, Any]) -> None:
    directory = write_hub_directory(tmp_path / "m", ModelFile(), **stated)
    arrays = hub_arrays(ModelFile())
    arrays["lm_head.weight"] = arrays["transformer.wte.weight"][::-1].copy()
    save_file(arrays, directory / "model.safetensors")
    _, config, tensors = opened(directory)
    assert not config.tied_embeddings
    np.testing.assert_array_equal(to_float32(tensors["output.weight"]), arrays["lm_head.weight"])


def test_transformers_uses_it_too(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch, which is not installed")
    pytest.importorskip("transformers", reason="compares with transformers, which is not installed")
    from transformers import MptForCausalLM

    from models import random_model
    from record_golden import transformers_model

    random = random_model(4)
    transformers_model(random).save_pretrained(tmp_path)
    from safetensors.numpy import load_file

    arrays = load_file(tmp_path / "model.safetensors")
    arrays["lm_head.weight"] = np.roll(arrays["transformer.wte.weight"], 5, axis=0)
    save_file(arrays, tmp_path / "model.safetensors", metadata={"format": "pt"})
    _, config, tensors = opened(tmp_path)
    ids = list(range(40))
    weights = {name: to_float32(tensor).astype(np.float64) for name, tensor in tensors.items()}
    ours = reference.logits(config, weights, ids)
    with torch.no_grad():
        theirs = MptForCausalLM.from_pretrained(tmp_path)(torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


# --- keys and tensors that change nothing, and those that do ---------------------------------------------------------


@pytest.mark.parametrize(
    "keys",
    [
        {"rope.dimension_count": 4},
        {"expert_count": 0, "expert_used_count": 0},
        {"attention.sliding_window": 0},
        {"pooling_type": 0, "embedding_length_out": 0},
    ],
)
def test_keys_that_ask_for_nothing(tmp_path: Path, keys: dict[str, Any]) -> None:
    opened(write_gguf(tmp_path / "m.gguf", ModelFile(keys=keys)))


@pytest.mark.parametrize("key", ["expert_count", "attention.sliding_window", "rope.freq_base", "leading_dense"])
def test_keys_that_ask_for_something(tmp_path: Path, key: str) -> None:
    path = write_gguf(tmp_path / "m.gguf", ModelFile(keys={key: 2}))
    assert f"mpt.{key} is 2; expected no such key, its arithmetic is not implemented" in error_of(path)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("attn_config", "attn_temperature_tuning", {"floor_scale": 8192}),
        ("attn_config", "reuse_kv_layer_idx", -1),
        ("attn_config", "attn_scale_of_tomorrow", 2.0),
        ("attn_config", "attn_uses_sequence_id", True),
        ("attn_config", "causal", False),
        ("attn_config", "alibi_on", False),
        ("ffn_config", "moe_num_experts", 4),
    ],
)
def test_keys_of_config_json_that_could_change_the_arithmetic(
    tmp_path: Path, section: str, key: str, value: Any
) -> None:
    config = config_json(ModelFile())
    changes = {section: (config.get(section) or {}) | {key: value}}
    directory = write_hub_directory(tmp_path / "m", ModelFile(), **changes)
    assert f"{section}.{key} is {value!r}; expected" in error_of(directory)


@pytest.mark.parametrize(
    "extra",
    [
        {"attn_pdrop": 0.1, "attn_impl": "flash", "model_type": ""},
        {"rope_theta": 10000, "rope_impl": "dail", "rope_dail_config": {"type": "original"}},
        {"attn_temperature_tuning": None, "reuse_kv_layer_idx": None, "some_switch": False},
        {"attn_uses_sequence_id": False},
    ],
)
def test_keys_of_config_json_that_change_nothing(tmp_path: Path, extra: dict[str, Any]) -> None:
    attention = config_json(ModelFile())["attn_config"] | extra
    opened(write_hub_directory(tmp_path / "m", ModelFile(), attn_config=attention))


def test_biases_of_zeros_are_left_aside_and_others_are_not(tmp_path: Path) -> None:
    tensors = ModelFile().tensors() | {"blk.0.attn_qkv.bias": np.zeros(40, np.float32)}
    opened(write_gguf(tmp_path / "m.gguf", ModelFile(), tensors))
    arrays = hub_arrays(ModelFile()) | {"transformer.blocks.1.norm_2.bias": np.zeros(24, np.float32)}
    directory = write_hub_directory(tmp_path / "m", ModelFile())
    save_file(arrays, directory / "model.safetensors")
    opened(directory)
    arrays["transformer.blocks.1.norm_2.bias"][3] = 1e-6
    save_file(arrays, directory / "model.safetensors")
    assert "unexpected tensor 'transformer.blocks.1.norm_2.bias' (biases other than zero" in error_of(directory)


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "_orig_mod.", "module.transformer."])
def test_names_behind_what_libraries_put_before_them(tmp_path: Path, prefix: str) -> None:
    directory = write_hub_directory(tmp_path / "m", ModelFile())
    arrays = {prefix + name.removeprefix("transformer."): array for name, array in hub_arrays(ModelFile()).items()}
    save_file(arrays, directory / "model.safetensors")
    assert list(opened(directory)[2]) == list(ModelFile().tensors())


# --- candle's GGUF ---------------------------------------------------------------------------------------------------


def write_candle(path: Path, model: ModelFile, kind: gguf.GGMLQuantizationType) -> Path:
    """As candle's tensor-tools: version 2, no key at all, the hub's names; matrices in one type, vectors float32."""
    infos, blobs, offset = b"", b"", 0
    for name, array in hub_arrays(model).items():
        is_matrix = array.ndim == 2
        stored = kind if is_matrix else gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(array, stored).tobytes()
        shape = b"".join(n.to_bytes(8, "little") for n in reversed(array.shape))
        infos += len(name).to_bytes(8, "little") + name.encode() + array.ndim.to_bytes(4, "little") + shape
        infos += int(stored).to_bytes(4, "little") + offset.to_bytes(8, "little")
        blobs += data + bytes(-len(data) % 32)
        offset = len(blobs)
    count = len(hub_arrays(model)).to_bytes(8, "little")
    header = b"GGUF" + (2).to_bytes(4, "little") + count + bytes(8) + infos
    path.write_bytes(header + bytes(-len(header) % 32) + blobs)
    return path


PAIRS = [tuple(merge.split(" ")) for merge in MERGES]


def write_vocabulary(path: Path) -> None:
    backend = Backend(models.BPE(vocab={t: i for i, t in enumerate(vocabulary()[0])}, merges=PAIRS))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(["<|endoftext|>"])
    backend.add_tokens(vocabulary()[0][-2:])
    backend.save(str(path))


@pytest.mark.parametrize("beside", [True, False])
def test_candles_gguf_takes_its_configuration_from_beside_or_where_it_is_said(tmp_path: Path, beside: bool) -> None:
    path = write_candle(tmp_path / "model-q8_0.gguf", WIDE, gguf.GGMLQuantizationType.Q8_0)
    elsewhere = tmp_path if beside else tmp_path / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / "config.json").write_text(json.dumps(config_json(WIDE)))
    write_vocabulary(elsewhere / "tokenizer.json")
    checkpoint, config, tensors = opened(path, config=None if beside else elsewhere)
    tokenizer = load_tokenizer(checkpoint, None if beside else elsewhere)
    assert (config.n_heads, config.n_kv_heads, config.max_seq_len) == (4, 2, 128)
    assert tokenizer.vocab_size == len(vocabulary()[0])
    for name, array in WIDE.tensors().items():
        stored = gguf.GGMLQuantizationType.Q8_0 if array.ndim == 2 else gguf.GGMLQuantizationType.F32
        expected = gguf.dequantize(gguf.quants.quantize(array, stored), stored)
        np.testing.assert_array_equal(to_float32(tensors[name]), expected)


def test_without_a_configuration_the_shapes_say_what_they_can(tmp_path: Path) -> None:
    path = write_candle(tmp_path / "m.gguf", WIDE, gguf.GGMLQuantizationType.Q8_0)
    assert error_of(path) == (
        "there is no config.json beside PATH; expected the model's configuration there (its tensors say d_model 256, "
        "2 layers, 274 tokens, and not how many heads or which context): download it too, or give it with --config"
    )
    checkpoint = open_checkpoint(path)
    with pytest.raises(UserError, match=r"carries no tokenizer; .* or give it with --tokenizer"):
        load_tokenizer(checkpoint)


@pytest.mark.parametrize(
    ("width", "qkv", "ffn", "expected"),
    [(3072, 5120, 12288, (24, 8, 4096)), (2560, 7680, 10240, (32, 32, 2048))],
)
def test_the_published_shapes_are_known(width: int, qkv: int, ffn: int, expected: tuple[int, int, int]) -> None:
    from weights.tensor import Tensor

    shapes = {"transformer.wte.weight": (32768, width), "transformer.norm_f.weight": (width,)}
    for layer in range(32):
        block = f"transformer.blocks.{layer}."
        shapes |= {f"{block}attn.Wqkv.weight": (qkv, width), f"{block}ffn.up_proj.weight": (ffn, width)}
    nothing = np.zeros(0, np.uint8)
    tensors = {name: Tensor(name, shape, Encoding.Q4_K, nothing) for name, shape in shapes.items()}
    config = from_checkpoint(Checkpoint(Path("m.gguf"), "gguf", tensors, {}))
    assert (config.n_heads, config.n_kv_heads, config.max_seq_len) == expected
    assert (config.ffn_size, config.vocab_size, config.qkv_dim) == (ffn, 32768, qkv)


# --- types of weights ------------------------------------------------------------------------------------------------

RUN = sorted(
    {*COMPUTED_IN, Encoding.Q8_0, Encoding.Q4_0, Encoding.Q6_K, Encoding.Q4_K}
    - {Encoding.FLOAT16, Encoding.Q1_0, Encoding.Q2_0}
)


def random_blocks(encoding: Encoding, array: Array) -> Array:
    """Blocks whose values have the size of a trained model's: quantized by gguf-py where it can, else made up."""
    kind = gguf.GGMLQuantizationType[ggml_name(encoding)]
    try:
        return gguf.quants.quantize(array, kind)
    except NotImplementedError:
        pass
    from test_recode import random_tensor

    seed = random_tensor(encoding).data.reshape(-1, encoding.block_bytes)
    count = array.size // encoding.block_size
    picked = np.random.default_rng(array.size).integers(0, len(seed), count)
    return seed[picked].reshape(array.shape[0], -1)


def write_type(path: Path, encoding: Encoding) -> dict[str, Array]:
    """A model whose matrices are in one type; returns its values as gguf-py expands them."""
    writer = gguf.GGUFWriter(path, "mpt")
    for key, value in WIDE.metadata().items():
        (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(f"mpt.{key}", value)
    kind = gguf.GGMLQuantizationType[ggml_name(encoding)]
    values = {}
    for name, array in WIDE.tensors().items():
        if array.ndim == 1:
            writer.add_tensor(name, array)
            values[name] = array
            continue
        if encoding is Encoding.FLOAT64:
            writer.add_tensor(name, array.astype(np.float64))
            values[name] = array
            continue
        data = random_blocks(encoding, array / 8)
        writer.add_tensor(name, data, raw_dtype=kind)
        values[name] = gguf.dequantize(data, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


@pytest.mark.parametrize("encoding", RUN)
def test_every_type_runs(tmp_path: Path, encoding: Encoding) -> None:
    values = write_type(tmp_path / "m.gguf", encoding)
    _, config, tensors = opened(tmp_path / "m.gguf")
    for name, expected in values.items():
        np.testing.assert_array_equal(to_float32(tensors[name]), expected)
    check_finite(tmp_path / "m.gguf", tensors)
    if encoding is Encoding.FLOAT64 or os.environ.get("REPLIT_TEST_EVERY_TYPE"):
        run_and_compare(config, tensors, values, exact=encoding is Encoding.FLOAT64)


@pytest.mark.parametrize("encoding", [Encoding.Q8_0, Encoding.Q6_K])
def test_what_a_type_is_run_in_computes_its_values(tmp_path: Path, encoding: Encoding) -> None:
    """One model for each type that others are run in: the other types differ in their bytes alone."""
    source = Encoding.Q3_K if encoding is Encoding.Q6_K else Encoding.IQ4_NL
    values = write_type(tmp_path / "m.gguf", source)
    _, config, tensors = opened(tmp_path / "m.gguf")
    run_and_compare(config, tensors, values, exact=False)


def run_and_compare(config: ReplitConfig, tensors: Any, values: dict[str, Array], exact: bool) -> None:
    ids = np.random.default_rng(1).integers(0, config.vocab_size, 120).tolist()
    expected = reference.logits(config, {n: v.astype(np.float64) for n, v in values.items()}, ids)  # type: ignore[arg-type]
    got = Slots(compiled_from(config, dict(tensors), max_length=128)).logits(ids)
    if exact:
        # float32 adds up in another order where vectors are shorter: 1.2e-4 with AVX2
        np.testing.assert_allclose(got, expected, atol=3e-5 * np.abs(expected).max())
        return
    peak = np.abs(expected).max()
    p, q = (np.exp(x - x.max(1, keepdims=True)) for x in (expected, got.astype(np.float64)))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    divergence = (p * np.log(p / q)).sum(1).mean()
    same = (expected.argmax(1) == got.argmax(1)).mean()
    print(f"largest logit {peak:.1f}, top-1 {same:.3f}, KL {divergence:.2e}")
    assert same >= 0.975
    assert divergence < 1.5e-3


def test_beyond_the_limit_where_that_is_allowed(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", WIDE)
    limit = WIDE.metadata()["context_length"]
    with pytest.raises(UserError, match=f"--max-length is {2 * limit}; expected at most {limit}, .*or --allow-longer"):
        load(weight_path=str(path), max_length=2 * limit)
    notes: list[str] = []
    with load(weight_path=str(path), max_length=2 * limit, allow_longer=True, progress=Noted(notes)) as pipeline:
        ids = np.random.default_rng(2).integers(0, len(vocabulary()[0]), 2 * limit).tolist()
        got = pipeline.logits(ids)
        config = pipeline.config
    assert any("ALiBi goes on beyond the 128 tokens" in note for note in notes)
    expected = reference.logits(config, {n: v.astype(np.float64) for n, v in WIDE.tensors().items()}, ids)  # type: ignore
    np.testing.assert_allclose(got, expected, atol=1e-4)


class Noted(Quiet):
    """Keeps what is noted while loading."""

    def __init__(self, notes: list[str]) -> None:
        self.notes = notes

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_candles_file_completes_with_what_is_given(tmp_path: Path) -> None:
    """By the command line: tensors alone, configuration and tokenizer elsewhere, and a type that is run in another."""
    path = write_candle(tmp_path / "m.gguf", WIDE, gguf.GGMLQuantizationType.Q5_0)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "config.json").write_text(json.dumps(config_json(WIDE)))
    write_vocabulary(tmp_path / "more" / "tokenizer.json")
    options = ["--config", str(tmp_path / "more"), "--tokenizer", str(tmp_path / "more" / "tokenizer.json")]
    run = CliRunner().invoke(
        replit,
        ["--prompt", "def", "--weight-path", str(path), "--max-length", "16", *options],
        catch_exceptions=False,
    )
    assert run.exit_code == 0
    assert run.stdout.startswith("def")
    assert "9 tensors are stored in q5_0 and computed in q8_0, which holds the same values" in run.stderr
    report = CliRunner().invoke(inspect, [str(path), *options, "--json", "--max-length", "100"], catch_exceptions=False)
    assert json.loads(report.stdout)["problems"] == []
    alone = CliRunner().invoke(inspect, [str(path), "--json"], catch_exceptions=False)
    assert len(json.loads(alone.stdout)["problems"]) == 2
    assert len(json.loads(alone.stdout)["tensors"]) == len(WIDE.tensors())
    converted = CliRunner().invoke(
        convert, [str(path), str(tmp_path / "whole.gguf"), *options, "--quantization-encoding", "q8_0"]
    )
    assert converted.exit_code == 0, converted.output
    written = opened(tmp_path / "whole.gguf")[2]
    np.testing.assert_array_equal(
        to_float32(written["blk.0.ffn_up.weight"]),
        to_float32(opened(path, config=tmp_path / "more")[2]["blk.0.ffn_up.weight"]),
    )


def test_what_cannot_run_is_shown_all_the_same(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", ModelFile())
    content = bytearray(path.read_bytes())
    entry = content.index(b"blk.1.ffn_up.weight") + len("blk.1.ffn_up.weight") + 4 + 16
    content[entry : entry + 4] = (26).to_bytes(4, "little")  # integers
    path.write_bytes(content[:-999])  # and the end is missing
    found = CliRunner().invoke(inspect, [str(path), "--json"], catch_exceptions=False)
    report = json.loads(found.stdout)
    assert found.exit_code == 1
    assert report["config"]["d_model"] == 24
    assert report["tokenizer"]["vocab_size"] == 274
    assert len(report["tensors"]) == 13
    assert "tensor 'blk.1.ffn_up.weight' is stored as I32; expected a type" in report["problems"][0]
    assert "is cut off" in report["problems"][1]


def test_a_sharded_model_is_inspected_with_all_its_parts(tmp_path: Path) -> None:
    write_shards(tmp_path / "m")
    report = json.loads(CliRunner().invoke(inspect, [str(tmp_path / "m"), "--json"]).stdout)
    assert report["file"]["bytes"] == sum(path.stat().st_size for path in (tmp_path / "m").glob("model-*"))
    assert report["file"]["parts"] == 3


# --- directories -----------------------------------------------------------------------------------------------------


def write_shards(directory: Path, count: int = 3, index: bool = True) -> dict[str, Array]:
    write_hub_directory(directory, ModelFile())
    (directory / "model.safetensors").unlink()
    arrays = hub_arrays(ModelFile())
    names = list(arrays)
    weight_map = {}
    for part in range(count):
        shard = f"model-{part + 1:05}-of-{count:05}.safetensors"
        mine = {name: arrays[name] for name in names[part::count]}
        save_file(mine, directory / shard)
        weight_map |= dict.fromkeys(mine, shard)
    if index:
        (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return arrays


def holds(path: Path, arrays: dict[str, Array]) -> Checkpoint:
    checkpoint, _, tensors = opened(path)
    np.testing.assert_array_equal(
        to_float32(tensors["blk.1.ffn_up.weight"]), arrays["transformer.blocks.1.ffn.up_proj.weight"]
    )
    return checkpoint


def test_a_whole_file_wins_over_a_stale_index(tmp_path: Path) -> None:
    write_shards(tmp_path / "m")
    (tmp_path / "m" / "model-00002-of-00003.safetensors").unlink()
    changed = {name: array + 1 for name, array in hub_arrays(ModelFile()).items()}
    save_file(changed, tmp_path / "m" / "model.safetensors")
    assert holds(tmp_path / "m", changed).path.name == "model.safetensors"


def test_shards_without_an_index(tmp_path: Path) -> None:
    arrays = write_shards(tmp_path / "m", index=False)
    checkpoint = holds(tmp_path / "m", arrays)
    assert checkpoint.nbytes == sum(path.stat().st_size for path in (tmp_path / "m").glob("*.safetensors"))
    holds(tmp_path / "m" / "model-00002-of-00003.safetensors", arrays)
    last = tmp_path / "m" / "model-00003-of-00003.safetensors"
    kept = last.read_bytes()
    last.write_bytes((tmp_path / "m" / "model-00001-of-00003.safetensors").read_bytes())
    assert "is in two parts; expected it in one: download the parts again" in error_of(tmp_path / "m")
    last.write_bytes(kept)
    (tmp_path / "m" / "model-00001-of-00003.safetensors").unlink()
    message = error_of(tmp_path / "m")
    assert "is one of 3 parts and model-00001-of-00003.safetensors is not beside it" in message
    assert "download model-00001-of-00003.safetensors too" in message


def test_an_index_whose_shard_is_missing(tmp_path: Path) -> None:
    write_shards(tmp_path / "m")
    (tmp_path / "m" / "model-00003-of-00003.safetensors").unlink()
    assert error_of(tmp_path / "m") == (
        "PATH/model.safetensors.index.json names 3 shards and model-00003-of-00003.safetensors is not beside it; "
        "expected all of them: download model-00003-of-00003.safetensors too"
    )


@pytest.mark.parametrize("content", [{}, {"weight_map": []}, {"weight_map": {"a": 1}}, {"shards": ["x"]}, "flat"])
def test_an_index_of_another_layout(tmp_path: Path, content: Any) -> None:
    arrays = write_shards(tmp_path / "m")
    index = tmp_path / "m" / "model.safetensors.index.json"
    if content == "flat":
        content = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps(content))
    holds(tmp_path / "m", arrays)
    for shard in (tmp_path / "m").glob("model-*"):
        shard.unlink()
    message = error_of(tmp_path / "m")
    assert "model.safetensors.index.json" in message
    assert "download" in message


@pytest.mark.parametrize("above", [0, 1, 2, 3])
def test_the_hubs_cache(tmp_path: Path, above: int) -> None:
    repository = tmp_path / "huggingface" / "hub" / "models--replit--replit-code-v1_5-3b"
    for revision in ("0123abc", "4567def"):
        (repository / "snapshots" / revision).mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")
    write_hub_directory(repository / "snapshots" / "0123abc", ModelFile())
    path = [repository / "snapshots", *(repository / "snapshots").parents][above]
    assert holds(path, hub_arrays(ModelFile())).path.parent.name == "0123abc"


def test_a_cache_of_several_models_asks_which(tmp_path: Path) -> None:
    for name in ("models--a--b", "models--replit--replit-code-v1_5-3b"):
        (tmp_path / name).mkdir()
    assert "is the hub's cache with a/b, replit/replit-code-v1_5-3b; expected one model" in error_of(tmp_path)


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "adapter_model.safetensors")
    message = error_of(tmp_path)
    assert (
        "PATH holds a LoRA adapter; expected a whole model: type `replit convert BASE NEW.gguf --adapter PATH`"
        in message
    )


# --- PyTorch ---------------------------------------------------------------------------------------------------------


def test_a_directory_of_pytorch_files_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = write_hub_directory(tmp_path / "m", ModelFile())
    (directory / "model.safetensors").unlink()
    for name in ("README.md", "modeling_mpt.py", "tokenizer.json", "generation_config.json", "attention.py"):
        (directory / name).write_text("{}")
    monkeypatch.setitem(sys.modules, "torch", None)
    for content in (b"PK\x03\x04 the archive of today", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M"):
        (directory / "pytorch_model.bin").write_bytes(content)
        message = error_of(directory)
        assert "PATH/pytorch_model.bin is a PyTorch file and torch is not installed" in message
        assert "type `pip install torch` and this again, or `replit convert PATH out.gguf`" in message


@pytest.mark.parametrize("layout", ["whole", "legacy", "sharded", "numbered", "other name"])
def test_pytorch_files_open_where_torch_is(tmp_path: Path, layout: str) -> None:
    torch = pytest.importorskip("torch", reason="writes files as torch does")
    directory = write_hub_directory(tmp_path / "m", ModelFile())
    (directory / "model.safetensors").unlink()
    arrays = hub_arrays(ModelFile())
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    names = list(state)
    if layout in ("sharded", "numbered"):
        weight_map = {}
        for part in range(2):
            shard = f"pytorch_model-{part + 1:05}-of-00002.bin"
            torch.save({name: state[name] for name in names[part::2]}, directory / shard)
            weight_map |= dict.fromkeys(names[part::2], shard)
        if layout == "sharded":
            (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    else:
        name = "weights.pt" if layout == "other name" else "pytorch_model.bin"
        torch.save(state, directory / name, _use_new_zipfile_serialization=layout != "legacy")
    assert holds(directory, arrays).format == "pytorch"


# --- Refact ----------------------------------------------------------------------------------------------------------


def test_refacts_keys_that_ask_for_nothing(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "refact")
    keys = {"context_length": 64, "embedding_length": 64, "block_count": 1, "feed_forward_length": 256,
            "attention.head_count": 4, "attention.head_count_kv": 1, "rope.dimension_count": 16,
            "expert_count": 0}  # fmt: skip
    for key, value in keys.items():
        writer.add_uint32(f"refact.{key}", value)
    writer.add_float32("refact.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_tensor("token_embd.weight", np.zeros((99, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    checkpoint = open_checkpoint(tmp_path / "m.gguf")
    assert architecture_of(checkpoint).gguf_name == "refact"
    assert refact_config(checkpoint).n_heads == 4


def test_tokenizer_beside_candles_file_is_padded_to_its_table(tmp_path: Path) -> None:
    path = write_candle(tmp_path / "m.gguf", WIDE, gguf.GGMLQuantizationType.Q8_0)
    backend = tmp_path / "tokenizer.json"
    write_tokenizer(backend)
    with pytest.raises(UserError, match=r"has token ids up to 599; expected at most 274 tokens"):
        load_tokenizer(open_checkpoint(path))

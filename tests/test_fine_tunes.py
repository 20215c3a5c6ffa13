"""Conversion of fine-tunes: directories for transformers, adapters, gap-filling tokens, calibration, the check."""

from __future__ import annotations

import errno
import json
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import reference_refact
from safetensors.numpy import save_file
from tiny_model import CONFIG, run_convert, write_model, write_tokenizer
from tiny_model import weights as tiny_weights

import reference
from pipelines.calibration import token_windows
from refact.weight_names import hub_tensors as refact_hub_tensors
from replit.config import from_checkpoint
from replit.decoder.adapter import merged
from replit.decoder.calibration import WINDOW, Calibration
from replit.decoder.hub_export import ENCODINGS
from replit.weight_names import map_weights
from weights.convert import encode_tensor
from weights.errors import UserError
from weights.files.checkpoint import open_checkpoint
from weights.files.imatrix_file import read_imatrix
from weights.quantization import dequantize, quantize, to_float32
from weights.quantization.feedback import ColumnInputs, encode_with_feedback
from weights.tensor import Encoding, Tensor
from weights.tokenizers.load import load_tokenizer

TEXT = Path(__file__).read_text()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("hub") / "tiny-code-v1_5-1m")


# --- directories for transformers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_through_gguf_and_back_every_bit_is_the_same(tmp_path: Path, encoding: Encoding) -> None:
    original = write_model(tmp_path / "original", encoding)
    run_convert(original, tmp_path / "m.gguf", "--quantization-encoding", str(encoding))
    run_convert(tmp_path / "m.gguf", f"{tmp_path}/back/", "--quantization-encoding", str(encoding))
    before, after = open_checkpoint(original), open_checkpoint(tmp_path / "back")
    assert before.tensors.keys() == after.tensors.keys()
    for name, tensor in before.tensors.items():
        assert after.tensors[name].encoding is tensor.encoding, name
        np.testing.assert_array_equal(after.tensors[name].data, tensor.data)
    assert from_checkpoint(after) == from_checkpoint(before)
    text = "def f(x):\n    return '<|endoftext|>' + 12 # é\n"
    assert load_tokenizer(after).encode(text) == load_tokenizer(before).encode(text)
    assert load_tokenizer(after).eos_token_id == load_tokenizer(before).eos_token_id == 0


def test_transformers_reads_what_is_written(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch, which is not installed")
    transformers = pytest.importorskip("transformers", reason="compares with transformers, which is not installed")
    config = CONFIG | {"attn_config": {"alibi": True, "alibi_bias_max": 8, "kv_n_heads": 4}}
    original = write_model(tmp_path / "original", Encoding.FLOAT32, tiny_weights(config))
    (original / "config.json").write_text(json.dumps(config))
    run_convert(original, tmp_path / "m.gguf", "--quantization-encoding", "float32")
    run_convert(tmp_path / "m.gguf", f"{tmp_path}/back/", "--quantization-encoding", "float32")
    checkpoint = open_checkpoint(tmp_path / "m.gguf")
    weights = {
        n: to_float32(t).astype(np.float64) for n, t in map_weights(checkpoint, from_checkpoint(checkpoint)).items()
    }
    ids = load_tokenizer(checkpoint).encode(TEXT)[:60]
    expected = reference.logits(from_checkpoint(checkpoint), weights, ids)  # type: ignore[arg-type]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back", torch_dtype=torch.float32)
    with torch.no_grad():
        np.testing.assert_allclose(theirs(torch.tensor([ids])).logits[0].numpy(), expected, atol=1e-4)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    assert tokenizer(TEXT)["input_ids"][:60] == ids
    assert tokenizer.eos_token == "<|endoftext|>"


def test_a_directory_is_written_where_there_is_none_and_whole(source: Path, tmp_path: Path) -> None:
    run_convert(source, f"{tmp_path}/new/")
    assert {p.name for p in (tmp_path / "new").iterdir()} >= {"model.safetensors", "config.json", "tokenizer.json"}
    assert [p.name for p in tmp_path.iterdir()] == ["new"]
    with pytest.raises(UserError, match=r"a safetensors directory in q4_k is no format that others read"):
        run_convert(source, f"{tmp_path}/quantized/", "--quantization-encoding", "q4_k")
    # One that exists keeps its meaning: a GGUF file with the usual name in it.
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        run_convert(source, f"{tmp_path}/{name}/")
        assert any(p.suffix == ".gguf" for p in (tmp_path / name).iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("place", ["model/", "./", "../model/"])
def test_force_deletes_nothing_that_a_conversion_did_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "src").mkdir()
    (folder / "src" / "precious.py").write_text("1")
    before = contents(folder)
    monkeypatch.chdir(tmp_path if place == "model/" else folder)
    run_convert(folder / "model.safetensors", place, "--force")
    after = contents(folder)
    assert [name for name in after if name not in before] == ["model-1.6M-BF16.gguf"]
    assert {name: after[name] for name in before} == before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_force_replaces_a_directory_of_the_same_kind_when_the_new_one_is_whole(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_convert(source, f"{tmp_path}/new/", "--quantization-encoding", "float32")
    before = contents(tmp_path / "new")
    rename = Path.rename

    def full(self: Path, target: Path) -> Path:
        if self.name == "new" and ".part" in str(self):  # the old one has made room already
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(UserError, match=r"^cannot write .*/new \(No space left on device\)"):
        run_convert(source, f"{tmp_path}/new/", "--force")
    assert contents(tmp_path) == {f"new/{name}": content for name, content in before.items()}
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path / "new")
    run_convert(source, "./", "--force")
    assert [p.name for p in tmp_path.iterdir()] == ["new"]
    tensors = open_checkpoint(tmp_path / "new").tensors
    assert tensors["transformer.wte.weight"].encoding is Encoding.BFLOAT16


def write_gpt2s_two_files(directory: Path) -> None:
    """vocab.json and merges.txt for the tokenizer.json that is there, which goes."""
    model = json.loads((directory / "tokenizer.json").read_text())["model"]
    (directory / "vocab.json").write_text(json.dumps(model["vocab"]))
    (directory / "merges.txt").write_text("\n".join(" ".join(merge) for merge in model["merges"]))
    (directory / "tokenizer.json").unlink()


@pytest.mark.parametrize("option", ["--adapter", "--tokenizer"])
def test_a_directory_gets_the_tokenizer_that_was_asked_for(tmp_path: Path, option: str) -> None:
    base, adapter = write_model(tmp_path / "base"), tmp_path / "adapter"
    write_gpt2s_two_files(base)
    (base / "generation_config.json").write_text('{"temperature": 0.2}')
    write_adapter(adapter)
    new = add_token(adapter, "<new>")
    (adapter / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    run_convert(base, f"{tmp_path}/out/", option, adapter)
    out = tmp_path / "out"
    assert load_tokenizer(open_checkpoint(out)).encode("<new>") == [new]
    assert json.loads((out / "tokenizer_config.json").read_text()) == {"chat_template": "x"}
    assert {p.name for p in out.iterdir()} == {
        *("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
    }
    run_convert(base, f"{tmp_path}/own/")
    assert load_tokenizer(open_checkpoint(tmp_path / "own")).encode(TEXT) == load_tokenizer(
        open_checkpoint(base)
    ).encode(TEXT)
    assert {p.name for p in (tmp_path / "own").iterdir()} >= {"vocab.json", "merges.txt", "tokenizer_config.json"}


def test_a_directory_says_whether_the_two_matrices_are_one(tmp_path: Path) -> None:
    """transformers ties them by config.json, whatever the file holds."""
    base = write_model(tmp_path / "base")
    (base / "config.json").write_text(json.dumps(CONFIG | {"tie_word_embeddings": True, "dtype": "float16"}))
    tensors = write_adapter(tmp_path / "adapter") | {f"{BEFORE}lm_head.weight": np.ones((640, 256), np.float32)}
    run_convert(base, f"{tmp_path}/tied/")
    save_file(tensors, tmp_path / "adapter" / "adapter_model.safetensors")
    run_convert(base, f"{tmp_path}/apart/", "--adapter", tmp_path / "adapter")
    for name, tied in (("tied", True), ("apart", False)):
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert config["tie_word_embeddings"] is tied
        assert {key: value for key, value in config.items() if "dtype" in key} == {"torch_dtype": "bfloat16"}
        assert from_checkpoint(open_checkpoint(tmp_path / name)).tied_embeddings is tied


def test_a_directory_takes_a_tokenizer_that_gguf_has_no_name_for(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    content = json.loads((base / "tokenizer.json").read_text())
    words = {"type": "Split", "pattern": {"Regex": r"\s*\S+|\s+"}, "behavior": "Isolated", "invert": False}
    content["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [words, content["pre_tokenizer"] | {"use_regex": False}],
    }
    (base / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="splits text in a way that GGUF has no name for; expected that of GPT-2"):
        run_convert(base, tmp_path / "m.gguf")
    run_convert(base, f"{tmp_path}/out/")
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


def test_refacts_names_are_the_published_ones() -> None:
    from test_refact import random_refact  # type: ignore[attr-defined]

    names = refact_hub_tensors(random_refact().config)
    assert names["transformer.h.0.attn.kv.weight"] == ("blk.0.attn_k.weight", "blk.0.attn_v.weight")
    assert names["transformer.h.1.mlp.gate_up_proj.weight"] == ("blk.1.ffn_gate.weight", "blk.1.ffn_up.weight")
    assert "ln_f.weight" in names


# --- adapters --------------------------------------------------------------------------------------------------------


def write_adapter(directory: Path, rank: int = 4, **changes: Any) -> dict[str, Any]:
    """As peft saves one: two factors for two matrices, and a norm that was trained as a whole."""
    directory.mkdir()
    rng = np.random.default_rng(3)
    before = "base_model.model.transformer.blocks.1"
    tensors = {
        f"{before}.attn.Wqkv.lora_A.weight": rng.standard_normal((rank, 256)),
        f"{before}.attn.Wqkv.lora_B.weight": rng.standard_normal((512, rank)),
        f"{before}.ffn.down_proj.lora_A.weight": rng.standard_normal((rank, 1024)),
        f"{before}.ffn.down_proj.lora_B.weight": rng.standard_normal((256, rank)),
        f"{before}.norm_2.weight": rng.standard_normal(256),
    }
    tensors = {name: array.astype(np.float32) for name, array in tensors.items()}
    save_file(tensors, directory / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 12, "target_modules": ["Wqkv", "down_proj"]} | changes
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return tensors


def add_token(directory: Path, text: str) -> int:
    """A tokenizer.json with one token more than the model's; its id."""
    write_tokenizer(directory / "tokenizer.json")
    content = json.loads((directory / "tokenizer.json").read_text())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    size = len(content["model"]["vocab"])
    content["added_tokens"].append({"id": size, "content": text, "special": True, **flags})
    (directory / "tokenizer.json").write_text(json.dumps(content))
    return size


@pytest.mark.parametrize(
    ("changes", "scale"),
    [
        ({}, 12 / 4),
        ({"use_rslora": True}, 12 / 2),
        ({"alpha_pattern": {"up|Wqkv|.*proj": 2, "Wqkv": 9}}, 2 / 4),
        ({"alpha_pattern": {"Wqkv": 2, "down_proj": 2}}, 2 / 4),
    ],
)
def test_an_adapter_is_merged(source: Path, tmp_path: Path, changes: dict[str, Any], scale: float) -> None:
    adapter = write_adapter(tmp_path / "adapter", **changes)
    run_convert(source, tmp_path / "m.gguf", "--adapter", tmp_path / "adapter", "--quantization-encoding", "float32")
    written = open_checkpoint(tmp_path / "m.gguf").tensors
    base = tiny_weights()
    for canonical, hub in (("attn_qkv", "attn.Wqkv"), ("ffn_down", "ffn.down_proj")):
        down, up = (adapter[f"base_model.model.transformer.blocks.1.{hub}.lora_{side}.weight"] for side in "AB")
        expected = base[f"transformer.blocks.1.{hub}.weight"] + scale * up.astype(np.float64) @ down
        np.testing.assert_allclose(to_float32(written[f"blk.1.{canonical}.weight"]), expected, rtol=2e-6, atol=2e-5)
    np.testing.assert_array_equal(
        to_float32(written["blk.1.ffn_norm.weight"]), adapter["base_model.model.transformer.blocks.1.norm_2.weight"]
    )
    np.testing.assert_array_equal(
        to_float32(written["blk.0.attn_qkv.weight"]), base["transformer.blocks.0.attn.Wqkv.weight"]
    )


def test_an_adapter_with_more_tokens_brings_its_table_and_its_tokenizer(source: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    tensors = write_adapter(adapter)
    table = np.random.default_rng(4).standard_normal((648, 256)).astype(np.float32)
    tensors |= {
        "base_model.model.transformer.wte.modules_to_save.weight": table,
        "base_model.model.lm_head.weight": -table,
    }
    save_file(tensors, adapter / "adapter_model.safetensors")
    size = add_token(adapter, "<new>")
    run_convert(source, tmp_path / "m.gguf", "--adapter", adapter, "--quantization-encoding", "float32")
    checkpoint = open_checkpoint(tmp_path / "m.gguf")
    config = from_checkpoint(checkpoint)
    assert (config.vocab_size, config.tied_embeddings) == (648, False)
    np.testing.assert_array_equal(to_float32(checkpoint.tensors["output.weight"]), -table)
    assert load_tokenizer(checkpoint).encode("<new>") == [size]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "is an adapter of type 'IA3'; expected 'LORA': merge it with peft"),
        ({"use_dora": True}, "use_dora is True; expected plain LoRA: merge it with peft first"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication is .*; expected plain LoRA: merge it with peft"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4', which changes the model that"),
        ({"init_lora_weights": "olora"}, "init_lora_weights is 'olora', which changes the model that it is added to"),
    ],
)
def test_adapters_of_other_kinds(source: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_adapter(tmp_path / "adapter", **changes)
    with pytest.raises(UserError, match=message):
        run_convert(source, tmp_path / "m.gguf", "--adapter", tmp_path / "adapter")


def test_an_adapter_of_another_model(source: Path, tmp_path: Path) -> None:
    tensors = write_adapter(tmp_path / "adapter")
    renamed = {name.replace("blocks.1", "blocks.7"): array for name, array in tensors.items()}
    save_file(renamed, tmp_path / "adapter" / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"changes 'transformer.blocks.7.attn.Wqkv', which the model does not have"):
        run_convert(source, tmp_path / "m.gguf", "--adapter", tmp_path / "adapter")
    save_file({}, tmp_path / "adapter" / "adapter_model.safetensors")  # of a model that was merged already
    with pytest.raises(UserError, match=r"adapter_model.safetensors holds no tensors; expected the changes of a model"):
        run_convert(source, tmp_path / "m.gguf", "--adapter", tmp_path / "adapter")


BEFORE = "base_model.model."
TABLE = f"{BEFORE}transformer.wte.weight"
UP = f"{BEFORE}transformer.blocks.0.ffn.up_proj"
NORM = f"{BEFORE}transformer.norm_f"


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({TABLE: (640, 128)}, r"changes 'token_embd.weight' by a tensor of \[640, 128\]; expected \[640, 256\]"),
        (
            {TABLE: (648, 256), f"{BEFORE}lm_head.weight": (640, 256)},
            r"gives the model 648 rows in 'token_embd.weight' and",
        ),
        (
            {f"{BEFORE}lm_head.weight": (700, 256)},
            r"640 rows in 'token_embd.weight' and 700 in 'output.weight'; expected",
        ),
        ({f"{BEFORE}lm_head.weight": (640,)}, r"changes 'output.weight' by a tensor of \[640\]; expected \[640, 256\]"),
        ({TABLE: (590, 256)}, r"has token ids up to 599; expected at most 590 tokens"),
        ({f"{NORM}.weight": (99,)}, r"changes 'output_norm.weight' by a tensor of \[99\]; expected \[256\]"),
        (
            {f"{UP}.weight": (99, 256)},
            r"changes 'blk.0.ffn_up.weight' by a tensor of \[99, 256\]; expected \[1024, 256\]",
        ),
        (
            {f"{UP}.lora_A.weight": (4, 128), f"{UP}.lora_B.weight": (1024, 4)},
            r"changes 'blk.0.ffn_up.weight' by a tensor of \[1024, 128\]; expected \[1024, 256\]",
        ),
        (
            {f"{NORM}.lora_A.weight": (4, 256), f"{NORM}.lora_B.weight": (256, 4)},
            r"changes 'output_norm.weight' by a tensor of \[256, 256\]; expected \[256\]",
        ),
        ({f"{UP}.lora_A.weight": (4, 256), f"{UP}.lora_B.weight": (4,)}, r"has no two factors that fit"),
        ({f"{UP}.lora_A.weight": (0, 256), f"{UP}.lora_B.weight": (1024, 0)}, r"has no two factors that fit"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    source: Path, tmp_path: Path, shapes: dict[str, tuple[int, ...]], message: str
) -> None:
    tensors = write_adapter(tmp_path / "adapter") | {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / "adapter" / "adapter_model.safetensors")
    with pytest.raises(UserError, match=message):
        run_convert(source, tmp_path / "m.gguf", "--adapter", tmp_path / "adapter")
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_alpha": "auto"}, r"the alpha of 'transformer.blocks.1.attn.Wqkv' is 'auto'; expected a number"),
        ({"lora_alpha": None}, r"is None; expected a number"),
        ({"lora_alpha": float("nan")}, r"is nan; expected a number"),
        ({"alpha_pattern": {"Wqkv": None}}, r"is None; expected a number"),
        ({"alpha_pattern": ["Wqkv"]}, r"alpha_pattern is \['Wqkv'\]; expected names with numbers"),
        ({"alpha_pattern": {"(Wqkv": 3}}, r"alpha_pattern has a name that is no regular expression \(missing \)"),
    ],
)
def test_factors_that_are_no_numbers_are_refused(
    source: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write_adapter(tmp_path / "adapter", **changes)
    with pytest.raises(UserError, match=message):
        run_convert(source, tmp_path / "m.gguf", "--adapter", tmp_path / "adapter")


def test_more_rows_than_a_gguf_file_has_tokens(source: Path, tmp_path: Path) -> None:
    """A vocabulary that was padded for training, without a tokenizer of its own."""
    run_convert(source, tmp_path / "base.gguf", "--quantization-encoding", "float32")
    for rows in (704, 500):
        tensors = write_adapter(tmp_path / f"{rows}") | {TABLE: np.ones((rows, 256), np.float32)}
        save_file(tensors, tmp_path / f"{rows}" / "adapter_model.safetensors")
    run_convert(tmp_path / "base.gguf", tmp_path / "m.gguf", "--adapter", tmp_path / "704")
    written = open_checkpoint(tmp_path / "m.gguf")
    assert from_checkpoint(written).vocab_size == 704
    tokenizer, before = load_tokenizer(written), load_tokenizer(open_checkpoint(source))
    assert (tokenizer.vocab_size, tokenizer.token_bytes(703)) == (704, b"")
    assert tokenizer.encode(TEXT) == before.encode(TEXT)
    with pytest.raises(
        UserError, match="leaves 500 rows of the embedding table for 640 tokens; expected a row for each"
    ):
        run_convert(tmp_path / "base.gguf", tmp_path / "n.gguf", "--adapter", tmp_path / "500")


def test_fused_tensors_that_were_trained_whole_are_cut(tmp_path: Path) -> None:
    from test_refact import as_tensor, random_refact  # type: ignore[attr-defined]

    small = random_refact(n_heads=4, head_dim=16, vocab=64)
    tensors = {name: as_tensor(name, array, Encoding.FLOAT32) for name, array in small.weights.items()}
    rng = np.random.default_rng(6)
    shapes = {"attn.kv": (32, 64), "mlp.gate_up_proj": (1536, 64)}
    whole = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    write_adapter(tmp_path / "adapter")
    saved = {f"{BEFORE}transformer.h.0.{n}.modules_to_save.default.weight": a for n, a in whole.items()}
    save_file(saved, tmp_path / "adapter" / "adapter_model.safetensors")
    result = merged(tmp_path / "adapter", tensors, refact_hub_tensors(small.config))
    for fused, parts in (("attn.kv", ("attn_k", "attn_v")), ("mlp.gate_up_proj", ("ffn_gate", "ffn_up"))):
        halves = [to_float32(result[f"blk.0.{part}.weight"]) for part in parts]
        np.testing.assert_array_equal(np.concatenate(halves), whole[fused])
        assert halves[0].shape == halves[1].shape


# --- fill-in-the-middle tokens, the check ----------------------------------------------------------------------------


def test_fim_tokens_and_order_are_chosen(source: Path, tmp_path: Path) -> None:
    tokens = load_tokenizer(open_checkpoint(source))
    word = "def"
    [index] = tokens.encode(word)
    run_convert(source, tmp_path / "m.gguf", "--fim", f"1,{word},7", "--fim-order", "suffix-first")
    fim = load_tokenizer(open_checkpoint(tmp_path / "m.gguf")).fim
    assert fim is not None
    assert (fim.prefix, fim.suffix, fim.middle, fim.suffix_first) == (1, index, 7, True)
    with pytest.raises(UserError, match="--fim names the token '<PRE>', which the vocabulary of 640 does not have"):
        run_convert(source, tmp_path / "n.gguf", "--fim", "<PRE>,1,2")
    with pytest.raises(UserError, match="--fim names the token '9+ "):
        run_convert(source, tmp_path / "n.gguf", "--fim", "9" * 5000 + ",1,2")
    with pytest.raises(UserError, match="--fim names 2 tokens; expected PREFIX,SUFFIX,MIDDLE"):
        run_convert(source, tmp_path / "n.gguf", "--fim", "1,2")


def test_the_check_compares_with_the_source(source: Path, tmp_path: Path) -> None:
    exact = run_convert(source, tmp_path / "a.gguf", "--quantization-encoding", "float32", "--check").stderr
    assert "the same most probable token at 100.0%, divergence 0.00000 nats a token" in exact
    rough = run_convert(source, tmp_path / "b.gguf", "--quantization-encoding", "q4_0", "--check").stderr
    assert "compared with its source on 2,048 tokens of argparse.py" in rough
    assert float(rough.split("divergence ")[1].split()[0]) > 1e-4


# --- calibration -----------------------------------------------------------------------------------------------------


def test_inputs_are_those_of_the_decoder(source: Path) -> None:
    """The products of what the reference multiplies with, found by running it on matrices that record."""
    checkpoint = open_checkpoint(source)
    config = from_checkpoint(checkpoint)
    tensors = map_weights(checkpoint, config)
    ids = load_tokenizer(checkpoint).encode(TEXT)[:50]
    seen: dict[int, Any] = {}

    class Recorded(np.ndarray):  # type: ignore[type-arg]
        """A matrix that notes what it is multiplied with: `x @ weight.T`."""

        def __rmatmul__(self, x: Any) -> Any:
            seen[self.shape[0], self.shape[1]] = np.asarray(x)
            return np.asarray(x) @ np.asarray(self)

    weights = {name: to_float32(tensor).astype(np.float64) for name, tensor in tensors.items()}
    weights = {n: w.view(Recorded) if n.startswith("blk.1.") and w.ndim == 2 else w for n, w in weights.items()}
    reference.logits(config, weights, ids)  # type: ignore[arg-type]
    calibration = Calibration(config, tensors, [ids])
    assert calibration.inputs("output_norm.weight") is None
    for name in ("attn_qkv", "attn_output", "ffn_up", "ffn_down"):
        found = calibration.inputs(f"blk.1.{name}.weight")
        x = seen[weights[f"blk.1.{name}.weight"].shape[::-1]]
        assert found is not None
        np.testing.assert_allclose(found.products[0], x.T @ x / len(ids), rtol=1e-3, atol=1e-4 * np.abs(x).max() ** 2)
        np.testing.assert_allclose(found.squares, np.square(x).mean(0), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("encoding", [Encoding.Q4_0, Encoding.Q4_K, Encoding.Q6_K])
def test_what_is_known_of_the_inputs_lowers_the_error_of_the_outputs(encoding: Encoding) -> None:
    rng = np.random.default_rng(8)
    mixed = rng.standard_normal((600, 512)) @ rng.standard_normal((512, 512)) / 22  # columns that go together
    inputs = (mixed * rng.lognormal(0, 1, 512)).astype(np.float32)
    matrix = (rng.standard_t(5, (96, 512)) * 0.05).astype(np.float32)
    tensor = Tensor("w", matrix.shape, Encoding.FLOAT32, matrix.reshape(-1).view(np.uint8))
    products = (inputs.T @ inputs / len(inputs)).astype(np.float32)
    squares = np.diagonal(products).copy()

    def error(known: ColumnInputs | None) -> float:
        data = encode_tensor(tensor, encoding, inputs=known)
        difference = dequantize(data, encoding, matrix.shape) - matrix
        return float(np.sqrt(np.square(inputs @ difference.T).mean()))

    plain, weighted, made_up = error(None), error(ColumnInputs(squares)), error(ColumnInputs(squares, [products]))
    assert made_up < 0.8 * weighted
    assert weighted < 0.97 * plain


def test_stretches_of_columns_are_encoded_by_themselves() -> None:
    rng = np.random.default_rng(9)
    matrix = rng.standard_normal((8, 512)).astype(np.float32)
    blocks = [(x.T @ x / 300).astype(np.float32) for x in rng.standard_normal((2, 300, 256))]
    whole = encode_with_feedback(matrix, Encoding.Q4_K, blocks)
    halves = [encode_with_feedback(matrix[:, i * 256 : (i + 1) * 256], Encoding.Q4_K, [blocks[i]]) for i in range(2)]
    np.testing.assert_array_equal(whole, np.concatenate(halves, axis=1))


def test_an_importance_matrix_is_llama_cpps(source: Path, tmp_path: Path) -> None:
    (tmp_path / "text.py").write_text(TEXT * 3)
    options = ["--quantization-encoding", "q4_0", "--calibrate"]
    run_convert(source, tmp_path / "a.gguf", *options, tmp_path / "text.py", "--save-imatrix", tmp_path / "im.gguf")
    reader = gguf.GGUFReader(tmp_path / "im.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert fields["general.type"] == "imatrix"
    assert "general.architecture" not in fields
    assert fields["imatrix.datasets"] == ["text.py"]
    assert fields["imatrix.chunk_size"] == WINDOW
    stored = {tensor.name: tensor.data for tensor in reader.tensors}
    assert len(stored) == 2 * 2 * 4
    sums, [count] = stored["blk.1.ffn_down.weight.in_sum2"], stored["blk.1.ffn_down.weight.counts"]
    assert sums.shape == (1024,)
    assert count > 1000
    np.testing.assert_array_equal(read_imatrix(tmp_path / "im.gguf")["blk.1.ffn_down.weight"], sums / count)
    # Read back, it weights errors; it says nothing of which columns go together. The older form of it is the same.
    name = b"blk.1.ffn_down.weight"
    start = struct.pack("<ii", 1, len(name)) + name + struct.pack("<ii", 8, 1024)
    (tmp_path / "im.dat").write_bytes(start + (sums / count * 8).astype("<f4").tobytes() + struct.pack("<i", 8))
    original = open_checkpoint(source).tensors
    expected = quantize(
        to_float32(original["transformer.blocks.1.ffn.down_proj.weight"]),
        Encoding.Q4_0,
        (sums / count).astype(np.float32),
    )
    for matrix in ("im.gguf", "im.dat"):
        run_convert(source, tmp_path / "b.gguf", *options, tmp_path / matrix, "--force")
        written = open_checkpoint(tmp_path / "b.gguf").tensors
        np.testing.assert_array_equal(written["blk.1.ffn_down.weight"].data, expected.reshape(-1))
    (tmp_path / "cut.dat").write_bytes(start)
    with pytest.raises(UserError, match=r"cut.dat is cut off, or no importance matrix; expected one of llama.cpp"):
        run_convert(source, tmp_path / "b.gguf", *options, tmp_path / "cut.dat", "--force")


def test_an_importance_matrix_replaces_nothing_by_mistake(tmp_path: Path) -> None:
    """Known before the calibration: neither DST nor a part of it has been written."""
    source = write_model(tmp_path / "model") / "model.safetensors"
    (tmp_path / "text.py").write_text(TEXT[:2000])
    (tmp_path / "precious.gguf").write_text("1")
    (tmp_path / "place").mkdir()
    before = contents(tmp_path)
    for name, message in (
        ("precious.gguf", r"precious.gguf exists; give another name, or --force to replace it"),
        ("missing/im.gguf", r"there is no directory .*/missing; create it"),
        ("place", r"place is a directory or a device; expected the name of a file"),
        ("model/../model/model.safetensors", r"names .*model.safetensors, which is SRC, DST or TEXT"),
        ("text.py", r"names .*text.py, which is SRC, DST or TEXT"),
        ("m.gguf", r"names .*m.gguf, which is SRC, DST or TEXT"),
    ):
        forced = () if name == "precious.gguf" else ("--force",)
        options = ("--quantization-encoding", "q4_0", "--calibrate", tmp_path / "text.py", *forced)
        with pytest.raises(UserError, match=message):
            run_convert(source, tmp_path / "m.gguf", *options, "--save-imatrix", tmp_path / name)
        assert contents(tmp_path) == before, name
    run_convert(source, tmp_path / "m.gguf", *options, "--save-imatrix", tmp_path / "precious.gguf")
    assert read_imatrix(tmp_path / "precious.gguf").keys() >= {"blk.1.ffn_down.weight"}
    with pytest.raises(UserError, match=r"precious.gguf is an importance matrix already; expected a text"):
        run_convert(
            *(source, tmp_path / "n.gguf", "--quantization-encoding", "q4_0"),
            *("--calibrate", tmp_path / "precious.gguf", "--save-imatrix", tmp_path / "new.gguf"),
        )
    with pytest.raises(UserError, match=r"--calibrate rounds weights to GGUF's blocks; expected a DST"):
        run_convert(
            *(source, f"{tmp_path}/directory/", "--calibrate", tmp_path / "text.py"),
            *("--save-imatrix", tmp_path / "new.gguf"),
        )
    assert not (tmp_path / "new.gguf").exists()


def test_texts_of_lines(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One a line, and a line ends where JSON's do: U+2028 is a character of a text."""
    tokenizer, path = load_tokenizer(open_checkpoint(source)), tmp_path / "lines.jsonl"
    path.write_text('{"text": "a\u2028b"}\n\n{"text": "cd"}\n')
    assert [tokenizer.decode(ids) for ids in token_windows(path, tokenizer)] == ["a\u2028b", "cd"]
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.calibration._LARGEST_TEXT", 30)  # within the second text
        assert [tokenizer.decode(ids) for ids in token_windows(path, tokenizer)] == ["a\u2028b"]
    for line in ('{"text": null}', '{"text": 5}', "[" * 100_000):
        path.write_text(line + "\n")
        with pytest.raises(UserError, match=r"^cannot read text from .*lines.jsonl"):
            token_windows(path, tokenizer)


def test_what_calibration_refuses(source: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "lines.jsonl").write_text('{"code": 1}\n')
    for arguments, message in (
        (["--quantization-encoding", "q4_0", "--calibrate", source / "config.json"], None),
        (["--quantization-encoding", "q4_0", "--calibrate", tmp_path / "empty.txt"], "holds no text to calibrate with"),
        (["--quantization-encoding", "q4_0", "--calibrate", tmp_path / "lines.jsonl"], "cannot read text from .*jsonl"),
        (
            ["--quantization-encoding", "q8_0", "--calibrate", __file__],
            "--calibrate changes nothing in q8_0; expected one",
        ),
        (
            ["--save-imatrix", tmp_path / "im.gguf"],
            "--save-imatrix writes what --calibrate finds; expected --calibrate",
        ),
    ):
        if message is None:
            run_convert(source, tmp_path / "m.gguf", *arguments)  # any text will do
            continue
        with pytest.raises(UserError, match=message):
            run_convert(source, tmp_path / "n.gguf", *arguments)
    with pytest.raises(UserError, match=r"is a GGUF file of type None; expected 'imatrix'"):
        run_convert(source, tmp_path / "n.gguf", "--quantization-encoding", "q4_0", "--calibrate", tmp_path / "m.gguf")


def test_activations_beyond_float32_are_no_inputs(source: Path) -> None:
    checkpoint = open_checkpoint(source)
    config = from_checkpoint(checkpoint)
    tensors = dict(map_weights(checkpoint, config))
    large = (to_float32(tensors["blk.0.ffn_norm.weight"]) * np.float32(1e25)).view(np.uint8)
    tensors["blk.0.ffn_norm.weight"] = Tensor("norm", (256,), Encoding.FLOAT32, large)
    with pytest.raises(UserError, match=r"^layer 0 makes NaN or infinity of the calibration's text; expected numbers"):
        Calibration(config, tensors, [list(range(20))]).inputs("blk.0.ffn_up.weight")


def test_refacts_logits_by_the_calibrations_blocks() -> None:
    from test_refact import random_refact  # type: ignore[attr-defined]

    from replit.decoder.calibration import _logits

    small = random_refact()
    tensors = {
        name: Tensor(name, array.shape, Encoding.FLOAT32, np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        for name, array in small.weights.items()
    }
    ids = list(range(30))
    [found] = _logits(small.config, tensors, [ids])
    np.testing.assert_allclose(found, reference_refact.logits(small.config, small.weights, ids), atol=1e-4)

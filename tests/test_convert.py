"""Conversion to GGUF: contents, llama.cpp both ways, and what happens when it fails."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from model_files import ModelFile, add_key, add_tokenizer
from tiny_model import run_convert as run
from tiny_model import write_model, write_tokenizer

import reference
from replit.config import from_checkpoint
from replit.runtime.weight_memory import materialize, weight_types
from replit.weight_names import map_weights
from weights.convert import TARGETS
from weights.files.checkpoint import Checkpoint, open_checkpoint
from weights.model_name import ModelName, file_name, parse_name
from weights.quantization import quantize, to_float32
from weights.tensor import Encoding
from weights.tokenizers.load import load_tokenizer

TEXT = "def area(r1):\n    return 3.14 * r1 ** 2  # über\n"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("hub") / "tiny-code-v1_5-1m")


@pytest.fixture(scope="module")
def converted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Encoding, Path]:
    """The tiny model in every encoding."""
    folder = tmp_path_factory.mktemp("converted")
    for encoding in TARGETS:
        run(source, folder / f"{encoding}.gguf", "--quantization-encoding", str(encoding))
    return {encoding: folder / f"{encoding}.gguf" for encoding in TARGETS}


def numpy_weights(checkpoint: Checkpoint) -> dict[str, npt.NDArray[np.float32]]:
    tensors = map_weights(checkpoint, from_checkpoint(checkpoint))
    return {name: to_float32(tensor) for name, tensor in tensors.items()}


@pytest.mark.parametrize("encoding", TARGETS)
def test_every_tensor_has_the_promised_encoding_and_bytes(
    source: Path, converted: dict[Encoding, Path], encoding: Encoding
) -> None:
    original, written = open_checkpoint(source), open_checkpoint(converted[encoding])
    config = from_checkpoint(written)
    assert config.layer_norm_eps == np.float32(1e-5)  # GGUF holds it in 32 bits
    assert replace(config, layer_norm_eps=1e-5) == from_checkpoint(original)
    expected = numpy_weights(original)
    assert set(written.tensors) == set(expected)
    for name, tensor in written.tensors.items():
        stored = encoding
        if "norm" in name:
            stored = Encoding.FLOAT32
        elif name == "token_embd.weight" and encoding.is_quantized:
            stored = Encoding.Q8_0
        elif "attn_qkv" in name and encoding is Encoding.Q4_K:
            stored = Encoding.Q6_K
        assert tensor.encoding is stored, name
        np.testing.assert_array_equal(tensor.data, quantize(expected[name], stored).reshape(-1))


@pytest.mark.parametrize("encoding", TARGETS)
def test_a_model_quantized_at_its_start_has_the_same_bytes(
    source: Path, converted: dict[Encoding, Path], encoding: Encoding
) -> None:
    checkpoint = open_checkpoint(source)
    tensors = map_weights(checkpoint, from_checkpoint(checkpoint))
    types = weight_types(tensors, encoding)
    written = open_checkpoint(converted[encoding]).tensors
    for name, tensor in tensors.items():
        data = materialize(tensor, types[name][0], mapped=False)
        assert types[name] == (written[name].encoding, written[name].shape)
        np.testing.assert_array_equal(data, written[name].data)


def test_the_tokenizer_travels(source: Path, converted: dict[Encoding, Path]) -> None:
    before = load_tokenizer(open_checkpoint(source))
    after = load_tokenizer(open_checkpoint(converted[Encoding.Q4_0]))
    assert after.encode(TEXT) == before.encode(TEXT)
    assert after.vocab_size == before.vocab_size == 640
    assert after.special == before.special
    assert after.eos_token_id == 0


def test_digits_apart_are_kept_apart(source: Path, tmp_path: Path) -> None:
    directory = write_model(tmp_path / "digits")
    write_tokenizer(directory / "tokenizer.json", digits_apart=True)
    run(directory, tmp_path / "digits.gguf")
    written = open_checkpoint(tmp_path / "digits.gguf")
    assert written.metadata["tokenizer.ggml.pre"] == "refact"
    ids = load_tokenizer(open_checkpoint(directory)).encode("x = 12345")
    assert load_tokenizer(written).encode("x = 12345") == ids


def test_normalization_of_the_text_is_kept(tmp_path: Path) -> None:
    """GPT-NeoX's tokenizer, which replit-code-v1_5's comes from, composes accents."""
    directory = write_model(tmp_path / "composed")
    write_tokenizer(directory / "tokenizer.json", composed=True)
    run(directory, tmp_path / "composed.gguf")
    tokenizer = load_tokenizer(open_checkpoint(tmp_path / "composed.gguf"))
    assert tokenizer.encode("nai\u0308ve") == tokenizer.encode("na\u00efve")
    before = load_tokenizer(open_checkpoint(directory))
    assert tokenizer.encode("nai\u0308ve") == before.encode("nai\u0308ve")


def test_a_gguf_source_keeps_what_it_says_about_itself(converted: dict[Encoding, Path], tmp_path: Path) -> None:
    run(converted[Encoding.FLOAT32], tmp_path / "again.gguf", "--quantization-encoding", "q8_0")
    again = open_checkpoint(tmp_path / "again.gguf")
    direct = open_checkpoint(converted[Encoding.Q8_0])
    assert again.metadata == direct.metadata
    assert again.metadata["general.name"] == "tiny-code-v1_5-1m"
    for name, tensor in direct.tensors.items():
        np.testing.assert_array_equal(again.tensors[name].data, tensor.data)


def test_blocks_that_are_right_already_are_copied(converted: dict[Encoding, Path], tmp_path: Path) -> None:
    result = run(converted[Encoding.Q4_K], tmp_path / "copy.gguf", *Q4_K)
    assert "is quantized already: the original would lose less" in result.stderr
    assert (tmp_path / "copy.gguf").read_bytes() == converted[Encoding.Q4_K].read_bytes()


Q4_K = ("--quantization-encoding", "q4_k")


def test_a_directory_gets_the_conventional_name(source: Path, tmp_path: Path) -> None:
    result = run(source, tmp_path, *Q4_K)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-code-1.6M-v1.5-Q4_K.gguf"]
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert [" ".join(line.split()) for line in lines[:3]] == [
        "token_embd.weight 640 x 256 bfloat16 -> q8_0",
        "blk.0.attn_norm.weight 256 bfloat16 -> float32",
        "blk.0.attn_qkv.weight 512 x 256 bfloat16 -> q6_k",
    ]
    assert lines[-1].endswith(" bytes, 5.27 bits a weight")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("replit/replit-code-v1_5-3b", ModelName("replit-code", None, "v1.5")),
        ("replit-code-v1-3b", ModelName("replit-code", None, "v1.0")),
        ("smallcloudai/Refact-1_6B-fim", ModelName("Refact", "fim", None)),
        ("replit-code-v1_5-3b-bf16.gguf", ModelName("replit-code", None, "v1.5")),
        ("replit-code-3.3B-v1.5-Q4_K.gguf", ModelName("replit-code", None, "v1.5")),
        ("nano", ModelName("nano", None, None)),
        ("v1_5-3b", ModelName("model", None, "v1.5")),
    ],
)
def test_names_are_taken_apart(name: str, expected: ModelName) -> None:
    assert parse_name(name) == expected


def test_file_names_follow_the_convention() -> None:
    name = ModelName("replit-code", None, "v1.5")
    assert file_name(name, 3_322_088_448, Encoding.Q4_0) == "replit-code-3.3B-v1.5-Q4_0.gguf"
    assert file_name(name, 3_322_088_448, Encoding.BFLOAT16) == "replit-code-3.3B-v1.5-BF16.gguf"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("my model " * 60, "my-model-" * 11 + "m-3.3B-Q4_0.gguf"),
        ("模型" * 99, "模型" * 16 + "模-3.3B-Q4_0.gguf"),
        ("a\0b\u202ec\n\ud800\\d", "abcd-3.3B-Q4_0.gguf"),
        ("org/..", "model-3.3B-Q4_0.gguf"),
        (f"a-3b-{'b' * 300}-v{'1' * 300}", f"a-3.3B-{'b' * 60}-v{'1' * 59}-Q4_0.gguf"),
    ],
)
def test_file_names_are_such_that_a_file_can_have(name: str, expected: str, tmp_path: Path) -> None:
    found = file_name(parse_name(name), 3_322_088_448, Encoding.Q4_0)
    assert found == expected
    (tmp_path / found).write_text("")
    assert [path.name for path in tmp_path.iterdir()] == [expected]


def test_a_name_as_long_as_it_may_be(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / f"{'a' * 250}.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["a" * 250 + ".gguf"]


def test_keys_keep_their_values_whatever_their_type(tmp_path: Path) -> None:
    kinds = gguf.GGUFValueType
    scalars = {
        "general.parameter_count": (5_000_000_000, kinds.UINT64),
        "general.name": ("a\0b" * 200, kinds.STRING),
        "general.smallest": (-(1 << 63), kinds.INT64),
        "general.rate": (1e300, kinds.FLOAT64),
        "general.tenth": (0.1, kinds.FLOAT64),
        "general.infinite": (math.inf, kinds.FLOAT32),
        "general.flag": (True, kinds.BOOL),
        "tokenizer.ggml.cls_token_id": (-1, kinds.INT32),
    }
    lists = {
        "general.hashes": ([1 << 40, (1 << 64) - 1], kinds.UINT64),
        "general.signed": ([-(1 << 40), 5], kinds.INT64),
        "general.rates": ([1e300, 0.5], kinds.FLOAT64),
        "general.flags": ([True, False], kinds.BOOL),
    }
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "mpt")
    for key, value in ModelFile().metadata().items():
        add_key(writer, f"mpt.{key}", value)
    add_tokenizer(writer, "mpt")
    for key, (value, kind) in scalars.items():
        writer.add_key_value(key, value, kind)
    for key, (values, kind) in lists.items():
        writer.add_key_value(key, values, kinds.ARRAY, kind)
    for name, array in ModelFile().tensors().items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (tmp_path / "out").mkdir()
    run(path, tmp_path / "out", "--quantization-encoding", "float32")
    [written] = (tmp_path / "out").iterdir()
    fields = gguf.GGUFReader(written).fields
    for key, (value, _) in (scalars | lists).items():
        assert fields[key].contents() == value, key
        assert open_checkpoint(written).metadata[key] == value
    # What fits keeps the types that llama.cpp asks for.
    assert fields["tokenizer.ggml.eos_token_id"].types == [kinds.UINT32]
    assert fields["tokenizer.ggml.token_type"].types == [kinds.ARRAY, kinds.INT32]


@pytest.fixture(scope="module")
def llama_cpp() -> Any:
    return pytest.importorskip("llama_cpp", reason="loads the files in llama.cpp")


@pytest.mark.parametrize("encoding", TARGETS)
def test_llama_cpp_loads_what_we_write(llama_cpp: Any, converted: dict[Encoding, Path], encoding: Encoding) -> None:
    """Same tokens, and the logits of the decoder in numpy but for llama.cpp's roundings."""
    checkpoint = open_checkpoint(converted[encoding])
    llama = llama_cpp.Llama(str(converted[encoding]), n_ctx=64, logits_all=True, verbose=False)
    ids = load_tokenizer(checkpoint).encode(TEXT)
    assert llama.tokenize(TEXT.encode(), add_bos=False) == ids
    llama.eval(ids)
    theirs = np.array(llama.scores[: len(ids)])
    ours = reference.logits(from_checkpoint(checkpoint), numpy_weights(checkpoint), ids)
    for row, expected in zip(theirs, ours, strict=True):
        assert np.corrcoef(row, expected)[0, 1] > 0.999


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K_M", "Q5_K_M", "Q6_K"])
def test_we_load_what_llama_quantize_wrote(
    llama_cpp: Any, converted: dict[Encoding, Path], tmp_path: Path, kind: str
) -> None:
    path = tmp_path / f"{kind}.gguf"
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    names = [str(p).encode() for p in (converted[Encoding.FLOAT32], path)]
    assert llama_cpp.llama_model_quantize(*names, options) == 0
    exact = numpy_weights(open_checkpoint(converted[Encoding.FLOAT32]))
    written = open_checkpoint(path)
    assert any(tensor.encoding.is_quantized for tensor in written.tensors.values())
    for name, array in numpy_weights(written).items():
        assert np.abs(array - exact[name]).max() <= 0.14 * np.abs(exact[name]).max(), name
    run(path, tmp_path / "float.gguf", "--quantization-encoding", "float32")
    for name, array in numpy_weights(open_checkpoint(tmp_path / "float.gguf")).items():
        np.testing.assert_array_equal(array, to_float32(written.tensors[name]))

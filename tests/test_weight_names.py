"""The table of weights: canonical names and shapes, and what does not fit them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from model_files import ModelFile, hub_name, write_gguf, write_hub_directory
from safetensors.numpy import save_file

from replit.config import from_checkpoint
from replit.weight_names import expected_shapes, map_weights
from weights.errors import UserError
from weights.files.checkpoint import open_checkpoint
from weights.quantization import to_float32
from weights.tensor import Tensor


def mapped(path: Path) -> dict[str, Tensor]:
    checkpoint = open_checkpoint(path)
    return map_weights(checkpoint, from_checkpoint(checkpoint))


def error_of(path: Path) -> str:
    with pytest.raises(UserError) as raised:
        mapped(path)
    return str(raised.value).replace(str(path), "FILE")


def test_gguf_and_hub_names_give_the_same_weights(tmp_path: Path) -> None:
    model = ModelFile()
    from_gguf = mapped(write_gguf(tmp_path / "m.gguf", model))
    from_hub = mapped(write_hub_directory(tmp_path / "m", model))
    assert list(from_gguf) == list(from_hub) == list(model.tensors())
    for name, array in model.tensors().items():
        np.testing.assert_array_equal(to_float32(from_gguf[name]), array)
        np.testing.assert_array_equal(to_float32(from_hub[name]), array)


def test_names_are_those_of_gguf_py() -> None:
    """gguf-py's own table for MPT maps the hub's names to the ones used here."""
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MPT, 2)
    for name in ModelFile().tensors():
        assert table.get_name(hub_name(name), try_suffixes=(".weight",)) == name


def test_the_published_shape(tmp_path: Path) -> None:
    """The 3.3B model has 194 tensors and 3,322,088,448 parameters."""
    model = ModelFile(d_model=24, n_heads=24, n_kv_heads=8)
    config = from_checkpoint(open_checkpoint(write_gguf(tmp_path / "m.gguf", model)))
    shapes = expected_shapes(replace(config, d_model=3072, n_layers=32, ffn_size=12288, vocab_size=32768))
    assert len(shapes) == 194
    assert shapes["blk.31.attn_qkv.weight"] == (5120, 3072)
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 3_322_088_448


def test_hub_names_without_the_prefix(tmp_path: Path) -> None:
    model = ModelFile()
    directory = write_hub_directory(tmp_path / "m", model)
    arrays = {hub_name(name).removeprefix("transformer."): array for name, array in model.tensors().items()}
    save_file(arrays, directory / "model.safetensors")
    assert list(mapped(directory)) == list(model.tensors())


def test_a_tied_output_matrix_is_dropped(tmp_path: Path) -> None:
    model = ModelFile()
    directory = write_hub_directory(tmp_path / "m", model)
    arrays = {hub_name(name): array for name, array in model.tensors().items()}
    arrays["lm_head.weight"] = arrays["transformer.wte.weight"].copy()
    save_file(arrays, directory / "model.safetensors")
    assert "output.weight" not in mapped(directory)
    tensors = model.tensors()
    tensors["output.weight"] = tensors["token_embd.weight"]
    path = write_gguf(tmp_path / "m.gguf", model, tensors)
    assert "output.weight" not in mapped(path)


def test_an_untied_output_matrix_is_kept(tmp_path: Path) -> None:
    model = ModelFile()
    directory = write_hub_directory(tmp_path / "m", model, tie_word_embeddings=False)
    message = error_of(directory)
    assert "1 of 15 tensors are missing, first 'lm_head.weight'; expected all" in message
    arrays = {hub_name(name): array for name, array in model.tensors().items()}
    arrays["lm_head.weight"] = arrays["transformer.wte.weight"] + 1
    save_file(arrays, directory / "model.safetensors")
    output = mapped(directory)["output.weight"]
    np.testing.assert_array_equal(to_float32(output), arrays["lm_head.weight"])


def without(name: str) -> dict[str, Any]:
    tensors = ModelFile().tensors()
    del tensors[name]
    return tensors


def with_tensor(name: str, array: Any) -> dict[str, Any]:
    return ModelFile().tensors() | {name: array}


ONES = np.ones((8, 24), np.float32)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            without("blk.1.ffn_up.weight"),
            "FILE: 1 of 14 tensors are missing, first 'blk.1.ffn_up.weight'; expected all: "
            "download or convert the file again",
        ),
        (
            with_tensor("blk.2.ffn_up.weight", ONES),
            "FILE: unexpected tensor 'blk.2.ffn_up.weight' (the architecture has none); expected "
            "only the weights of a Replit Code model: use a file of that architecture",
        ),
        (
            with_tensor("blk.0.attn_qkv.bias", np.ones(40, np.float32)),
            "FILE: unexpected tensor 'blk.0.attn_qkv.bias' (biases other than zero are not implemented); expected "
            "only the weights of a Replit Code model: use a file of that architecture",
        ),
        (
            with_tensor("blk.0.attn_qkv.weight", ONES),
            "FILE: tensor 'blk.0.attn_qkv.weight' has the shape [8, 24]; expected [40, 24] by the "
            "file's configuration: download or convert it again",
        ),
        (
            with_tensor("output_norm.weight", np.ones((24, 1), np.float32)),
            "FILE: tensor 'output_norm.weight' has the shape [24, 1]; expected [24] by the file's "
            "configuration: download or convert it again",
        ),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, tensors: dict[str, Any], message: str) -> None:
    path = write_gguf(tmp_path / "m.gguf", ModelFile(), tensors)
    assert error_of(path) == message


def test_hub_tensors_are_named_as_stored(tmp_path: Path) -> None:
    model = ModelFile()
    directory = write_hub_directory(tmp_path / "m", model)
    arrays = {hub_name(name): array for name, array in model.tensors().items()}
    del arrays["transformer.blocks.0.norm_2.weight"]
    save_file(arrays, directory / "model.safetensors")
    assert "first 'transformer.blocks.0.norm_2.weight'; expected all" in error_of(directory)
    arrays["transformer.wpe.weight"] = ONES
    save_file(arrays, directory / "model.safetensors")
    assert "unexpected tensor 'transformer.wpe.weight'" in error_of(directory)


def test_a_tensor_under_two_names(tmp_path: Path) -> None:
    model = ModelFile()
    directory = write_hub_directory(tmp_path / "m", model)
    arrays = {hub_name(name): array for name, array in model.tensors().items()}
    arrays["wte.weight"] = arrays["transformer.wte.weight"] + 1
    save_file(arrays, directory / "model.safetensors")
    assert "are both token_embd.weight; expected it once" in error_of(directory)


def test_a_quantized_norm(tmp_path: Path) -> None:
    model = ModelFile(d_model=32, n_heads=4, n_kv_heads=2)
    path = tmp_path / "m.gguf"
    tensors = model.tensors()
    norm = tensors.pop("output_norm.weight")
    # As a float tensor first, then its type and bytes by hand: 32 floats are 128 bytes.
    write_gguf(path, model, tensors | {"output_norm.weight": norm})
    content = path.read_bytes()
    entry = b"output_norm.weight" + (1).to_bytes(4, "little") + (32).to_bytes(8, "little")
    position = content.index(entry) + len(entry)
    path.write_bytes(content[:position] + (8).to_bytes(4, "little") + content[position + 4 :])
    assert error_of(path) == (
        "FILE: tensor 'output_norm.weight' is stored as q8_0; expected float32, float16 or "
        "bfloat16 for a norm: convert the model again"
    )


def test_absurd_layer_counts_make_no_absurd_tables(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", ModelFile(keys={"block_count": 1 << 30}))
    assert "says 1073741824 layers, the file has 14 tensors; expected several" in error_of(path)

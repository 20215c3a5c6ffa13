"""Safetensors reading, against the safetensors library and against files damaged by hand."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_files import ModelFile, hub_name, write_hub_directory
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save, save_file

from pipelines.inspection import Run, inspect_model
from weights.errors import UserError
from weights.files.checkpoint import open_checkpoint
from weights.files.safetensors_file import read_safetensors
from weights.quantization import to_float32
from weights.tensor import Encoding


def entry(begin: int = 0, end: int = 8, dtype: Any = "F32", shape: Any = (2,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def safetensors_bytes(header: Any, data: bytes = bytes(8), length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def error_of(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        read_safetensors(path)
    message = str(raised.value)
    assert str(path) in message
    assert "expected" in message
    return message


def test_reads_what_the_library_writes(path: Path) -> None:
    random = np.random.default_rng(1)
    arrays = {
        "a": random.standard_normal((3, 5)).astype(np.float32),
        "b.c": random.standard_normal(7).astype(np.float16),
        "d": random.standard_normal((2, 3, 4)).astype(np.float32),
    }
    save_file(arrays, path, metadata={"format": "pt"})
    tensors = read_safetensors(path)
    assert set(tensors) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(tensors[name].as_array(), array)
        np.testing.assert_array_equal(to_float32(tensors[name]), array.astype(np.float32))
        assert tensors[name].shape == array.shape


def test_bfloat16(path: Path) -> None:
    values = np.array([1.0, -2.5, 3e38, 0.0], np.float32)
    bits = (values.view(np.uint32) >> 16).astype("<u2")
    path.write_bytes(safetensors_bytes({"a": entry(dtype="BF16", shape=(2, 2))}, bits.tobytes()))
    tensor = read_safetensors(path)["a"]
    assert tensor.encoding is Encoding.BFLOAT16
    np.testing.assert_array_equal(tensor.as_array(), bits.reshape(2, 2))
    expected = (bits.astype(np.uint32) << 16).view(np.float32).reshape(2, 2)
    np.testing.assert_array_equal(to_float32(tensor), expected)


def test_data_at_an_odd_address(path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    header += b" " * (len(header) % 2 == 0)  # the data starts at an odd byte
    path.write_bytes(safetensors_bytes(header, np.array([1, 2], "<f4").tobytes()))
    np.testing.assert_array_equal(to_float32(read_safetensors(path)["a"]), [1, 2])


def test_truncated_at_any_byte(path: Path) -> None:
    content = save({"a": np.ones((4, 4), np.float32), "b": np.zeros(3, np.float16)})
    for end in range(len(content)):
        error_of(path, content[:end])


DAMAGED = {
    "not JSON": (safetensors_bytes(b"{nonsense"), "holds no valid JSON"),
    "not UTF-8": (safetensors_bytes(b'{"\xff":1}'), "holds no valid JSON"),
    "deep": (safetensors_bytes(b'{"a":' + b"[" * 200000), "holds no valid JSON"),
    "a key twice": (
        safetensors_bytes(b'{"a":{},"a":{}}'),
        "holds no valid JSON (the key 'a' occurs twice)",
    ),
    "header length": (
        safetensors_bytes({"a": entry()}, length=1 << 60),
        f"its header says it has {1 << 60} bytes, the file has",
    ),
    "no offsets": (safetensors_bytes({"a": {"dtype": "F32"}}), "'a' has the data_offsets None"),
    "no entry": (safetensors_bytes({"a": 3}), "'a' has the data_offsets None"),
    "reversed": (safetensors_bytes({"a": entry(8, 0)}), "'a' has the data_offsets [8, 0]"),
    "negative": (safetensors_bytes({"a": entry(-8, 0)}), "'a' has the data_offsets [-8, 0]"),
    "fractional": (safetensors_bytes({"a": entry(0, 8.0)}), "'a' has the data_offsets [0, 8.0]"),
    "outside": (
        safetensors_bytes({"a": entry(0, 16, shape=(4,))}),
        "tensor 'a' ends at byte 16 of 8 of data",
    ),
    "gap": (
        safetensors_bytes({"a": entry(4, 12)}, bytes(12)),
        "tensor 'a' starts at byte 4 of the data, not at 0",
    ),
    "overlap": (
        safetensors_bytes({"a": entry(), "b": entry(4, 12)}, bytes(12)),
        "tensor 'b' starts at byte 4 of the data, not at 8",
    ),
    "surplus data": (
        safetensors_bytes({"a": entry()}, bytes(9)),
        "1 bytes at the end belong to no tensor",
    ),
    "size": (
        safetensors_bytes({"a": entry(shape=(3,))}),
        "tensor 'a' has 8 bytes, its shape needs 12",
    ),
    "huge shape": (
        safetensors_bytes({"a": entry(shape=(1 << 40, 1 << 40))}),
        "tensor 'a' has 8 bytes, its shape needs 4835703278458516698824704",
    ),
    "shape": (safetensors_bytes({"a": entry(shape="ab")}), "'a' has the shape ['a', 'b']"),
    "a scalar's bytes": (safetensors_bytes({"a": entry(shape=())}), "'a' has 8 bytes, its shape needs 4"),
    "bytes of nothing": (safetensors_bytes({"a": entry(shape=(0, 2))}), "'a' has 8 bytes, its shape needs 0"),
    "type": (
        safetensors_bytes({"a": entry(dtype="I64", shape=(1,))}),
        "tensor 'a' is stored as 'I64'; expected one of F64, F32, F16, BF16: save the model again",
    ),
    "no type": (safetensors_bytes({"a": entry(dtype=None)}), "tensor 'a' is stored as None;"),
}


@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damage_is_named(path: Path, content: bytes, message: str) -> None:
    assert message in error_of(path, content)


def test_scalars_and_empty_tensors_are_sound(path: Path) -> None:
    arrays = {"a": np.float32(5), "b": np.zeros((0, 4), np.float32), "c": np.ones((2, 3), np.float32)}
    save_file({name: np.asarray(array) for name, array in arrays.items()}, path)
    found = read_safetensors(path)
    assert {name: tensor.shape for name, tensor in found.items()} == {"a": (), "b": (0, 4), "c": (2, 3)}
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name].as_array(), array)


@pytest.mark.parametrize("name", ["transformer.wte.weight", "transformer.other"])
@pytest.mark.parametrize("config", [True, False])
def test_a_model_with_a_scalar_is_refused_by_its_name_and_shown(name: str, config: bool, tmp_path: Path) -> None:
    model = ModelFile()
    write_hub_directory(tmp_path, model)
    arrays = {hub_name(key): array for key, array in model.tensors().items()} | {name: np.asarray(np.float32(5))}
    save_file(arrays, tmp_path / "model.safetensors")
    if not config:
        (tmp_path / "config.json").unlink()
    report = inspect_model(open_checkpoint(tmp_path), Run(None, 64, 1))
    assert f"tensor '{name}'" in report["problems"][0] or not config
    assert [tensor["shape"] for tensor in report["tensors"] if tensor["name"] == name] == [[]]


@pytest.mark.parametrize("name", sorted(DAMAGED.keys() - {"type"}))
def test_the_library_refuses_the_same(path: Path, name: str) -> None:
    """What we call damaged the library does too, apart from what it can hold and we cannot."""
    path.write_bytes(DAMAGED[name][0])
    with pytest.raises((SafetensorError, ValueError)), safe_open(path, framework="np") as file:
        list(file.keys())


def write_shards(directory: Path, model: ModelFile) -> Path:
    """Two shards and their index, beside config.json."""
    write_hub_directory(directory, model)
    (directory / "model.safetensors").unlink()
    names = {hub_name(name): array for name, array in model.tensors().items()}
    halves = [dict(list(names.items())[::2]), dict(list(names.items())[1::2])]
    weight_map = {}
    for number, arrays in enumerate(halves, 1):
        shard = f"model-{number:05}-of-00002.safetensors"
        save_file(arrays, directory / shard)
        weight_map |= dict.fromkeys(arrays, shard)
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


def test_shards_by_index_and_by_directory(tmp_path: Path) -> None:
    index = write_shards(tmp_path, ModelFile())
    expected = {hub_name(name): array for name, array in ModelFile().tensors().items()}
    for path in (index, tmp_path):
        checkpoint = open_checkpoint(path)
        assert checkpoint.metadata["d_model"] == 24
        assert set(checkpoint.tensors) == set(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(to_float32(checkpoint.tensors[name]), array)


def rewrite_index(index: Path, change: Any) -> None:
    content = json.loads(index.read_text())
    change(content)
    index.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["weight_map"].update(x="../model.safetensors"), "names the shard '../model"),
        (lambda c: c["weight_map"].update(x=3), "names the shard 3; expected a file beside"),
        (lambda c: c["weight_map"].update(x="no.safetensors"), "names 3 shards and no.safetensors is not beside it"),
        (
            lambda c: c["weight_map"].update(x="model-00001-of-00002.safetensors"),
            "and model-00001-of-00002.safetensors disagree about tensor 'x'; expected every",
        ),
        (
            lambda c: c["weight_map"].pop("transformer.wte.weight"),
            "disagree about tensor 'transformer.wte.weight'; expected every tensor",
        ),
    ],
)
def test_an_index_that_disagrees(tmp_path: Path, change: Any, message: str) -> None:
    index = write_shards(tmp_path, ModelFile())
    rewrite_index(index, change)
    with pytest.raises(UserError, match=message):
        open_checkpoint(tmp_path)


def test_a_config_that_is_no_json(tmp_path: Path) -> None:
    write_hub_directory(tmp_path, ModelFile())
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(UserError, match=r"config.json holds list; expected a JSON object"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json holds no valid JSON \(.*\); expected"):
        open_checkpoint(tmp_path)


def test_the_library_and_we_agree_on_a_model(tmp_path: Path) -> None:
    write_hub_directory(tmp_path, ModelFile())
    library = load_file(tmp_path / "model.safetensors")
    for name, tensor in open_checkpoint(tmp_path).tensors.items():
        np.testing.assert_array_equal(to_float32(tensor), library[name])

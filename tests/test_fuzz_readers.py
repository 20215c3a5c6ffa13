"""Damaged model files: each ends in a UserError or in a model that is what the file says.

Mutations of real files by a seeded generator (300 of each kind by default, 10 000 with -m slow),
and files made up by hypothesis. Memory and time are bounded while they are read.
"""

from __future__ import annotations

import json
import random
import resource
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_files import ModelFile, vocabulary, write_gguf, write_hub_directory
from safetensors import safe_open
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from replit.config import ReplitConfig, from_checkpoint
from replit.weight_names import expected_shapes, map_weights
from weights.errors import UserError
from weights.files.checkpoint import Checkpoint, open_checkpoint
from weights.quantization import to_float32
from weights.tensor import stored_bytes
from weights.tokenizers.load import load_tokenizer

CASES = [pytest.param(300, id="300"), pytest.param(5000, id="5000", marks=pytest.mark.slow)]
SECONDS = 5.0  # a file of 100 kB takes milliseconds; a shared machine may pause us
HEADROOM = 1 << 30  # address space beyond what the libraries have mapped


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """An absurd allocation is a MemoryError here, not a machine that swaps."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    mapped = Path("/proc/self/statm")
    if not mapped.exists():  # no Linux: the limits on time and the other checks remain
        yield
        return
    used = int(mapped.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + HEADROOM, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def read_all(path: Path) -> bool:
    """Everything that loading a model reads; whether it was accepted. Fails on all but UserError."""
    started = time.monotonic()
    refused = None
    try:
        checkpoint = open_checkpoint(path)
        check_tensors(checkpoint)
        config = from_checkpoint(checkpoint)
        check_weights(checkpoint, config)
        check_tokenizer(checkpoint)
    except UserError as error:
        refused = str(error)
    assert time.monotonic() - started < SECONDS
    assert refused is None or ("expected" in refused and "\n" not in refused)
    return refused is None


def check_tensors(checkpoint: Checkpoint) -> None:
    """Each tensor has the bytes that its shape needs, and they can all be read."""
    for tensor in checkpoint.tensors.values():
        assert tensor.nbytes == stored_bytes(tensor.shape, tensor.encoding) > 0
        int(tensor.data.sum())
        if not tensor.encoding.is_quantized:
            assert tensor.as_array().shape == tensor.shape


def check_weights(checkpoint: Checkpoint, config: ReplitConfig) -> None:
    weights = map_weights(checkpoint, config)
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    assert shapes == expected_shapes(config)


def check_tokenizer(checkpoint: Checkpoint) -> None:
    """What can be encoded is decoded to the same text."""
    tokenizer = load_tokenizer(checkpoint)
    text = "def return a 12\n\n     é"
    ids = tokenizer.encode(text, parse_special=False)
    assert all(0 <= index < tokenizer.vocab_size for index in ids)
    assert isinstance(tokenizer.decode(range(tokenizer.vocab_size)), str)


Mutation = Callable[[random.Random, bytearray], None]


def flip(source: random.Random, data: bytearray) -> None:
    for _ in range(source.choice([1, 1, 1, 4, 16])):
        data[position(source, data)] ^= 1 << source.randrange(8)


def overwrite(source: random.Random, data: bytearray) -> None:
    values = [0, 1, 2, 8, 255, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 63, (1 << 64) - 1]
    size = source.choice([1, 2, 4, 8])
    start = position(source, data)
    data[start : start + size] = struct.pack("<Q", source.choice(values))[:size]


def cut(source: random.Random, data: bytearray) -> None:
    start = position(source, data)
    del data[start : start + source.choice([1, 8, 100, len(data)])]


def repeat(source: random.Random, data: bytearray) -> None:
    start, end = sorted((position(source, data), position(source, data)))
    data[start:start] = data[start : min(end, start + 200)]


def swap(source: random.Random, data: bytearray) -> None:
    size = source.choice([1, 4, 8, 32])
    a, b = position(source, data), position(source, data)
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def position(source: random.Random, data: bytearray) -> int:
    """Anywhere, but mostly in the header, where damage matters."""
    return source.randrange(min(len(data), source.choice([64, 1000, 12000, len(data)])) or 1)


MUTATIONS: list[Mutation] = [flip, overwrite, cut, repeat, swap]


def mutated(source: random.Random, original: bytes) -> bytes:
    data = bytearray(original)
    for _ in range(source.choice([1, 1, 2, 5])):
        if data:
            source.choice(MUTATIONS)(source, data)
    return bytes(data)


@pytest.mark.parametrize("cases", CASES)
@pytest.mark.parametrize("bfloat16", [False, True])
def test_mutated_gguf(tmp_path: Path, cases: int, bfloat16: bool) -> None:
    path = write_gguf(tmp_path / "m.gguf", ModelFile(n_layers=1, bfloat16=bfloat16))
    original = path.read_bytes()
    assert read_all(path)
    source = random.Random(cases + bfloat16)
    accepted = 0
    for _ in range(cases):
        path.write_bytes(mutated(source, original))
        if read_all(path):
            accepted += 1
            compare_with_gguf_py(path)
    assert 0 < accepted < cases


def compare_with_gguf_py(path: Path) -> None:
    """What both readers accept, both read alike."""
    ours = open_checkpoint(path)
    try:
        theirs = gguf.GGUFReader(path)
    except (ValueError, KeyError, IndexError, UnicodeDecodeError, OverflowError):
        return
    assert [tensor.name for tensor in theirs.tensors] == list(ours.tensors)
    for tensor in theirs.tensors:
        assert ours.tensors[tensor.name].data.tobytes() == tensor.data.tobytes()


@pytest.mark.parametrize("cases", CASES)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_mutated_hub_directory(tmp_path: Path, cases: int, name: str) -> None:
    directory = hub_directory(tmp_path)
    original = (directory / name).read_bytes()
    assert read_all(directory)
    source = random.Random(name)
    accepted = 0
    for _ in range(cases):
        (directory / name).write_bytes(mutated(source, original))
        if read_all(directory):
            accepted += 1
            compare_with_safetensors(directory / "model.safetensors")
    assert 0 < accepted < cases


def hub_directory(tmp_path: Path) -> Path:
    directory = write_hub_directory(tmp_path / "m", ModelFile(n_layers=1))
    backend = Backend(models.BPE(vocab={t: i for i, t in enumerate(vocabulary()[0])}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(["<|endoftext|>", "<fim_prefix>"])
    backend.add_tokens(vocabulary()[0][-2:])
    backend.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return directory


def compare_with_safetensors(path: Path) -> None:
    """What we accept the library accepts, and reads alike."""
    ours = open_checkpoint(path)
    with safe_open(path, framework="np") as theirs:
        assert set(theirs.keys()) == set(ours.tensors)
        for name, tensor in ours.tensors.items():
            np.testing.assert_array_equal(tensor.as_array(), theirs.get_tensor(name))


FEW = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FEW
@given(content=st.binary(max_size=300), start=st.sampled_from([b"", b"GGUF\3\0\0\0"]))
def test_made_up_bytes(tmp_path: Path, content: bytes, start: bytes) -> None:
    path = tmp_path / "model"
    path.write_bytes(start + content)
    assert not read_all(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "F16", "I8", "F128"]) | json_values,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | json_values,
        "data_offsets": st.lists(st.integers(-1, 64), min_size=2, max_size=2) | json_values,
    },
)


@FEW
@given(header=st.dictionaries(st.text(max_size=3), entries, max_size=3), size=st.integers(0, 64))
def test_made_up_safetensors_header(tmp_path: Path, header: dict[str, Any], size: int) -> None:
    raw = json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(size))
    try:
        check_tensors(open_checkpoint(path))
    except UserError:
        return
    compare_with_safetensors(path)


@FEW
@given(
    config=st.dictionaries(
        st.sampled_from(
            "architectures d_model n_heads n_layers expansion_ratio max_seq_len vocab_size "
            "attn_config ffn_config logit_scale tie_word_embeddings norm_type".split()
        ),
        json_values,
        max_size=3,
    ),
    attention=st.dictionaries(
        st.sampled_from("attn_type kv_n_heads alibi alibi_bias_max clip_qkv softmax_scale".split()),
        json_values,
        max_size=2,
    ),
)
def test_made_up_config(tmp_path: Path, config: dict[str, Any], attention: dict[str, Any]) -> None:
    directory = tmp_path / "m"
    if not directory.exists():
        hub_directory(tmp_path)
        (directory / "first.json").write_bytes((directory / "config.json").read_bytes())
    good = json.loads((directory / "first.json").read_text())
    good["attn_config"] |= attention
    (directory / "config.json").write_text(json.dumps(good | config))
    read_all(directory)


scalars = st.one_of(
    st.tuples(st.just("uint32"), st.integers(0, (1 << 32) - 1)),
    st.tuples(st.just("int64"), st.integers(-(1 << 63), (1 << 63) - 1)),
    st.tuples(st.just("float64"), st.floats(allow_nan=False)),
    st.tuples(st.just("bool"), st.booleans()),
    st.tuples(st.just("string"), st.text(min_size=1, max_size=20)),  # the writer drops empty ones
    st.tuples(st.just("array"), st.lists(st.text(max_size=9), min_size=1, max_size=9)),
    st.tuples(st.just("array"), st.lists(st.integers(-9, 9), min_size=1, max_size=9)),
)
names = st.text(min_size=1, max_size=30)


@FEW
@given(
    pairs=st.dictionaries(names, scalars, max_size=5),
    shapes=st.dictionaries(names, st.lists(st.integers(1, 5), min_size=1, max_size=4), max_size=4),
)
def test_whatever_gguf_py_writes_is_read_alike(
    tmp_path: Path, pairs: dict[str, tuple[str, Any]], shapes: dict[str, list[int]]
) -> None:
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "any")
    for key, (kind, value) in pairs.items():
        getattr(writer, f"add_{kind}")(f"key.{key}", value)
    arrays = {name: np.arange(np.prod(shape), dtype=np.float32).reshape(shape) for name, shape in shapes.items()}
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    checkpoint = open_checkpoint(path)
    for key, (_, value) in pairs.items():
        assert checkpoint.metadata[f"key.{key}"] == value
    for name, array in arrays.items():
        np.testing.assert_array_equal(to_float32(checkpoint.tensors[name]), array)

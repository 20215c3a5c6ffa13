"""Weights in memory: no copy of a mapped file, copies that own aligned memory, conversions."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from models import as_tensor
from replit.runtime.free_memory import fits_in_memory
from replit.runtime.weight_memory import (
    aligned_copy,
    materialize,
    total_bytes,
    weight_types,
    writable_view,
)
from weights.tensor import Encoding, Tensor

MATRIX = np.linspace(-1, 1, 64 * 32, dtype=np.float32).reshape(64, 32)


def mapped_tensor(path: Path, encoding: Encoding) -> Tensor:
    """A tensor whose bytes lie in a mapped file, at an odd offset."""
    stored = as_tensor("m", MATRIX, encoding)
    path.write_bytes(b"x" * 7 + stored.data.tobytes())
    return Tensor("m", stored.shape, encoding, np.memmap(path, np.uint8, "r")[7:])


def test_a_mapped_weight_is_used_where_it_lies(tmp_path: Path) -> None:
    tensor = mapped_tensor(tmp_path / "w", Encoding.BFLOAT16)
    data = materialize(tensor, tensor.encoding, mapped=True)
    assert data.ctypes.data == tensor.data.ctypes.data
    assert data.flags.writeable  # or the engine would copy it


def test_a_view_keeps_the_map_open(tmp_path: Path) -> None:
    view = writable_view(mapped_tensor(tmp_path / "w", Encoding.FLOAT32).data)
    gc.collect()
    np.testing.assert_array_equal(view.view(np.float32).reshape(MATRIX.shape), MATRIX)


def test_weights_are_read_into_what_the_container_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replit.runtime.free_memory.memory_limit", lambda: 1000)
    assert fits_in_memory(900)
    assert not fits_in_memory(1000)


def test_weights_are_read_into_half_of_a_memory_of_which_nobody_says_what_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, known in (("_available", None), ("_installed", 1000), ("memory_limit", None), ("_address_space", None)):
        monkeypatch.setattr(f"replit.runtime.free_memory.{name}", lambda known=known: known)
    assert fits_in_memory(450)
    assert not fits_in_memory(460)


def test_a_copy_begins_at_a_cache_line() -> None:
    data = np.arange(1001, dtype=np.uint8)[1:]
    copy = aligned_copy(data)
    assert copy.ctypes.data % 64 == 0
    assert not np.shares_memory(copy, data)
    np.testing.assert_array_equal(copy, data)


@pytest.mark.parametrize("encoding", [Encoding.FLOAT32, Encoding.BFLOAT16])
def test_weights_are_converted_where_another_encoding_is_asked_for(tmp_path: Path, encoding: Encoding) -> None:
    tensors = {"m": mapped_tensor(tmp_path / "w", Encoding.FLOAT16), "g": as_tensor("g", MATRIX[0], encoding)}
    types = weight_types(tensors, encoding)
    assert types["m"] == (encoding, (64, 32))
    assert types["g"] == (Encoding.FLOAT32, (32,))  # norms always
    data = {name: materialize(tensor, types[name][0], mapped=True) for name, tensor in tensors.items()}
    assert sum(d.size for d in data.values()) == total_bytes(types)
    expected = as_tensor("m", MATRIX.astype(np.float16).astype(np.float32), encoding).data
    np.testing.assert_array_equal(data["m"], expected)

"""NaN and infinity where they make every text wrong: found before anything compiles, and named."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_model import write_model

from models import as_tensor, random_model
from pipelines.commands.inspect import inspect
from pipelines.registry import open_model
from replit.decoder.finite import check_finite, first_not_finite
from weights.errors import UserError
from weights.quantization import to_float32
from weights.quantization.decode import LAYOUT
from weights.tensor import Encoding, Tensor

BAD = [math.nan, -math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("encoding", [Encoding.FLOAT32, Encoding.FLOAT16, Encoding.BFLOAT16])
@pytest.mark.parametrize("value", BAD)
def test_each_bad_value_is_found_in_its_row(encoding: Encoding, value: float) -> None:
    array = np.random.default_rng(0).standard_normal((50, 32)).astype(np.float32)
    array[0, 0], array[1, 1] = 65000.0, -65000.0  # large, and no fault
    assert first_not_finite(stored(array, encoding)) is None
    array[37, 5] = value
    assert first_not_finite(stored(array, encoding)) == 37


def stored(array: np.ndarray, encoding: Encoding) -> Tensor:  # type: ignore[type-arg]
    """As `as_tensor`, without its check of the values."""
    bits = array.astype(np.float16).view(np.uint8) if encoding is Encoding.FLOAT16 else array.view(np.uint8)
    if encoding is Encoding.BFLOAT16:
        bits = (array.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    return Tensor("x", array.shape, encoding, bits.reshape(-1))


@pytest.mark.parametrize("encoding", list(LAYOUT))
def test_what_is_found_in_blocks_is_what_decoding_gives(encoding: Encoding) -> None:
    generator = np.random.default_rng(1)
    found = set()
    for _ in range(200):
        data = generator.integers(0, 256, 2 * 4 * encoding.block_bytes, np.uint8)
        tensor = Tensor("x", (4, 2 * encoding.block_size), encoding, data)
        with np.errstate(all="ignore"):
            bad = np.flatnonzero(~np.isfinite(to_float32(tensor)).all(axis=1))
        row = first_not_finite(tensor)
        assert row == (bad[0] if len(bad) else None)
        found.add(row)
    assert None in found
    assert len(found) > 1


def test_large_tables_are_searched_to_the_end() -> None:
    table = np.zeros((70_000, 64), np.float32)  # more than one chunk
    table[-1, -1] = np.nan
    assert first_not_finite(Tensor("x", table.shape, Encoding.FLOAT32, table.reshape(-1).view(np.uint8))) == 69_999


def test_norms_and_embedding_are_searched_and_matrices_left_alone() -> None:
    tensors = random_model(4).tensors(Encoding.FLOAT32)
    for name, tensor in tensors.items():
        array = to_float32(tensor).copy()
        array.reshape(-1)[7] = np.inf
        damaged = tensors | {name: replace(as_tensor(name, array, Encoding.FLOAT32), name="in the file")}
        if len(tensor.shape) == 1 or name == "token_embd.weight":
            with pytest.raises(UserError, match=r"^x\.gguf: tensor 'in the file' holds NaN or infinity"):
                check_finite(Path("x.gguf"), damaged)
        else:
            check_finite(Path("x.gguf"), damaged)


@pytest.fixture(params=["transformer.norm_f.weight", "transformer.blocks.1.norm_2.weight", "transformer.wte.weight"])
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    directory = write_model(tmp_path / "tiny")
    path = directory / "model.safetensors"
    content = bytearray(path.read_bytes())
    size = int.from_bytes(content[:8], "little")
    (start, stop) = json.loads(content[8 : 8 + size])[request.param]["data_offsets"]
    element = 300 if stop - start > 512 else 7  # the second row, of a matrix
    place = 8 + size + start + 2 * element
    content[place : place + 2] = b"\xc0\x7f"  # bfloat16's NaN
    path.write_bytes(content)
    return directory, request.param


def test_loading_is_refused_by_name(damaged: tuple[Path, str]) -> None:
    directory, name = damaged
    with pytest.raises(UserError) as error:
        open_model(str(directory), None, None)
    row = " in row 1" if "wte" in name else ""
    assert str(error.value) == (
        f"{directory / 'model.safetensors'}: tensor '{name}' holds NaN or infinity{row}; expected finite numbers: "
        "the model is damaged, download or convert it again"
    )


def test_inspect_says_so_of_a_local_model(damaged: tuple[Path, str]) -> None:
    directory, name = damaged
    result = CliRunner().invoke(inspect, [str(directory), "--json"])
    assert result.exit_code == 1
    (problem,) = json.loads(result.stdout)["problems"]
    assert f"tensor '{name}' holds NaN or infinity" in problem
    text = CliRunner().invoke(inspect, [str(directory)]).stdout.splitlines()
    assert text[-2:] == ["values: norms and embeddings were searched for NaN and infinity", problem]

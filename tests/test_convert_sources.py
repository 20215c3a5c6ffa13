"""Conversion from PyTorch files and from a hub that holds nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_hub
import numpy as np
import pytest
from tiny_model import run_convert as run
from tiny_model import weights as tiny_weights
from tiny_model import write_model

from weights.errors import UserError
from weights.files.checkpoint import open_checkpoint


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("hub") / "tiny-code-v1_5-1m")


def test_pytorch_files_give_the_same_model(source: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="reads a file that torch wrote")
    directory = write_model(tmp_path / "tiny-code-v1_5-1m")
    (directory / "model.safetensors").unlink()
    state = {k: torch.from_numpy(v).to(torch.bfloat16) for k, v in tiny_weights().items()}
    torch.save(state, directory / "pytorch_model.bin")
    run(directory, tmp_path / "out.gguf", "--quantization-encoding", "q8_0")
    run(source, tmp_path / "expected.gguf", "--quantization-encoding", "q8_0")
    assert (tmp_path / "out.gguf").read_bytes() == (tmp_path / "expected.gguf").read_bytes()


def test_pytorch_files_execute_nothing(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="reads a file that torch wrote")
    mark = tmp_path / "executed"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(mark),)

    directory = write_model(tmp_path / "hostile")
    (directory / "model.safetensors").unlink()
    torch.save({"transformer.wte.weight": Hostile()}, directory / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"is no PyTorch state dict of plain tensors"):
        run(directory, tmp_path / "out.gguf")
    assert not mark.exists()


def test_values_that_are_no_plain_tensors_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="reads a file that torch wrote")
    path = tmp_path / "pytorch_model.bin"
    for value, message in (
        (
            torch.zeros(1).expand(1 << 20, 1 << 20),
            r"'a' is no plain tensor \(its elements repeat\); expected one",
        ),
        (torch.eye(4).to_sparse(), "'a' is no plain tensor"),
        (torch.eye(4).to("meta"), "'a' is no plain tensor"),
        (torch._neg_view(torch.eye(4)), "'a' is no plain tensor"),
    ):
        torch.save({"a": value}, path)
        with pytest.raises(UserError, match=message):
            open_checkpoint(path)
    torch.save({1: torch.eye(4)}, path)
    with pytest.raises(UserError, match="holds a dict; expected a dict of tensors by name"):
        open_checkpoint(path)


def test_a_scalar_in_a_pytorch_file_is_refused_by_its_name(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="reads a file that torch wrote")
    directory = write_model(tmp_path / "scalar")
    (directory / "model.safetensors").unlink()
    state = {k: torch.from_numpy(v) for k, v in tiny_weights().items()} | {"transformer.scale": torch.tensor(5.0)}
    torch.save(state, directory / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"unexpected tensor 'transformer\.scale'"):
        run(directory, tmp_path / "out.gguf")


def test_without_torch_a_pytorch_file_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    directory = write_model(tmp_path / "model")
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(b"PK\3\4 as torch.save begins its files")
    with pytest.raises(UserError, match=r"torch is not installed; type `pip install torch`"):
        run(directory, tmp_path / "out.gguf")


PYTORCH_ONLY = "someone/tiny-code-v1_5-1m"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[fake_hub.FakeHub]:
    """A hub with a repository like replit/replit-code-v1_5-3b: PyTorch's file only."""
    torch = pytest.importorskip("torch", reason="writes a file as torch does")
    directory = write_model(tmp_path / "repository")
    (directory / "model.safetensors").unlink()
    state = {k: torch.from_numpy(v).to(torch.bfloat16) for k, v in tiny_weights().items()}
    torch.save(state, directory / "pytorch_model.bin")
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    with fake_hub.serve({PYTORCH_ONLY: {"main": files}}) as running:
        yield running


def convert_from(hub: fake_hub.FakeHub, tmp_path: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: the library reads its variables when it is imported."""
    code = f"import sys\n{before}\nfrom pipelines.commands.cli import main\nmain()"
    command = [sys.executable, "-c", code, "convert", PYTORCH_ONLY, str(tmp_path)]
    variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        command, cwd=Path(__file__).parents[1], env=os.environ | variables, capture_output=True, text=True
    )


def test_a_repository_of_pytorch_files_converts(hub: fake_hub.FakeHub, source: Path, tmp_path: Path) -> None:
    result = convert_from(hub, tmp_path)
    assert result.returncode == 0, result.stderr
    written = open_checkpoint(tmp_path / "tiny-code-1.6M-v1.5-BF16.gguf")
    run(source, tmp_path / "expected.gguf")
    for name, tensor in open_checkpoint(tmp_path / "expected.gguf").tensors.items():
        np.testing.assert_array_equal(written.tensors[name].data, tensor.data)


def test_a_repository_of_pytorch_files_asks_for_torch(hub: fake_hub.FakeHub, tmp_path: Path) -> None:
    missing = (
        "import importlib.util as util\nfind = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'torch' else find(name, *rest)"
    )
    result = convert_from(hub, tmp_path, missing)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "replit: someone/tiny-code-v1_5-1m holds PyTorch files only and torch is not installed; "
        "type `pip install torch` and this again"
    )

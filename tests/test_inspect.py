"""`replit inspect` on whole models, broken ones and serialized ones."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tiny_model import weights as tiny_weights
from tiny_model import write_model, write_safetensors

from pipelines.commands.inspect import inspect
from pipelines.inspection import ENGINE_BYTES
from replit.architecture import REPLIT
from replit.config import from_checkpoint
from replit.runtime.compile_key import CompileKey
from replit.runtime.compiled_file import write_compiled
from replit.runtime.weight_memory import weight_types
from replit.weight_names import map_weights
from weights.errors import UserError
from weights.files.checkpoint import open_checkpoint
from weights.tensor import Encoding


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("hub") / "tiny")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(inspect, [str(a) for a in arguments], catch_exceptions=False)


def report(*arguments: object, status: int = 0) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == status, result.output
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


def test_json_describes_model_tokenizer_tensors_and_run(directory: Path) -> None:
    found = report(directory, "--max-length", 300, "--max-cache-batch-size", 3)
    assert found["problems"] == []
    assert found["file"]["format"] == "safetensors"
    assert found["config"]["n_kv_heads"] == 2
    assert found["parameters"] == 1_606_912
    assert found["tokenizer"]["vocab_size"] == 640
    assert found["tokenizer"]["special"]["eos"] == 0
    assert found["encodings"] == {"bfloat16": {"tensors": 14, "bytes": 2 * 1_606_912}}
    assert {
        "name": "transformer.blocks.1.attn.Wqkv.weight",
        "shape": [512, 256],
        "encoding": "bfloat16",
        "bytes": 262_144,
    } in found["tensors"]
    run = found["run"]
    assert run["encodings"] == {"bfloat16": 9, "float32": 5}
    # Matrices in bfloat16, five norms of 256 in float32.
    assert run["memory"]["weights"] == 2 * (1_606_912 - 5 * 256) + 4 * 5 * 256
    # Three sequences of three pages of 128; keys and values of 2 layers, 2 heads of 64, float32.
    assert run["memory"]["cache"] == 3 * 3 * 128 * (2 * 2 * 2 * 64 * 4)
    assert run["memory"]["engine"] == ENGINE_BYTES
    assert run["memory"]["total"] == sum(run["memory"][part] for part in ("weights", "cache", "engine"))


def test_another_encoding_takes_other_memory(directory: Path) -> None:
    found = report(directory, "--quantization-encoding", "float32")
    assert found["run"]["encodings"] == {"float32": 14}
    assert found["run"]["memory"]["weights"] == 4 * 1_606_912


def test_the_text_has_a_line_for_each_thing(directory: Path) -> None:
    lines = [" ".join(line.split()) for line in run(directory).stdout.splitlines()]
    assert lines[0].endswith("model.safetensors: safetensors, 3,215,414 bytes")
    for line in (
        "n_kv_heads 2",
        "vocab_size 640",
        "special eos 0",
        "stored: 1,606,912 parameters",
        "bfloat16 14 tensors, 3,213,824 bytes",
        "tensors (14)",
        "transformer.wte.weight 640 x 256 bfloat16 327,680",
        "to run on the CPU: 9 tensors in bfloat16, 5 tensors in float32",
        "cache, 1 x 512 1 MB",
        "nothing is missing",
    ):
        assert line in lines, line


def test_what_is_missing_is_said_beside_what_is_there(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "broken")
    tensors = tiny_weights()
    del tensors["transformer.blocks.1.norm_2.weight"]
    write_safetensors(directory / "model.safetensors", tensors, Encoding.FLOAT32)
    (directory / "tokenizer.json").unlink()
    found = report(directory, status=1)
    assert len(found["tensors"]) == 13
    assert found["config"]["d_model"] == 256
    assert found["tokenizer"] is None
    assert found["run"] is None
    assert len(found["problems"]) == 2
    assert "1 of 14 tensors are missing, first 'transformer.blocks.1.norm_2.weight'" in found["problems"][0]
    assert "tokenizer.json" in found["problems"][1]
    assert run(directory).stdout.splitlines()[-2:] == found["problems"]


def test_a_length_beyond_the_model_is_a_problem(directory: Path) -> None:
    found = report(directory, "--max-length", 4096, status=1)
    message = "--max-length is 4096; expected at most 512, this model's limit, or --allow-longer"
    assert found["problems"] == [message]
    longer = report(directory, "--max-length", 4096, "--allow-longer")["run"]
    assert longer["memory"]["cache"] == 4096 * (2 * 2 * 2 * 64 * 4)
    assert longer["notes"][0].startswith("ALiBi goes on beyond the 512 tokens that the model was trained on")


def test_what_is_here_needs_no_temporary_folder(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container whose files are read-only has none."""
    monkeypatch.setattr(tempfile, "tempdir", str(directory / "none"))
    assert report(directory)["problems"] == report("nano")["problems"] == []


def test_no_such_file_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^'nothing.gguf' does not exist here; expected a file"):
        run("nothing.gguf")


@pytest.fixture
def key(directory: Path) -> CompileKey:
    checkpoint = open_checkpoint(directory)
    config = from_checkpoint(checkpoint)
    return CompileKey.of(REPLIT, config, weight_types(map_weights(checkpoint, config), None))


# As MAX begins one; nothing reads on.
SOME_BODY = b"\xee\xf0\x03" + bytes(100)


def test_a_serialized_model_says_what_it_is_for(key: CompileKey, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(SOME_BODY)
    write_compiled(tmp_path / "tiny.compiled", key, tmp_path / "body")
    found = report(tmp_path / "tiny.compiled")
    assert found["file"]["format"] == "compiled"
    assert found["config"]["d_model"] == 256
    assert found["encodings"] == {"bfloat16": 9, "float32": 5}
    assert found["compiled_for"] == {
        "device": "cpu",
        "max_version": key.max_version,
        "processor": key.processor,
    }
    lines = [" ".join(line.split()) for line in run(tmp_path / "tiny.compiled").stdout.splitlines()]
    assert "token_embd.weight 640 x 256 bfloat16" in lines
    assert lines[-1] == "nothing is missing"


def test_a_serialized_model_for_elsewhere_is_a_problem(key: CompileKey, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(SOME_BODY)
    other = replace(key, max_version="1.2.3", processor="riscv64 v")
    write_compiled(tmp_path / "tiny.compiled", other, tmp_path / "body")
    assert report(tmp_path / "tiny.compiled", status=1)["problems"] == [
        "compiled for another version of MAX: make it again with --save-to-serialized-model-path",
        "compiled for another processor: make it again with --save-to-serialized-model-path",
    ]

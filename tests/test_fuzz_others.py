"""Damaged files of other programs, of adapters and importance matrices: each ends in a UserError or is read.

The mutations of tests/test_fuzz_readers.py, 100 of each file by default and 1 500 with -m slow.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from model_files import ModelFile, config_json, write_gguf
from test_files_of_others import WIDE, write_candle, write_shards
from test_fine_tunes import write_adapter
from test_fuzz_readers import SECONDS, mutated
from test_vocabulary_of_others import gpt2_files
from tiny_model import write_model

from pipelines.inspection import Run, inspect_model
from replit.config import from_checkpoint
from replit.decoder.adapter import merged
from replit.weight_names import hub_tensors, map_weights
from weights.errors import UserError
from weights.files.checkpoint import open_checkpoint
from weights.files.imatrix_file import read_imatrix, write_imatrix
from weights.tokenizers.load import load_tokenizer

CASES = [pytest.param(100, id="100"), pytest.param(1500, id="1500", marks=pytest.mark.slow)]
Read = Callable[[], Any]


def inspected(tmp_path: Path) -> tuple[Path, Read]:
    path = write_gguf(tmp_path / "m.gguf", ModelFile(n_layers=1))

    def read() -> str:
        problems: list[str] = []
        return json.dumps(inspect_model(open_checkpoint(path, problems=problems), Run(None, 64, 1), problems))

    return path, read


def candle(tmp_path: Path) -> tuple[Path, Read]:
    path = write_candle(tmp_path / "c.gguf", WIDE, gguf.GGMLQuantizationType.Q5_0)
    (tmp_path / "config.json").write_text(json.dumps(config_json(WIDE)))

    def read() -> Any:
        checkpoint = open_checkpoint(path)
        return map_weights(checkpoint, from_checkpoint(checkpoint))

    return path, read


def importances(tmp_path: Path) -> tuple[Path, Read]:
    path = tmp_path / "imatrix.gguf"
    write_imatrix(path, {"blk.0.ffn_up.weight": np.ones(64, np.float32)}, 5, "text", 512)
    return path, lambda: read_imatrix(path)


def index(tmp_path: Path) -> tuple[Path, Read]:
    write_shards(tmp_path)
    return tmp_path / "model.safetensors.index.json", lambda: open_checkpoint(tmp_path)


def vocabulary_file(name: str) -> Callable[[Path], tuple[Path, Read]]:
    def prepare(tmp_path: Path) -> tuple[Path, Read]:
        special = {"eos_token": "<|endoftext|>", "additional_special_tokens": ["<fim_prefix>"]}
        declared = {"added_tokens_decoder": {"0": {"content": "<|endoftext|>", "special": True}}}
        gpt2_files(
            tmp_path,
            special_tokens_map=special,
            added_tokens={"<a>": 270},
            generation_config={"eos_token_id": 0},
            tokenizer_config=declared,
        )

        def read() -> str:
            tokenizer = load_tokenizer(open_checkpoint(tmp_path))
            tokenizer.encode("def a\n  12", parse_special=False)
            return tokenizer.decode(range(tokenizer.vocab_size))

        return tmp_path / name, read

    return prepare


def adapter_file(name: str) -> Callable[[Path], tuple[Path, Read]]:
    def prepare(tmp_path: Path) -> tuple[Path, Read]:
        base = open_checkpoint(write_model(tmp_path / "base"))
        config = from_checkpoint(base)
        tensors = map_weights(base, config)
        write_adapter(tmp_path / "adapter")
        return tmp_path / "adapter" / name, lambda: merged(tmp_path / "adapter", tensors, hub_tensors(config))

    return prepare


FILES: dict[str, Callable[[Path], tuple[Path, Read]]] = {
    "inspected": inspected,
    "candle": candle,
    "imatrix": importances,
    "index": index,
    **{name: adapter_file(name) for name in ("adapter_config.json", "adapter_model.safetensors")},
    **{
        name: vocabulary_file(name)
        for name in (
            "vocab.json merges.txt special_tokens_map.json added_tokens.json generation_config.json "
            "tokenizer_config.json"
        ).split()
    },
}


def refuses(read: Read) -> bool:
    """Whether it ends in a UserError; anything else fails."""
    try:
        read()
    except UserError:
        return True
    return False


@pytest.mark.parametrize("cases", CASES)
@pytest.mark.parametrize("kind", FILES)
def test_mutated(tmp_path: Path, kind: str, cases: int) -> None:
    path, read = FILES[kind](tmp_path)
    original = path.read_bytes()
    read()
    source = random.Random(kind)
    refused = 0
    for _ in range(cases):
        path.write_bytes(mutated(source, original))
        started = time.monotonic()
        refused += refuses(read)
        assert time.monotonic() - started < SECONDS
    assert kind == "inspected" or refused > 0

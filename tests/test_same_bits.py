"""Logits are bit for bit the same in whatever passes a prompt is read, alone or in a batch, with any threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks.same_bits import check, split
from models import as_tensor, compiled_from, random_model
from replit.cpu.model import CpuModel
from replit.runtime.target import CPU, CPU_MAPPED, Target
from weights.tensor import Encoding

TESTS = Path(__file__).parent
# of each layer's matrices; so one model has all encodings
LAYERS = (
    {"attn_qkv": Encoding.Q4_K, "attn_output": Encoding.Q8_0, "ffn_up": Encoding.Q6_K, "ffn_down": Encoding.Q4_0},
    {
        "attn_qkv": Encoding.BFLOAT16,
        "attn_output": Encoding.FLOAT32,
        "ffn_up": Encoding.Q4_0,
        "ffn_down": Encoding.Q4_K,
    },
)


def mixed_model(target: Target = CPU) -> CpuModel:
    """Two layers and a table with a ragged last panel, in all six encodings."""
    model = random_model(8, 2, head_dim=32)
    tensors = {}
    for name, array in model.weights.items():
        part = name.split(".")
        encoding = LAYERS[int(part[1])].get(part[2], Encoding.Q8_0) if part[0] == "blk" else Encoding.Q8_0
        tensors[name] = as_tensor(name, array, encoding)
    return compiled_from(model.config, tensors, slots=8, max_length=1152, target=target)


run = partial(check, vocabulary=101, longest=1100, prompts=8, splits=2)


@pytest.fixture(scope="module")
def here() -> dict[str, object]:
    return run(mixed_model())


def test_splits_and_batches_give_the_same_logits(here: dict[str, object]) -> None:
    assert here["compared"] == 8 * 13 * 2 * 2
    assert here["different"] == 0


def test_one_thread_gives_the_same_logits(here: dict[str, object]) -> None:
    code = (
        "import json, sys; from replit.runtime.engine import Engine; Engine.get(threads=1);"
        "from test_same_bits import mixed_model, run; print(json.dumps(run(mixed_model())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE, text=True, check=True, cwd=TESTS.parent,
        env=os.environ | {"PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1]) == here


@pytest.mark.slow
def test_mapped_weights_give_the_same_logits(here: dict[str, object]) -> None:
    assert run(mixed_model(CPU_MAPPED)) == here


@pytest.mark.slow
def test_nano_in_every_encoding(tmp_path: Path) -> None:
    command = ["-m", "benchmarks.same_bits", str(tmp_path), "--models", "nano", "--prompts", "8", "--splits", "2"]
    subprocess.run([sys.executable, *command], check=True, cwd=TESTS.parent)


def test_a_split_takes_every_token_once() -> None:
    random = np.random.default_rng(0)
    for length in (100, 101, 1500):
        parts = split(length, random)
        assert sum(parts) == length
        assert min(parts) >= 1

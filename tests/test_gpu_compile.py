"""The GPU's graph compiles for GPUs that this machine does not have, and `replit compile` writes it to a file.

Compiling runs in a process of its own: MAX's made-up GPU is chosen before anything else of MAX.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.registry import open_model
from replit.gpu.device import RESERVE_BYTES, _nth, find_gpu, open_device, plan_memory
from replit.runtime.compile_key import CompileKey
from replit.runtime.compiled_file import check_key, read_compiled
from replit.runtime.target import CPU, parse_target
from replit.runtime.weight_memory import weight_types
from weights.errors import UserError
from weights.tensor import Encoding

COMMAND = [sys.executable, "-c", "from pipelines.commands.cli import main; main()"]
NO_GPU = "tells what a machine without a GPU is told"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    # MAX's Mojo modules set PYTHONEXECUTABLE behind os.environ's back, which a child without `env` would inherit.
    environment = dict(os.environ)
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=3600, env=environment)


def has_gpu() -> bool:
    from max.driver import accelerator_count

    return bool(accelerator_count())


@pytest.mark.parametrize(
    "architecture",  # five to seven processor minutes each
    ["sm_90", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sm_80", "sm_100"))],
)
@pytest.mark.gpu_compile
def test_nano_compiles_for_a_gpu(architecture: str, tmp_path: Path) -> None:
    path = tmp_path / "nano.replit"
    target = parse_target(f"cuda:{architecture}")
    result = run("compile", "--target", target.name, "--save-to-serialized-model-path", str(path), "--quiet")
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    files = open_model("nano", None, None)
    file = read_compiled(path)
    types = weight_types(files.tensors, Encoding.BFLOAT16)
    check_key(file, CompileKey.of(files.architecture, files.config, types, target))
    assert architecture.encode() in file.body
    on_cpu = CompileKey.of(files.architecture, files.config, types, CPU)
    with pytest.raises(UserError, match=f"compiled for the device {target.name}; expected cpu"):
        check_key(file, on_cpu)


@pytest.mark.parametrize("name", ["gpu", "cuda", "cuda:90", "sm_90", "cuda:sm_90;x"])
def test_unknown_targets(name: str) -> None:
    with pytest.raises(UserError, match="expected cpu, or cuda: and an architecture such as cuda:sm_90"):
        parse_target(name)


@pytest.mark.parametrize("name", ["gpu:x", "cuda:0", "tpu", ""])
def test_unknown_devices(name: str) -> None:
    with pytest.raises(UserError, match="expected cpu, gpu, or gpu: and its number such as gpu:1"):
        open_device(name)


def test_without_a_gpu_one_line_says_so() -> None:
    if has_gpu():
        pytest.skip(NO_GPU)
    result = run("--prompt", "x", "--use-gpu", "1")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("replit: --use-gpu 1 found no GPU (")
    assert result.stderr.endswith("leave out --use-gpu to run on the CPU\n")
    assert result.stderr.count("\n") == 1
    with pytest.raises(UserError, match="expected an NVIDIA GPU and its driver"):
        find_gpu(0)


def test_only_bfloat16_on_a_gpu() -> None:
    from pipelines.pipeline import gpu_encoding

    target = parse_target("cuda:sm_90")
    assert gpu_encoding(None, target) is gpu_encoding(Encoding.BFLOAT16, target) is Encoding.BFLOAT16
    with pytest.raises(UserError, match="--quantization-encoding is q8_0; expected bfloat16 with --use-gpu"):
        gpu_encoding(Encoding.Q8_0, target)


def test_memory_is_planned_before_loading() -> None:
    files = open_model("nano", None, None)
    config: Any = files.config
    types = weight_types(files.tensors, Encoding.BFLOAT16)
    plan = plan_memory(config, types, sequences=3, max_length=130)
    matrices = sum(t.size for t in map(_elements, files.tensors.values()) if t.matrix)
    vectors = sum(t.size for t in map(_elements, files.tensors.values()) if not t.matrix)
    assert plan.weights == 2 * matrices + 4 * vectors
    assert plan.cache == 3 * 256 * 2 * config.n_layers * config.n_kv_heads * config.head_dim * 2  # two pages each
    assert plan.workspace > RESERVE_BYTES + 130 * config.vocab_size * 4
    plan.check(plan.total)
    with pytest.raises(UserError, match=r"needs \d+\.\d GB .* cache 0\.0 GB for 3 x 130 tokens, .* lower --max-length"):
        plan.check(plan.total - 1)


class _elements:
    def __init__(self, tensor: Any) -> None:
        self.size = 1
        for extent in tensor.shape:
            self.size *= extent
        self.matrix = len(tensor.shape) > 1


def test_the_gpu_is_chosen_among_the_visible_ones() -> None:
    assert _nth("", 3) == "3"
    assert _nth("5,GPU-abc", 1) == "GPU-abc"
    assert _nth("5,6", 2) == "-1"


def test_architectures_with_a_letter_are_the_same_target() -> None:
    assert parse_target("cuda:sm_90a") == parse_target("cuda:sm_90")

"""The GPU that a model runs on: found by its number, and whether a model fits in its memory."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from replit.decoder.config import DecoderConfig
from replit.runtime.kv_cache import PAGE_SIZE, PagedKVCache, pages_for
from replit.runtime.target import CPU, CPU_LIKE_GPU, GPU_PROMPT_CHUNK, Target, parse_target
from replit.runtime.weight_memory import WeightTypes, total_bytes
from weights.errors import UserError
from weights.tensor import Encoding

# Kernels' own workspace and captured graphs. A guess: it was never measured on a GPU.
RESERVE_BYTES = 1 << 30


_chosen: int | None = None  # one GPU a process, see find_gpu


def find_gpu(number: int) -> Any:
    """The `max.driver.Accelerator` of that number. Raises UserError if there is none that MAX can use.

    A compiled graph names its GPU by number, always the first; so the others are hidden from this process.
    """
    global _chosen
    if _chosen not in (None, number):
        raise UserError(f"--use-gpu {number}: this process runs on GPU {_chosen}; expected one: start another process")
    from max.driver import Accelerator, accelerator_count

    if _chosen is None:
        before = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        os.environ["CUDA_VISIBLE_DEVICES"] = _nth(before, number)
        if accelerator_count() == 0:
            raise _no_gpu(number, before)
        _chosen = number
    device = Accelerator(0)
    if device.api != "cuda" or not device.is_compatible:
        raise UserError(
            f"--use-gpu {number} found {device.architecture_name} ({device.api}); expected an NVIDIA GPU that MAX "
            "supports: leave out --use-gpu to run on the CPU"
        )
    return device


def _nth(visible: str, number: int) -> str:
    """The GPU of that number among those that CUDA_VISIBLE_DEVICES names, "" being all; "-1" is none."""
    if not visible:
        return str(number)
    names = visible.split(",")
    return names[number] if number < len(names) else "-1"


def _no_gpu(number: int, visible: str) -> UserError:
    """The error that says how many GPUs there are, asked in another process: in this one they are hidden."""
    os.environ["CUDA_VISIBLE_DEVICES"] = visible
    if not visible:
        del os.environ["CUDA_VISIBLE_DEVICES"]
    command = [sys.executable, "-c", "from max.driver import accelerator_count; print(accelerator_count())"]
    answer = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    if answer not in ("", "0"):
        return UserError(
            f"--use-gpu {number} found {answer} GPU(s), numbered from 0; expected one of them: give its number"
        )
    return UserError(
        f"--use-gpu {number} found no GPU ({_why_none()}); expected an NVIDIA GPU and its driver: "
        "leave out --use-gpu to run on the CPU"
    )


def _why_none() -> str:
    """What MAX says when it looks for a GPU, without its hints."""
    from max.driver import Accelerator

    try:
        Accelerator(0)
    except ValueError as error:
        lines = (line.strip() for line in str(error).splitlines())
        return next((line for line in lines if line.startswith("CUDA information")), "no device answers")
    return "no device answers"


def open_device(name: str) -> tuple[Target, Any]:
    """Target and `max.driver` device of "cpu", "gpu" or "gpu:1"; of "cpu:max", the GPU's operations on the CPU.

    The device is None where our own kernels run. Raises UserError if there is no such device.
    """
    kind, _, number = name.partition(":")
    if kind == "gpu" and (number or "0").isdigit():
        gpu = find_gpu(int(number or 0))
        return parse_target(f"{gpu.api}:{gpu.architecture_name}"), gpu
    if name == CPU_LIKE_GPU.name:
        from max.driver import CPU as Host

        return CPU_LIKE_GPU, Host()
    if name != CPU.name:
        raise UserError(f"the device is {name!r}; expected cpu, gpu, or gpu: and its number such as gpu:1")
    return CPU, None


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of GPU memory that a model needs."""

    weights: int
    cache: int
    workspace: int
    sequences: int
    max_length: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.cache + self.workspace

    def check(self, free: int) -> None:
        """Raises UserError if `free` bytes are too few."""
        if self.total > free:
            raise UserError(
                f"the model needs {_gb(self.total)} of GPU memory (weights {_gb(self.weights)}, cache "
                f"{_gb(self.cache)} for {self.sequences} x {self.max_length} tokens, workspace {_gb(self.workspace)}) "
                f"and found {_gb(free)} free; expected room for all of it: lower --max-length or "
                "--max-cache-batch-size"
            )


def plan_memory(config: DecoderConfig, types: WeightTypes, sequences: int, max_length: int) -> MemoryPlan:
    """The memory of a model with a bfloat16 cache for `sequences` of `max_length` tokens.

    Workspace: of a call with GPU_PROMPT_CHUNK the widest activations twice (in and out of a product) and float32
    logits of every row, which scoring asks for; and RESERVE_BYTES.
    """
    positions = sequences * pages_for(max_length) * PAGE_SIZE
    rows = min(GPU_PROMPT_CHUNK, max(max_length, sequences))
    widest = max(shape[0] for name, (_, shape) in types.items() if name.startswith("blk."))
    activations = rows * (2 * (widest + config.d_model) * 2 + config.vocab_size * 4)
    return MemoryPlan(
        weights=total_bytes(types),
        cache=positions * PagedKVCache.bytes_per_token(config, Encoding.BFLOAT16),
        workspace=activations + RESERVE_BYTES,
        sequences=sequences,
        max_length=max_length,
    )


def free_bytes(device: Any) -> int:
    """Free memory of a `max.driver.Accelerator`."""
    return int(device.stats["free_memory"])


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"

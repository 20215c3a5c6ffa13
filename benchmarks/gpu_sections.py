"""The sections of benchmarks/gpu.py: checks, speed, the server. Each yields figures as it has them."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np

from benchmarks.gpu_hardware import copy_bandwidth, matrix_rate, open_session, timed
from benchmarks.gpu_setup import Figures, Setup, random_ids, tensors_of

# For nano, which is trained: the largest error in relation to the largest logit, how often the best token is the same.
ERROR_BOUND, TOP_1_BOUND = 5e-2, 0.99
# ||logits - expected|| / ||expected||: 32 layers of random weights add up what bfloat16 rounds; a fault makes it 1.
NORM_BOUND = 0.1


def step(model: Any, slots: list[int], ids: list[int]) -> list[int]:
    """One greedy step, as `replit` takes it: on a GPU the ids alone come back."""
    if hasattr(model, "decode_top"):
        return [int(row.ids[0]) for row in model.decode_top(slots, ids, 1)]
    return [int(i) for i in model.decode(slots, ids).argmax(1)]


def check(setup: Setup) -> Figures:
    """Logits against float32 (PyTorch's where it ran, else our kernels on the CPU), decode, and a ragged batch."""
    nano = compare(setup, "nano", "nano")
    yield nano
    random = compare(setup, "random", setup.path)
    yield random
    passed = nano["nano_error"] < ERROR_BOUND and nano["nano_top_1"] > TOP_1_BOUND
    norms = [found[f"{name}_{what}"] for name, found in (("nano", nano), ("random", random)) for what in _NORMS]
    yield {"passed": passed and max(norms) < NORM_BOUND}


_NORMS = ("norm_error", "batched_decode_norm_error")


def compare(setup: Setup, name: str, path: str) -> dict[str, Any]:
    """The differences of one model; a ragged batch's decode in relation to the same model's prefill."""
    positions = setup.checked
    model = setup.load(path, max_length=2 * positions, max_batch_size=3)
    ids = setup.checked_ids(model.tokenizer)
    logits = model.logits(ids)
    expected, against = expected_logits(setup, name, path, ids)
    scale = np.abs(expected).max()
    top = np.partition(expected, -2, axis=1)[:, -2:]
    clear = top[:, 1] - top[:, 0] > ERROR_BOUND * scale
    agree = logits.argmax(1) == expected.argmax(1)
    lengths = [positions // 2, positions, positions + 3]
    for slot, length in enumerate(lengths):
        model.model.prefill(slot, ids[:length])
    rows = model.model.decode([0, 1, 2], [ids[length] for length in lengths])
    return {
        f"{name}_against": against,
        f"{name}_error": float(np.abs(logits - expected).max() / scale),
        f"{name}_top_1": float(agree.mean()),
        f"{name}_top_1_where_clear": float(agree[clear].mean()) if clear.any() else None,
        f"{name}_norm_error": float(np.linalg.norm(logits - expected) / np.linalg.norm(expected)),
        f"{name}_batched_decode_norm_error": float(np.linalg.norm(rows - logits[lengths]) / np.linalg.norm(rows)),
    }


def expected_logits(setup: Setup, name: str, path: str, ids: list[int]) -> tuple[Any, str]:
    """Logits in float32 and what computed them."""
    kept = setup.reference_path(name)
    if kept.exists():
        return np.load(kept), "PyTorch in float32"
    model = setup.load(path, device="cpu", quantization_encoding="float32", max_length=2 * setup.checked)
    return model.logits(ids), "the CPU in float32"


def hardware(setup: Setup) -> Figures:
    """What the device can do: bandwidth and matrix rate."""
    session, device = open_session(setup.device)
    yield {"name": "cpu" if device.is_host else device.architecture_name}
    yield {"bandwidth": copy_bandwidth(device, (64 << 20) if setup.quick else (4 << 30), setup.repeats)}
    yield {"matrix_rate": matrix_rate(session, device, 1024 if setup.quick else 8192, setup.repeats)}


def speed(setup: Setup) -> Figures:
    """Decode of one sequence and of batches, prefill, and the server's requests as one batch, in one process."""
    clients, tokens_in, tokens_out = setup.serving
    depth = setup.prompts[0]
    length = max(depth + setup.new_tokens + 1, tokens_in + tokens_out)
    before = free_memory(setup)
    pipeline = setup.load(max_length=length, max_batch_size=max(*setup.batches, clients))
    yield from decode(setup, pipeline, depth)
    seeds = count()  # other prompts in every run: what was read before is not read again

    def run() -> None:
        prompts = [random_ids(tokens_in, next(seeds)) for _ in range(clients)]
        pipeline.generate_batch(prompts, max_new_tokens=tokens_out, ignore_eos=True)

    yield {"offline_tokens_per_s": clients * tokens_out / timed(run, 2)}
    if before:
        yield {"memory_used": before - free_memory(setup), "memory_planned": planned(setup, pipeline)}


def decode(setup: Setup, pipeline: Any, depth: int) -> Figures:
    """Tokens a second after prompts of `depth` tokens, and the bytes that a step must read."""
    model, config = pipeline.model, pipeline.config
    for slot in range(max(setup.batches)):
        model.prefill(slot, random_ids(depth, slot))
    for batch in setup.batches:
        seconds = timed(lambda slots=list(range(batch)): generate(setup, model, slots, depth), setup.repeats)
        element = 4 if setup.device.startswith("cpu") else 2
        cache = batch * (depth + setup.new_tokens / 2) * 2 * config.n_layers * config.kv_dim * element
        yield {
            f"batch_{batch}_tokens_per_s": batch * setup.new_tokens / seconds,
            f"batch_{batch}_bytes_per_s": (pipeline.weight_bytes + cache) * setup.new_tokens / seconds,
        }
    if getattr(getattr(model, "passes", None), "capture", False):
        model.passes.steps.clear()
        model.passes.capture = False
        seconds = timed(lambda: generate(setup, model, [0], depth), setup.repeats)
        yield {"batch_1_tokens_per_s_without_device_graphs": setup.new_tokens / seconds}
        model.passes.steps.clear()
        model.passes.capture = True


def generate(setup: Setup, model: Any, slots: list[int], depth: int) -> None:
    """Greedy tokens for all `slots` from position `depth` on."""
    model.cache.lengths[: len(slots)] = depth
    ids = [1] * len(slots)
    for _ in range(setup.new_tokens):
        ids = step(model, slots, ids)


def prefill(setup: Setup) -> Figures:
    """Tokens a second of a prompt, the operations that takes, and the time to the first token."""
    pipeline = setup.load(max_length=max(setup.prompts) + 1)
    config = pipeline.config
    matrices = sum(
        int(np.prod(tensor.shape)) for name, tensor in tensors_of(setup.path).items()
        if name.startswith("blk.") and len(tensor.shape) > 1
    )  # fmt: skip
    for size in setup.prompts:
        ids = random_ids(size)
        seconds = timed(lambda ids=ids: first_token(pipeline.model, ids), setup.repeats)  # type: ignore[misc]
        attention = 2 * size**2 * config.n_layers * config.n_heads * config.head_dim  # half of the square is masked
        yield {
            f"prefill_{size}_tokens_per_s": size / seconds,
            f"prefill_{size}_operations_per_s": (2 * matrices * size + attention) / seconds,
            f"first_token_{size}_s": seconds,
        }


def first_token(model: Any, ids: list[int]) -> int:
    """Prefill and the choice of a token."""
    if not hasattr(model, "extend_top"):
        return int(model.prefill(0, ids).argmax())
    model.truncate(0, 0)
    for start in range(0, len(ids), model.prompt_chunk):
        part = ids[start : start + model.prompt_chunk]
        rows = model.extend_top([0], [part], [len(part) - 1], 1)
    return int(rows[0].ids[0])


def server(setup: Setup) -> Figures:
    """The requests of many clients through `replit --serve`."""
    from benchmarks.gpu_server import measure

    rounds = 1 if setup.quick else 3
    yield measure(setup.path, setup.device, *setup.serving, rounds=rounds)


def profile(setup: Setup) -> Figures:
    """Where the time of a decode step and of a prefill goes, kernel by kernel, by PyTorch's profiler."""
    import torch
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    torch.zeros(1, device="cuda")  # a context before the profiler starts
    depth, steps = setup.prompts[0], 8
    pipeline = setup.load(max_length=2049, max_batch_size=32)
    model = pipeline.model
    for slot in range(32):
        model.prefill(slot, random_ids(depth, slot))
    for batch in (1, 32):
        model.cache.lengths[:batch] = depth
        step(model, list(range(batch)), [1] * batch)
        with profiled(activities=[ProfilerActivity.CUDA]) as found:
            for _ in range(steps):
                step(model, list(range(batch)), [1] * batch)
        yield {f"batch_{batch}_kernels_us": kernels(found, steps)}
    first_token(model, random_ids(2048))
    with profiled(activities=[ProfilerActivity.CUDA]) as found:
        first_token(model, random_ids(2048))
    yield {"prefill_2048_kernels_us": kernels(found, 1)}


def kernels(found: Any, steps: int) -> list[tuple[str, int, float]]:
    """Name, launches a step and microseconds a step of the kernels that take most."""
    rows = [(e.key[:90], e.count // steps, round(e.self_device_time_total / steps, 1)) for e in found.key_averages()]
    return sorted(rows, key=lambda row: -row[2])[:24]


def free_memory(setup: Setup) -> int:
    """Free bytes of the GPU, 0 for a CPU."""
    from replit.gpu.device import free_bytes, open_device

    device = open_device(setup.device)[1]
    return 0 if device is None or device.is_host else free_bytes(device)


def planned(setup: Setup, pipeline: Any) -> int:
    """What the memory plan of that pipeline adds up to."""
    from pipelines.registry import open_model
    from replit.gpu.device import open_device, plan_memory
    from replit.runtime.weight_memory import weight_types

    target = open_device(setup.device)[0]
    types = weight_types(open_model(setup.path, None, None).tensors, target.activations)
    return plan_memory(pipeline.config, types, pipeline.model.slots, pipeline.max_length).total

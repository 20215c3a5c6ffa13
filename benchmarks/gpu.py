"""One command for a GPU machine: checks the GPU's results first, then measures speed, PyTorch beside it.

    python -m benchmarks.gpu                                      # everything, on GPU 0, the 3.3B shape
    python -m benchmarks.gpu --device cpu --layers 2 --quick      # a rehearsal without a GPU

Each section is a process of its own, so that it has the whole GPU and a failure costs nothing but itself. Random
weights by seed are written first (6.6 GB at full size). The table and a line of JSON go to standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_hardware import copy_bandwidth, matrix_rate, open_session, timed
from benchmarks.random_model import SHAPES, write
from weights.errors import UserError
from weights.tensor import Encoding

ENVIRONMENT = dict(os.environ)  # choosing a GPU changes it
ERROR_BOUND, TOP_1_BOUND = 5e-2, 0.99


@dataclass(frozen=True)
class Setup:
    """What a section runs with."""

    path: str
    device: str  # as for pipelines.load
    quick: bool

    @property
    def prompts(self) -> tuple[int, ...]:
        """Prefill sizes."""
        return (64,) if self.quick else (512, 2048)

    @property
    def batches(self) -> tuple[int, ...]:
        """Sequences at once."""
        return (2,) if self.quick else (8, 32, 128)

    @property
    def serving(self) -> tuple[int, int, int]:
        """Clients, tokens of a prompt, tokens of a completion."""
        return (4, 16, 8) if self.quick else (64, 256, 128)

    @property
    def new_tokens(self) -> int:
        """Tokens of a decode measurement."""
        return 8 if self.quick else 128

    @property
    def repeats(self) -> int:
        """Counted runs; the median is told."""
        return 2 if self.quick else 5

    def load(self, model: str | None = None, device: str | None = None, **options: Any) -> Any:
        """The model through the project's Python interface."""
        from pipelines.pipeline import load

        return load(model or self.path, device=device or self.device, **options)


def random_ids(count: int, seed: int = 0) -> list[int]:
    """Ids that every model of ours has."""
    ids: list[int] = np.random.default_rng(seed).integers(0, 1000, count).tolist()
    return ids


def step(model: Any, slots: list[int], ids: list[int]) -> list[int]:
    """One greedy step, as `replit` takes it: on a GPU the ids alone come back."""
    if hasattr(model, "decode_top"):
        return [int(row.ids[0]) for row in model.decode_top(slots, ids, 1)]
    return [int(i) for i in model.decode(slots, ids).argmax(1)]


def check(setup: Setup) -> dict[str, Any]:
    """Logits against the CPU's float32, decode against prefill, a ragged batch against its sequences alone."""
    found: dict[str, Any] = {}
    count = 48 if setup.quick else 256
    for name, path in (("random", setup.path), ("nano", "nano")):
        other = setup.load(path, max_length=2 * count, max_batch_size=3)
        ids = other.tokenizer.encode(Path(__file__).read_text())[: count + 8]
        logits = other.logits(ids)
        expected = setup.load(path, device="cpu", quantization_encoding="float32", max_length=2 * count).logits(ids)
        scale = np.abs(expected).max()
        agree = logits.argmax(1) == expected.argmax(1)
        top = np.partition(expected, -2, axis=1)[:, -2:]
        clear = top[:, 1] - top[:, 0] > ERROR_BOUND * scale
        lengths = [count // 2, count, count + 3]
        for slot, length in enumerate(lengths):
            other.model.prefill(slot, ids[:length])
        rows = other.model.decode([0, 1, 2], [ids[length] for length in lengths])
        found |= {
            f"{name}_error": float(np.abs(logits - expected).max() / scale),
            f"{name}_top_1": float(agree.mean()),
            f"{name}_top_1_where_clear": float(agree[clear].mean()) if clear.any() else None,
            f"{name}_batched_decode_error": float(np.abs(rows - logits[lengths]).max() / scale),
        }
    errors = [value for name, value in found.items() if name.endswith("error")]
    # Random weights leave the two best logits close together, so all positions count for nano only.
    agreed = [found["nano_top_1"], found["random_top_1_where_clear"] or 1.0]
    found["passed"] = bool(max(errors) < ERROR_BOUND and min(agreed) > TOP_1_BOUND)
    return found


def hardware(setup: Setup) -> dict[str, Any]:
    """What the device can do: bandwidth and matrix rate."""
    session, device = open_session(setup.device)
    return {
        "name": "cpu" if device.is_host else device.architecture_name,
        "bandwidth": copy_bandwidth(device, (64 << 20) if setup.quick else (4 << 30), setup.repeats),
        "matrix_rate": matrix_rate(session, device, 1024 if setup.quick else 8192, setup.repeats),
    }


def decode(setup: Setup) -> dict[str, Any]:
    """Tokens a second of one sequence after each prompt size, and of batches."""
    found: dict[str, Any] = {}
    for batch in (1, *setup.batches):
        depth = setup.prompts[0]
        pipeline = setup.load(max_length=depth + setup.new_tokens + 1, max_batch_size=batch)
        model, slots = pipeline.model, list(range(batch))
        for slot in slots:
            model.prefill(slot, random_ids(depth, slot))

        def generate(model: Any = model, slots: list[int] = slots, depth: int = depth) -> None:
            model.cache.lengths[: len(slots)] = depth
            ids = [1] * len(slots)
            for _ in range(setup.new_tokens):
                ids = step(model, slots, ids)

        seconds = timed(generate, setup.repeats)
        config, element = pipeline.config, 4 if setup.device.startswith("cpu") else 2
        cache = batch * (depth + setup.new_tokens / 2) * 2 * config.n_layers * config.kv_dim * element
        found[f"batch_{batch}_tokens_per_s"] = batch * setup.new_tokens / seconds
        found[f"batch_{batch}_bytes_per_s"] = (pipeline.weight_bytes + cache) * setup.new_tokens / seconds
    return found


def prefill(setup: Setup) -> dict[str, Any]:
    """Tokens a second of a prompt, the operations that takes, and the time to the first token."""
    found: dict[str, Any] = {}
    pipeline = setup.load(max_length=max(setup.prompts) + 1)
    config = pipeline.config
    matrices = sum(
        int(np.prod(tensor.shape)) for name, tensor in tensors_of(setup.path).items()
        if name.startswith("blk.") and len(tensor.shape) > 1
    )  # fmt: skip
    for count in setup.prompts:
        ids = random_ids(count)
        seconds = timed(lambda ids=ids: first_token(pipeline.model, ids), setup.repeats)  # type: ignore[misc]
        attention = 2 * count**2 * config.n_layers * config.n_heads * config.head_dim  # half of the square is masked
        found[f"prefill_{count}_tokens_per_s"] = count / seconds
        found[f"prefill_{count}_operations_per_s"] = (2 * matrices * count + attention) / seconds
        found[f"first_token_{count}_s"] = seconds
    return found


def first_token(model: Any, ids: list[int]) -> int:
    """Prefill and the choice of a token."""
    if hasattr(model, "prefill_top"):
        return int(model.prefill_top(0, ids, 1).ids[0])
    return int(model.prefill(0, ids).argmax())


def offline(setup: Setup) -> dict[str, Any]:
    """The requests of the server's clients as one batch: prefill one after the other, decode together."""
    clients, tokens_in, tokens_out = setup.serving
    pipeline = setup.load(max_length=tokens_in + tokens_out, max_batch_size=clients)
    prompts = [random_ids(tokens_in, client) for client in range(clients)]
    run = lambda: pipeline.generate_batch(prompts, max_new_tokens=tokens_out, ignore_eos=True)  # noqa: E731
    return {"tokens_per_s": clients * tokens_out / timed(run, setup.repeats)}


def server(setup: Setup) -> dict[str, Any]:
    """The same through `replit --serve`."""
    from benchmarks.gpu_server import measure

    return measure(setup.path, setup.device, *setup.serving, rounds=1 if setup.quick else 3)


def pytorch(setup: Setup) -> dict[str, Any]:
    """Plain PyTorch on the same weights: batch-1 decode, a batch, and prefill."""
    import torch

    from benchmarks.gpu_pytorch import PlainDecoder

    number = setup.device.partition(":")[2] or "0"
    device = f"cuda:{number}" if setup.device.startswith("gpu") else "cpu"
    found: dict[str, Any] = {"version": torch.__version__}
    tensors, config = tensors_of(setup.path), config_of(setup.path)
    depth = setup.prompts[0]
    for batch in (1, setup.batches[-1]):
        model = PlainDecoder(config, tensors, device, batch, depth + setup.new_tokens + 1)
        prefill_s = timed(lambda m=model: m.prefill(random_ids(depth))[0, 0].item(), setup.repeats)  # type: ignore[misc]
        seconds = timed(lambda m=model: m.decode(1, depth, setup.new_tokens), setup.repeats)  # type: ignore[misc]
        found[f"batch_{batch}_tokens_per_s"] = batch * setup.new_tokens / seconds
        if batch == 1:
            found[f"prefill_{depth}_tokens_per_s"] = depth / prefill_s
        del model
    return found


def tensors_of(path: str) -> Any:
    """The weights of a file, by canonical name."""
    from pipelines.registry import open_model

    return open_model(path, None, None).tensors


def config_of(path: str) -> Any:
    """The configuration of a file."""
    from pipelines.registry import open_model

    return open_model(path, None, None).config


SECTIONS: dict[str, Callable[[Setup], dict[str, Any]]] = {
    "check": check,
    "hardware": hardware,
    "decode": decode,
    "prefill": prefill,
    "offline": offline,
    "server": server,
    "pytorch": pytorch,
}


def ratios(results: dict[str, Any]) -> dict[str, float]:
    """The figures that are asked for, as far as their sections ran."""
    get = lambda section, name: results.get(section, {}).get(name)  # noqa: E731
    wanted = {
        "decode_share_of_bandwidth": (get("decode", "batch_1_bytes_per_s"), get("hardware", "bandwidth")),
        "decode_against_pytorch": (get("decode", "batch_1_tokens_per_s"), get("pytorch", "batch_1_tokens_per_s")),
        "prefill_2048_share_of_matrix_rate": (
            get("prefill", "prefill_2048_operations_per_s"),
            get("hardware", "matrix_rate"),
        ),
        "batch_32_against_batch_1": (get("decode", "batch_32_tokens_per_s"), get("decode", "batch_1_tokens_per_s")),
        "server_against_offline": (get("server", "tokens_per_s"), get("offline", "tokens_per_s")),
    }
    return {name: part / whole for name, (part, whole) in wanted.items() if part and whole}


def run_section(name: str, setup: Setup, arguments: list[str]) -> dict[str, Any]:
    """The section in a process of its own; its last line is its result, an error is one too."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--section", name, "--path", setup.path, *arguments]
    print(f"--- {name}", file=sys.stderr, flush=True)
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=3600, env=ENVIRONMENT)
    lines = result.stdout.splitlines()
    if result.returncode != 0 or not lines:
        return {"failed": f"exit status {result.returncode}, see standard error"}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def table(results: dict[str, Any]) -> str:
    """Markdown, one row a figure."""
    rows = [f"| {section} | {name} | {value:.4g} |" if isinstance(value, float) else f"| {section} | {name} | {value} |"
            for section, figures in results.items() for name, value in figures.items()]  # fmt: skip
    return "\n".join(["| section | figure | value |", "|---|---|---|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="gpu", help="gpu, gpu:1; cpu or cpu:max for a rehearsal")
    parser.add_argument("--layers", type=int, help="default: the model's own number")
    parser.add_argument("--quick", action="store_true", help="small sizes: a rehearsal, its figures mean nothing")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--record", action="store_true", help="append table and JSON to benchmarks/RESULTS.md")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.section:
        print(json.dumps(SECTIONS[arguments.section](Setup(arguments.path, arguments.device, arguments.quick))))
        return
    if arguments.device.startswith("gpu"):
        from replit.gpu.device import open_device

        try:
            open_device(arguments.device)  # before 6.6 GB are written
        except UserError as error:
            sys.exit(str(error))
    sys.exit(run(arguments))


def run(arguments: argparse.Namespace) -> int:
    """All sections, check first; 1 if it or any other failed."""
    results: dict[str, Any] = {}
    passed_on = ["--device", arguments.device, *(["--quick"] if arguments.quick else [])]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.gguf"
        shape = SHAPES["v1_5-3b"]
        write(path, replace(shape, n_layers=arguments.layers or shape.n_layers), Encoding.BFLOAT16)
        setup = Setup(str(path), arguments.device, arguments.quick)
        for name in arguments.only.split(","):
            results[name] = run_section(name, setup, passed_on)
            if name == "check" and not results[name].get("passed"):
                break  # what is wrong is not timed
    failed = [name for name, figures in results.items() if "failed" in figures or figures.get("passed") is False]
    results["ratios"] = ratios(results)
    head = {"max": version("max"), "host": platform.processor() or platform.machine(), "arguments": sys.argv[1:]}
    line = json.dumps({"benchmark": "gpu", "date": time.strftime("%Y-%m-%d"), **head, **results})
    print(table(results), line, sep="\n")
    if arguments.record:
        with (Path(__file__).parent / "RESULTS.md").open("a") as file:
            title = f"{results.get('hardware', {}).get('name', arguments.device)}, {time.strftime('%Y-%m-%d')}"
            file.write(f"\n## GPU: {title}\n\n{table(results)}\n\n```json\n{line}\n```\n")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    main()

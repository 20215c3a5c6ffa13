"""One command for a GPU machine: checks the GPU's results first, then measures speed, PyTorch beside it.

    python -m benchmarks.gpu                                      # everything, on GPU 0, the 3.3B shape
    python -m benchmarks.gpu --device cpu --layers 2 --quick      # a rehearsal without a GPU

Each section is a process of its own, so that it has the whole GPU and a failure or a hang costs nothing but itself;
what it found by then is kept (`--out`). Random weights by seed are written first (6.6 GB at full size). The table and a
line of JSON go to standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import gpu_sections
from benchmarks.gpu_setup import Figures, Setup
from benchmarks.random_model import SHAPES, write
from weights.errors import UserError
from weights.tensor import Encoding

ENVIRONMENT = dict(os.environ)  # choosing a GPU changes it


def reference(setup: Setup) -> Figures:
    """Logits that the next section compares with, by PyTorch in float32."""
    from benchmarks.gpu_pytorch import reference as logits

    yield from logits(setup)


def pytorch(setup: Setup) -> Figures:
    """The same model in PyTorch, and what the device can do, by its copy and its product."""
    from benchmarks.gpu_pytorch import measure

    yield from measure(setup)


SECTIONS: dict[str, Callable[[Setup], Figures]] = {
    "reference": reference,
    "check": gpu_sections.check,
    "hardware": gpu_sections.hardware,
    "speed": gpu_sections.speed,
    "prefill": gpu_sections.prefill,
    "server": gpu_sections.server,
    "pytorch": pytorch,
}
ON_REQUEST = {"profile": gpu_sections.profile}


def ratios(results: dict[str, Any]) -> dict[str, float]:
    """The figures that are asked for, as far as their sections ran."""

    def get(section: str, *names: str) -> float | None:
        return max((results.get(section, {}).get(name) or 0 for name in names), default=0) or None

    bandwidth = max(get("hardware", "bandwidth") or 0, get("pytorch", "bandwidth") or 0) or None
    rate = max(get("hardware", "matrix_rate") or 0, get("pytorch", "matrix_rate") or 0) or None
    one = get("speed", "batch_1_tokens_per_s")
    plain, best = "batch_1_tokens_per_s", "batch_1_compiled_tokens_per_s"
    wanted = {
        "decode_share_of_bandwidth": (get("speed", "batch_1_bytes_per_s"), bandwidth),
        "decode_against_pytorch_best": (one, get("pytorch", plain, best, "batch_1_autotuned_tokens_per_s")),
        "batch_32_against_batch_1": (get("speed", "batch_32_tokens_per_s"), one),
        "prefill_2048_share_of_matrix_rate": (get("prefill", "prefill_2048_operations_per_s"), rate),
        "server_against_offline": (get("server", "tokens_per_s"), get("speed", "offline_tokens_per_s")),
        "memory_used_of_planned": (get("speed", "memory_used"), get("speed", "memory_planned")),
    }
    return {name: part / whole for name, (part, whole) in wanted.items() if part and whole}


def run_section(name: str, setup: Setup, limit: float) -> dict[str, Any]:
    """The section in a process of its own, stopped after `limit` seconds; an error is a result too."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--section", name, "--setup", setup.to_json()]
    print(f"--- {name}", file=sys.stderr, flush=True)
    start, failed = time.monotonic(), None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT, start_new_session=True) as child:
        try:
            output, _ = child.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)  # a server that it started too
            output, _ = child.communicate()
            failed = f"stopped after {limit:.0f} s"
    found: dict[str, Any] = {}
    for line in output.splitlines():
        if line.startswith("{"):
            found |= json.loads(line)
    if child.returncode != 0:
        found["failed"] = failed or f"exit status {child.returncode}, see standard error"
    return found | {"section_s": round(time.monotonic() - start, 1)}


def table(results: dict[str, Any]) -> str:
    """Markdown, one row a figure."""
    rows = [f"| {section} | {name} | {value:.4g} |" if isinstance(value, float) else f"| {section} | {name} | {value} |"
            for section, figures in results.items() for name, value in figures.items()
            if not isinstance(value, list)]  # fmt: skip
    return "\n".join(["| section | figure | value |", "|---|---|---|", *rows])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="gpu", help="gpu, gpu:1; cpu or cpu:max for a rehearsal")
    parser.add_argument("--layers", type=int, help="default: the model's own number")
    parser.add_argument("--quick", action="store_true", help="small sizes: a rehearsal, its figures mean nothing")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"of {', '.join([*SECTIONS, *ON_REQUEST])}")
    parser.add_argument("--model", type=Path, help="random weights that are there, from benchmarks.random_model")
    parser.add_argument("--limit", type=float, default=3600, help="seconds for a section")
    parser.add_argument("--deadline", type=float, default=1e9, help="seconds for all; later sections are left out")
    parser.add_argument("--out", type=Path, help="a line of JSON for each section, written when it ends")
    parser.add_argument("--record", action="store_true", help="append table and JSON to benchmarks/RESULTS.md")
    parser.add_argument("--section", choices=[*SECTIONS, *ON_REQUEST], help=argparse.SUPPRESS)
    parser.add_argument("--setup", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.section:
        for figures in (SECTIONS | ON_REQUEST)[arguments.section](Setup.from_json(arguments.setup)):
            print(json.dumps(figures), flush=True)
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
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.model or Path(folder) / "random.gguf"
        if arguments.model is None:
            shape = SHAPES["v1_5-3b"]
            write(path, replace(shape, n_layers=arguments.layers or shape.n_layers), Encoding.BFLOAT16)
        setup = Setup(str(path), arguments.device, arguments.quick)
        results = run_sections(arguments, setup)
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


def run_sections(arguments: argparse.Namespace, setup: Setup) -> dict[str, Any]:
    """What each section found, told in `--out` at once. After a failed check nothing is timed."""
    results: dict[str, Any] = {}
    end = time.monotonic() + arguments.deadline
    for name in arguments.only.split(","):
        left = end - time.monotonic()
        if left < 15:
            results[name] = {"left_out": "the deadline"}
            continue
        results[name] = run_section(name, setup, min(arguments.limit, left))
        if arguments.out:
            with arguments.out.open("a") as file:
                file.write(json.dumps({name: results[name]}) + "\n")
        if name == "check" and not results[name].get("passed"):
            break
    return results


if __name__ == "__main__":
    main()

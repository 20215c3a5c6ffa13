"""Us, llama.cpp and PyTorch in turn on the same weights: medians and ratios into benchmarks/RESULTS.md.

python -m benchmarks.compare FOLDER --encodings bfloat16 q4_0 [--plots]

Needs an idle machine, llama-cpp-python and torch. Missing model files of 4 layers of the 3.3B shape are made in FOLDER.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from statistics import median

from benchmarks.random_model import SHAPES, write
from weights.embedded_models import EMBEDDED
from weights.tensor import Encoding

RESULTS = Path(__file__).parent / "RESULTS.md"
BEGIN, END = "<!-- compare -->", "<!-- end compare -->"
FLOATS = (Encoding.FLOAT32, Encoding.BFLOAT16)
TESTS = ("pp512", "tg16", "tg16x8", "tg16@4000")
Rates = dict[str, dict[str, float]]  # engine, test


def model_file(folder: Path, encoding: Encoding, layers: int = 4) -> Path:
    """The file of that encoding, made if it is not there."""
    from dataclasses import replace

    path = folder / f"{layers}-{encoding}.gguf"
    if not path.exists():
        write(path, replace(SHAPES["v1_5-3b"], n_layers=layers), encoding)
    return path


class Running:
    """An engine in a process of its own, with a model loaded."""

    def __init__(self, engine: str, path: Path, tests: list[str]) -> None:
        self.name = f"{engine} on {path}"
        command = [sys.executable, "-m", "benchmarks.engines", engine, str(path), *tests]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def rate(self, test: str) -> float:
        """Tokens a second."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            print(test, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name} ended with {self.process.wait()}")
        return float(answer)

    def end(self) -> None:
        """Ends the process; nothing is under way in it."""
        self.process.kill()
        self.process.wait()


def compare(path: Path, engines: list[str], tests: list[str], rounds: int) -> Rates:
    """Medians over the rounds; the engines take turns of seconds, so that a slow minute meets them all."""
    running = [Running(engine, path, tests) for engine in engines]
    try:
        for engine in running:  # all loaded and warm before anything counts
            engine.rate(tests[0])
        rates: Rates = {engine: {} for engine in engines}
        for test in tests:
            turns = [[engine.rate(test) for engine in running] for _ in range(rounds)]
            for engine, found in zip(engines, zip(*turns, strict=True), strict=True):
                rates[engine][test] = median(found)
        return rates
    finally:
        for engine in running:
            engine.end()


def read_bandwidth() -> float:
    """Bytes a second, measured in a process of its own."""
    code = "from replit.runtime.bandwidth import read_bandwidth; print(read_bandwidth())"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def table(name: str, size: int, rates: Rates, bandwidth: float) -> list[str]:
    """A Markdown table of one model."""
    engines = list(rates)
    ratios = [f"ours / {engine}" for engine in engines[1:]]
    lines = [f"\n{name}, {size / 1e9:.2f} GB, read bandwidth {bandwidth / 1e9:.1f} GB/s:\n"]
    lines.append("| test | " + " | ".join([*engines, *ratios, "ours, share of bandwidth"]) + " |")
    lines.append("|" + "---|" * (2 + len(engines) + len(ratios)))
    for test in rates["ours"]:
        ours = rates["ours"][test]
        cells = [f"{rates[e][test]:.1f}" for e in engines]
        cells += [f"{ours / rates[e][test]:.2f}" for e in engines[1:]]
        single = test.startswith("tg") and "x" not in test and "@" not in test
        cells.append(f"{ours * size / bandwidth:.2f}" if single else "")
        lines.append(f"| {test} | " + " | ".join(cells) + " |")
    return lines


def machine() -> str:
    """What the figures were measured on."""
    versions = (
        f"{package} {importlib.metadata.version(package)}" for package in ("max", "llama-cpp-python", "torch", "numpy")
    )
    features = ", ".join(f for f in ("amx_bf16", "avx512_bf16", "avx512_vnni") if f in _cpu_flags())
    return f"{date.today()}, {platform.machine()} with {features or 'no AVX-512 extensions'}; {', '.join(versions)}"


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def put(lines: list[str]) -> None:
    """Replaces the part of RESULTS.md between the markers."""
    text = RESULTS.read_text() if RESULTS.exists() else f"# Results\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    RESULTS.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}")


def plots(folder: Path) -> None:
    """Decode speed over the context and prefill speed over the prompt, bfloat16, as benchmarks/speed.svg."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    path = model_file(folder, Encoding.BFLOAT16)
    contexts, prompts = (64, 500, 1000, 2000, 4000), (16, 64, 128, 256, 512, 1024, 2048)
    tests = [f"tg16@{n}" for n in contexts] + [f"pp{n}" for n in prompts]
    rates = compare(path, ["ours", "llama.cpp", "torch"], tests, 1)
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for engine, found in rates.items():
        axes[0].plot(contexts, [found[f"tg16@{n}"] for n in contexts], marker=".", label=engine)
        axes[1].plot(prompts, [found[f"pp{n}"] for n in prompts], marker=".", label=engine)
    for axis, title in zip(axes, ("tokens in the cache", "tokens of the prompt"), strict=True):
        axis.set(xlabel=title, ylabel="tokens/s", ylim=(0, None))
        axis.legend()
    figure.savefig(Path(__file__).parent / "speed.svg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encodings", nargs="+", type=Encoding, default=[*FLOATS, Encoding.Q8_0, Encoding.Q4_0])
    parser.add_argument("--tests", nargs="+", default=list(TESTS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--nano", action="store_true", help="also the embedded model")
    parser.add_argument("--plots", action="store_true")
    arguments = parser.parse_args()
    command = " ".join(["python -m benchmarks.compare", *sys.argv[1:]]).replace(str(arguments.folder), "FOLDER")
    lines = [f"## CPU: ours, llama.cpp and PyTorch\n\n`{command}`; {machine()}; {arguments.rounds} rounds, medians."]
    lines += ["Tokens a second: pp512 prefill, tg16 decode, x8 eight sequences at once, @4000 after 4 000 tokens."]
    files = [(f"4 layers of the 3.3B shape, {e}", model_file(arguments.folder, e), e) for e in arguments.encodings]
    if arguments.nano:
        nano = EMBEDDED["nano"]
        files.append(("nano", nano, Encoding.BFLOAT16))
    results = {}
    for name, path, encoding in files:
        engines = ["ours", "llama.cpp", *(["torch"] if encoding in FLOATS and name != "nano" else [])]
        tests = ["pp512", "tg64"] if name == "nano" else arguments.tests
        rates = compare(path, engines, tests, arguments.rounds)
        bandwidth = read_bandwidth()
        lines += table(name, path.stat().st_size, rates, bandwidth)
        results[name] = rates
        put(lines)
    if arguments.plots:
        plots(arguments.folder)
        put([*lines, "\n![decode and prefill speed](speed.svg)"])
    print(json.dumps(results))


if __name__ == "__main__":
    main()

"""Memory that loading takes, in a fresh process: the weights once, never beside the pages of their file."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.random_model import SHAPES, write
from weights.tensor import Encoding

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the process's memory from /proc")

# Opens and binds the weights as the product does. The first run compiles, the second one counts.
PROGRAM = """
import json, sys
from pipelines.registry import open_model
from pipelines.terminal.progress import Quiet
from replit.runtime.bind import bind_weights
from replit.runtime.compile import CompileOptions, compile_model
from replit.runtime.engine import Engine
from replit.runtime.target import CPU, CPU_MAPPED
from replit.runtime.weight_memory import total_bytes, weight_types
from weights.tensor import Encoding

def status():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return {key: int(lines[key].split()[0]) << 10 for key in ("VmHWM", "RssAnon", "RssFile")}

path, encoding, mapped = json.loads(sys.argv[1])
encoding = encoding and Encoding(encoding)
files = open_model(path, None, None)
types = weight_types(files.tensors, encoding)
if encoding:
    import weights.convert  # what code takes is no weight's
target = CPU_MAPPED if mapped else CPU
Engine.get()
compiled = compile_model(files.config, types, CompileOptions(), Quiet(), files.architecture, target)
before = status()
bound = bind_weights(compiled, files.tensors, types, mapped, target=target)
if mapped:
    touched = sum(int(tensor.data[::4096].sum()) for tensor in files.tensors.values())
print(json.dumps([total_bytes(types), before, status()]))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Refact's shape with four layers, 0.8 GB: its tables of 200 MB are the largest tensors."""
    path = tmp_path_factory.mktemp("model") / "refact.gguf"
    write(path, replace(SHAPES["refact-1_6b"], n_layers=4), Encoding.BFLOAT16)
    return path


def memory(model: Path, encoding: str | None, mapped: bool) -> tuple[int, dict[str, int], dict[str, int]]:
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, json.dumps([str(model), encoding, mapped])],
            capture_output=True, text=True, check=True, timeout=600,
            cwd=Path(__file__).parent.parent,
        )  # fmt: skip
    size, before, after = json.loads(done.stdout)
    return size, before, after


def test_reading_never_holds_the_file_beside_its_copy(model: Path) -> None:
    size, before, after = memory(model, None, mapped=False)
    assert size > 700e6
    assert 0.98 * size < after["RssAnon"] - before["RssAnon"] < size + 30e6
    assert after["VmHWM"] - before["VmHWM"] < size + 60e6


@pytest.mark.slow
def test_converting_holds_the_result_and_a_piece(model: Path) -> None:
    size, before, after = memory(model, "q8_0", mapped=False)
    assert after["RssAnon"] - before["RssAnon"] < size + 100e6
    assert after["VmHWM"] - before["VmHWM"] < size + 400e6  # 64 MiB of float32 in three arrays, and their blocks


@pytest.mark.slow
def test_mapping_copies_nothing(model: Path) -> None:
    size, before, after = memory(model, None, mapped=True)
    assert after["RssAnon"] - before["RssAnon"] < 30e6
    assert after["RssFile"] - before["RssFile"] > 0.9 * size

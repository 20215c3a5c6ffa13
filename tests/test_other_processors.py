"""The kernels as they are on other x86 processors, built for them and run on this one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import replit
from weights.written import WRITTEN

KERNELS = Path(replit.__file__).parent / "cpu/kernels"
FLAGS = Path("/proc/cpuinfo")
# what the processor has to know, how many float32 are in its vectors, and what is defined for the compiler
PROCESSORS = {
    "haswell": ("avx2", 8, []),
    "x86-64": ("sse2", 4, []),
    "skylake-avx512": ("avx512bw", 16, []),  # neither VNNI nor bfloat16
    "znver4": ("avx512_bf16", 16, []),
    "sapphirerapids": ("avx512_bf16", 16, ["-D", "EMULATED_TILES"]),  # AMX, computed in memory
}
FORMATS = WRITTEN


@pytest.mark.parametrize(
    "processor", ["haswell", *(pytest.param(name, marks=pytest.mark.slow) for name in list(PROCESSORS)[1:])]
)
def test_products_on_another_processor(processor: str, tmp_path: Path) -> None:
    feature, lanes, defines = PROCESSORS[processor]
    if not FLAGS.exists() or feature not in FLAGS.read_text().split():
        pytest.skip(f"this processor cannot run what is built for {processor}: {feature} is missing")
    mojo = shutil.which("mojo", path=str(Path(sys.executable).parent))
    if mojo is None:
        pytest.skip("no mojo beside this Python")
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.mojo").touch()
    for source in KERNELS.glob("*.mojo"):
        shutil.copy(source, tmp_path / "kernels")
    source = shutil.copy(Path(__file__).with_name("other_processors.mojo"), tmp_path)
    program = tmp_path / "check"
    cpu = "znver4" if defines else processor
    build = [mojo, "build", "--target-cpu", cpu, *defines, "-o", str(program), str(source)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    first, *lines = subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines()
    assert first == f"lanes {lanes}"
    assert len(lines) == 6 * len(FORMATS)
    for line in lines:
        name, _, _, error, different = line.split()
        # float32 sums; bfloat16 is rounded where there is an instruction for it; 8 bits in blocks of 32 or 256
        bound = {"float32": 2e-6, "bfloat16": 1.5e-2}.get(name, 3e-2)
        assert 0 < float(error) < bound, line
        assert different == "0", line

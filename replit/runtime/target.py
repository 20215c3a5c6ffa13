"""Where a graph runs and what it computes with there: the CPU with our kernels, a GPU with MAX's.

A third target has the GPU's operations on the CPU in float32, so that its arithmetic is tested without a GPU.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from replit.cpu.panels import panels_shape
from weights.errors import UserError
from weights.tensor import Encoding

_REPLIT = Path(__file__).parent.parent

# Prompt tokens of one pass. On the CPU more make no product faster, and the activations of 512 rows stay small.
PROMPT_CHUNK = 512
GPU_PROMPT_CHUNK = 2048
# The graphs of a compiled model: the decoder, and one for each encoding of weights that are laid out in panels.
DECODER = "decoder"
LAY_OUT = "lay_out_"


@dataclass(frozen=True)
class Target:
    """`name` is what a compiled file is made for: "cpu", or "cuda:sm_90"."""

    name: str
    on_gpu: bool
    own_kernels: bool  # ours, or MAX's
    activations: Encoding
    cache: Encoding  # of keys and values
    panels: bool = False  # whether weights lie in panels (replit/cpu/panels.py), or as in their file

    @property
    def kernels(self) -> Path:
        """The Mojo package of the graph's custom operations."""
        return _REPLIT / ("cpu" if self.own_kernels else "gpu") / "kernels"

    @property
    def prompt_chunk(self) -> int:
        """Prompt tokens of one pass."""
        return PROMPT_CHUNK if self.own_kernels else GPU_PROMPT_CHUNK

    def stored_shape(self, encoding: Encoding, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of a weight in the graph: panels or rows of bytes for our kernels, elements for MAX's."""
        if not self.own_kernels:
            return shape
        if self.in_panels(shape):
            return panels_shape(encoding, shape)
        return (shape[0] if len(shape) > 1 else 1, encoding.row_bytes(shape[-1]))

    def in_panels(self, shape: tuple[int, ...]) -> bool:
        """Whether a weight of this shape lies in panels: every matrix, if any do."""
        return self.panels and len(shape) == 2

    @property
    def architecture(self) -> str:
        """The GPU's, as in "sm_90"; "" for the CPU."""
        return self.name.partition(":")[2] if self.on_gpu else ""


CPU = Target("cpu", on_gpu=False, own_kernels=True, activations=Encoding.FLOAT32, cache=Encoding.FLOAT32, panels=True)
# Weights that stay mapped from their file.
CPU_MAPPED = replace(CPU, panels=False)
CPU_CACHES = (Encoding.FLOAT32, Encoding.BFLOAT16)
# For tests and for rehearsing benchmarks/gpu.py.
CPU_LIKE_GPU = Target("cpu:max", on_gpu=False, own_kernels=False, activations=Encoding.FLOAT32, cache=Encoding.FLOAT32)


def parse_target(name: str) -> Target:
    """The target of a name such as "cpu" or "cuda:sm_90". Raises UserError for another."""
    for known in (CPU, CPU_LIKE_GPU):
        if name == known.name:
            return known
    # The letter at the end stands for instructions of that architecture alone, which MAX uses anyway.
    found = re.fullmatch(r"(cuda:sm_\d{2,3})[af]?", name)
    if found is None:
        raise UserError(f"--target is {name!r}; expected cpu, or cuda: and an architecture such as cuda:sm_90")
    half = Encoding.BFLOAT16
    return Target(found[1], on_gpu=True, own_kernels=False, activations=half, cache=half)

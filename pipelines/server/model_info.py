"""What is served and where, in words: for the page's strip, and for whoever reads the metrics of several servers."""

from __future__ import annotations

import hashlib
import math
import platform
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipelines.registry import ModelFiles, parse_encoding
from pipelines.server.options import ServeOptions
from replit.runtime.cores import usable_cores
from replit.runtime.weight_memory import weight_types
from weights.tensor import Encoding, stored_bytes


@dataclass(frozen=True)
class ModelFacts:
    """What clients ask of a model: bytes of its weights, how many there are, their encoding, and a name for all that.

    `digest` tells models apart, 64 hexadecimal digits; it is made of the weights' names, shapes and encodings.
    """

    size: int
    parameters: int
    encoding: str
    family: str
    digest: str

    @property
    def fingerprint(self) -> str:
        """OpenAI's `system_fingerprint`: what a text depends on beside its request. llama.cpp's begin with a b too."""
        return f"b{package_version()}-{self.digest[:8]}"


def package_version() -> str:
    """The version of this package, "unknown" where it is not installed."""
    try:
        return version("replit-code-max")
    except PackageNotFoundError:
        return "unknown"


def model_facts(options: ServeOptions, files: ModelFiles) -> ModelFacts:
    """The facts of the served model."""
    tensors = files.tensors.values()
    told = [f"{options.name} {tensor.name} {tensor.shape} {tensor.encoding}" for tensor in tensors]
    return ModelFacts(
        size=sum(tensor.nbytes for tensor in tensors),
        parameters=sum(math.prod(tensor.shape) for tensor in tensors),
        encoding=str(main_encoding(options, files)),
        family=files.architecture.gguf_name,
        digest=hashlib.sha256("\n".join(sorted(told)).encode()).hexdigest(),
    )


def model_info(options: ServeOptions, files: ModelFiles) -> dict[str, str]:
    """Labels of the metric `replit_model_info`."""
    return {
        "model": options.name,
        "encoding": str(main_encoding(options, files)),
        "device": options.device,
        "machine": machine(),
    }


def main_encoding(options: ServeOptions, files: ModelFiles) -> Encoding:
    """The encoding that most bytes of the running weights have."""
    if options.device != "cpu":
        return Encoding.BFLOAT16
    encoding = parse_encoding(options.quantization_encoding)
    sizes: Counter[Encoding] = Counter()
    for kind, shape in weight_types(files.tensors, encoding).values():
        sizes[kind] += stored_bytes(shape, kind)
    return sizes.most_common(1)[0][0]


def machine() -> str:
    """The processor's name and how many cores of it there are for this process."""
    cores = usable_cores()
    return f"{processor_name()}, {cores} {'core' if cores == 1 else 'cores'}"


def processor_name() -> str:
    """As the processor says it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return name or platform.processor() or platform.machine()

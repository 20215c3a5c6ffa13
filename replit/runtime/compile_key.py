"""What a compiled model depends on: its configuration and weights, the processor, and every source of its graph."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from replit.decoder.architecture import Architecture
from replit.decoder.config import DecoderConfig
from replit.runtime.target import CPU, Target
from weights.errors import UserError, reason
from weights.tensor import Encoding

_PACKAGE = "replit-code-max"
_ROOT = Path(__file__).parents[2]
# What every graph is built from. The architecture names its own; configuration and weights are in the key as they are.
_GRAPH = (
    "replit/decoder/graph.py",
    "replit/decoder/alibi.py",
    "replit/cpu/layers.py",
    "replit/cpu/panels.py",
    "replit/runtime/kv_cache.py",
    "replit/runtime/target.py",
    "weights/tensor.py",
)
_MAX_KERNELS_GRAPH = ("replit/gpu/layers.py",)
# The instruction sets that code generation depends on.
_CPU_FEATURES = ("sse", "ssse", "avx", "fma", "f16c", "bmi", "amx", "asimd", "sve", "neon", "dotprod", "i8mm")
# What LLVM calls x86-64-v3, in Linux' words: abm is lzcnt.
_X86_64_V3 = frozenset("avx avx2 bmi1 bmi2 f16c fma abm movbe".split())


@dataclass(frozen=True)
class CompileKey:
    """Everything that a compiled model depends on; two equal keys give interchangeable files."""

    architecture: str
    config: Mapping[str, Any]
    weights: Mapping[str, tuple[str, tuple[int, ...]]]  # encoding and shape, by canonical name
    device: str  # "cpu", or "cuda:sm_90"
    layout: str  # of the weights in memory: "panels", "rows"
    cache: str  # encoding of keys and values
    processor: str  # of the machine that it runs on; for a GPU see `host_processor`
    max_version: str
    package: str  # version of this package
    graph: str  # digest of the Python sources that build the graph
    kernels: str  # digest of the Mojo sources

    @classmethod
    def of(
        cls,
        architecture: Architecture,
        config: DecoderConfig,
        weights: Mapping[str, tuple[Encoding, tuple[int, ...]]],
        target: Target = CPU,
    ) -> CompileKey:
        """The key of a model for `target`, a CPU being this machine's, with what is installed here."""
        return cls(
            architecture=architecture.gguf_name,
            config=asdict(config),
            weights={name: (str(encoding), shape) for name, (encoding, shape) in weights.items()},
            **environment(architecture, target),
        )

    def to_json(self) -> dict[str, Any]:
        """The key as it stands in the header."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @property
    def digest(self) -> str:
        """Names the file in the cache."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


def environment(architecture: Architecture, target: Target) -> dict[str, str]:
    """What a key holds besides the model: the device, and what of this installation makes a graph."""
    return {
        "device": target.name,
        "layout": "panels" if target.panels else "rows",
        "cache": str(target.cache),
        "processor": host_processor() if target.on_gpu else processor(),
        "graph": _digest(graph_sources(architecture, target)),
        **installed(target),
    }


def installed(target: Target) -> dict[str, str]:
    """What is the same for every model of a target."""
    return {
        "max_version": _version("max"),
        "package": _version(_PACKAGE),
        "kernels": _digest(tuple(sorted(target.kernels.rglob("*.mojo")))),
    }


def graph_sources(architecture: Architecture, target: Target) -> tuple[Path, ...]:
    """The Python files whose change may change the graph of an architecture on a target."""
    shared = _GRAPH if target.own_kernels else _GRAPH + _MAX_KERNELS_GRAPH
    return (*(_ROOT / name for name in shared), architecture.graph_source)


@cache
def _version(package: str) -> str:
    """The installed version; "" in a checkout that is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


@cache
def _digest(sources: tuple[Path, ...]) -> str:
    """sha256 over names and contents."""
    digest = hashlib.sha256()
    for source in sources:
        content = source.read_bytes()
        digest.update(f"{source.parent.name}/{source.name} {len(content)}\0".encode() + content)
    return digest.hexdigest()


@cache
def processor() -> str:
    """The machine's architecture and the instruction sets that compiled code may use."""
    try:
        return f"{platform.machine()} {cpu_features(Path('/proc/cpuinfo').read_text())}"
    except OSError:  # not Linux
        return f"{platform.machine()} {platform.processor()}".strip()


def cpu_features(cpuinfo: str) -> str:
    """Those of Linux' processor flags that code generation depends on."""
    return " ".join(sorted(flag for flag in _cpu_flags(cpuinfo) if flag.startswith(_CPU_FEATURES)))


def _cpu_flags(cpuinfo: str) -> list[str]:
    lines = cpuinfo.splitlines()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), ":")
    return flags.split(":", 1)[1].split()


@cache
def host_processor() -> str:
    """What the part of a GPU's model that runs on the processor is compiled for, in `set_virtual_cpu_target`'s words.

    Hardly anything runs there, so one file is to serve every machine with AVX2; "generic" serves the others.
    """
    try:
        return host_level(platform.machine(), Path("/proc/cpuinfo").read_text())
    except OSError:  # not Linux
        return "generic"


def host_level(machine: str, cpuinfo: str) -> str:
    """`host_processor` of a machine whose /proc/cpuinfo is given."""
    return "x86-64-v3" if machine == "x86_64" and _X86_64_V3.issubset(_cpu_flags(cpuinfo)) else "generic"


def cache_path(key: CompileKey) -> Path:
    """Where the compiled model of `key` is kept, in the user's cache directory."""
    return cache_folder() / f"{key.digest[:32]}.replit"


def is_kept(key: CompileKey) -> bool:
    """Whether the compiled model of `key` is in the user's cache directory."""
    try:
        return cache_path(key).exists()
    except (UserError, OSError):
        return False


def cache_folder() -> Path:
    """REPLIT_CACHE_DIR, else in the user's cache directory. Raises UserError where it is unknown or may not be read."""
    base = os.environ.get("REPLIT_CACHE_DIR")
    try:
        if not base:
            home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            base = str(Path(home) / "replit-code-max")
        Path(base).exists()
    except RuntimeError:
        raise UserError(
            "this user has no home directory; expected REPLIT_CACHE_DIR, a folder to keep models in"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{str(base)[:200]} cannot be used: {reason(error)}; expected a folder: set REPLIT_CACHE_DIR"
        ) from None
    return Path(base)

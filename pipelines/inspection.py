"""What a model or a serialized model holds and would take to run, as plain values for JSON.

Nothing of the weights is read. What is wrong with a model ends up in "problems", one line each,
beside everything that could be found out all the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from weights.errors import UserError
from weights.tensor import Encoding, Tensor

if TYPE_CHECKING:
    from replit.decoder.architecture import Architecture
    from replit.decoder.config import DecoderConfig
    from replit.runtime.weight_memory import WeightTypes
    from weights.files.checkpoint import Checkpoint
    from weights.tokenizers.tokenizer import Tokenizer

Result = TypeVar("Result")

_READ = "norms and embeddings were searched for NaN and infinity"
_UNREAD = "not read: only the headers were downloaded, so NaN and infinity would not be found"

#: Memory of a running model outside weights and cache: code 110 MB, engine and activations of a
#: prompt 70 MB (measured at width 3072). Compiling takes up to 1 GB more, once.
ENGINE_BYTES = 200 << 20


@dataclass(frozen=True)
class Run:
    """What a model would be run with on the CPU."""

    encoding: Encoding | None
    max_length: int
    batch: int
    allow_longer: bool = False


def inspect_model(
    checkpoint: Checkpoint,
    wanted: Run,
    found: Sequence[str] = (),
    tokenizer_path: Path | None = None,
    *,
    headers_only: bool = False,
) -> dict[str, Any]:
    """Describe a model; `found` are problems that were found when it was opened.

    With `headers_only` the weights are not there, and their values are not looked at.
    """
    from pipelines.registry import architecture_of
    from replit.decoder.finite import check_finite
    from weights.tokenizers.load import load_tokenizer

    problems = list(found)
    architecture = architecture_of(checkpoint)
    config = _attempt(lambda: architecture.read_config(checkpoint), problems)
    tensors = config and _attempt(lambda: architecture.map_weights(checkpoint, config), problems)
    tokenizer = _attempt(lambda: load_tokenizer(checkpoint, tokenizer_path), problems)
    run = None
    if tensors and not headers_only and not found:  # which may be that the data is cut off
        _attempt(lambda: check_finite(checkpoint.path, tensors), problems)
    if config and tensors:
        run = _attempt(lambda: _run(architecture, config, tensors, wanted), problems)
    return {
        "file": {
            "path": str(checkpoint.path),
            "format": checkpoint.format,
            "bytes": checkpoint.nbytes,
            "parts": max(1, len(checkpoint.files)),
        },
        "general": {
            key: value
            for key, value in checkpoint.metadata.items()
            if key.startswith("general.") and not isinstance(value, list)
        },
        "parameters": sum(prod(tensor.shape) for tensor in checkpoint.tensors.values()),
        "config": config and asdict(config),
        "tokenizer": tokenizer and _tokenizer(tokenizer, checkpoint),
        "encodings": _encodings(checkpoint.tensors),
        "tensors": [_tensor(tensor) for tensor in checkpoint.tensors.values()],
        "run": run,
        "values": _UNREAD if headers_only else _READ,
        "problems": problems,
    }


def _attempt(action: Callable[[], Result], problems: list[str]) -> Result | None:
    try:
        return action()
    except UserError as error:
        problems.append(str(error))
        return None


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "encoding": str(tensor.encoding),
        "bytes": tensor.nbytes,
    }


def _encodings(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, int]]:
    """Number of tensors and bytes by encoding."""
    sums: dict[str, dict[str, int]] = {}
    for tensor in tensors.values():
        entry = sums.setdefault(str(tensor.encoding), {"tensors": 0, "bytes": 0})
        entry["tensors"] += 1
        entry["bytes"] += tensor.nbytes
    return sums


def _tokenizer(tokenizer: Tokenizer, checkpoint: Checkpoint) -> dict[str, Any]:
    metadata = checkpoint.metadata
    return {
        "kind": type(tokenizer).__name__,
        "vocab_size": tokenizer.vocab_size,
        "splits_like": metadata.get("tokenizer.ggml.pre"),
        "special": asdict(tokenizer.special),
        "control_tokens": len(tokenizer.control_token_ids),
    }


def _run(
    architecture: Architecture,
    config: DecoderConfig,
    tensors: Mapping[str, Tensor],
    wanted: Run,
) -> dict[str, Any]:
    """What would compute with what, and the memory it needs."""
    from pipelines.registry import check_length
    from replit.decoder.encodings import substitutions
    from replit.runtime.compile_key import CompileKey, is_kept
    from replit.runtime.free_memory import fits_in_memory
    from replit.runtime.kv_cache import PAGE_SIZE, PagedKVCache
    from replit.runtime.target import CPU, CPU_MAPPED
    from replit.runtime.weight_memory import total_bytes, weight_types

    batch, max_length = wanted.batch, wanted.max_length
    longer = check_length(max_length, config, wanted.allow_longer)
    types = weight_types(tensors, wanted.encoding)
    notes = [] if wanted.encoding else substitutions(tensors, {name: used for name, (used, _) in types.items()})
    target = CPU if fits_in_memory(total_bytes(types)) else CPU_MAPPED
    positions = batch * -(-max_length // PAGE_SIZE) * PAGE_SIZE
    memory = {
        "weights": total_bytes(types),
        "cache": positions * PagedKVCache.bytes_per_token(config, target.cache),
        "engine": ENGINE_BYTES,
    }
    return {
        "device": "cpu",
        "max_length": max_length,
        "batch": batch,
        "encodings": _counts(types),
        "notes": [*notes, *([longer] if longer else [])],
        "memory": memory | {"total": sum(memory.values()), "available": _available()},
        "compiled": is_kept(CompileKey.of(architecture, config, types, target)),
    }


def _counts(types: WeightTypes) -> dict[str, int]:
    counts: dict[str, int] = {}
    for encoding, _ in types.values():
        counts[str(encoding)] = counts.get(str(encoding), 0) + 1
    return counts


def _available() -> int:
    """Memory of this machine that a new process could have; all of it where that is unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(x.split()[1]) << 10 for x in lines if x.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


_OTHERS = {
    "max_version": "another version of MAX",
    "package": "another version of this package",
    "graph": "another graph",
    "kernels": "other kernels",
    "processor": "another processor",
}


def inspect_compiled(path: Path) -> dict[str, Any]:
    """Describe a serialized model: what it was compiled from, and whether it can run here."""
    from pipelines.registry import architecture_named
    from replit.runtime.compile_key import environment
    from replit.runtime.compiled_file import read_header
    from replit.runtime.target import parse_target

    header = read_header(path)
    key = header["key"]
    here = environment(architecture_named(key["architecture"]), parse_target(key["device"]))
    types = key["weights"].values()
    encodings = {kind: sum(kind == k for k, _ in types) for kind in sorted({k for k, _ in types})}
    return {
        "file": {"path": str(path), "format": "compiled", "bytes": path.stat().st_size},
        "config": key["config"],
        "encodings": encodings,
        "compiled_for": {name: key[name] for name in ("device", "max_version", "processor")},
        "tensors": [{"name": name, "shape": shape, "encoding": kind} for name, (kind, shape) in key["weights"].items()],
        "problems": [
            f"compiled for {what}: make it again with --save-to-serialized-model-path"
            for name, what in _OTHERS.items()
            if key[name] != here[name]
        ],
    }

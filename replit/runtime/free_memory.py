"""What memory this process can still have, asked before weights and caches are allocated rather than by an abort."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from replit.decoder.config import DecoderConfig
from replit.runtime.cores import memory_limit
from weights.errors import UserError
from weights.tensor import Encoding

# As in kv_cache.py, which imports MAX.
PAGE_SIZE = 128


def cache_bytes(config: DecoderConfig, sequences: int, max_length: int, encoding: Encoding) -> int:
    """Bytes of the keys and values of `sequences` longest sequences."""
    positions = sequences * -(-max_length // PAGE_SIZE) * PAGE_SIZE
    return positions * 2 * config.n_layers * encoding.row_bytes(config.kv_dim)


def check_cache_fits(config: DecoderConfig, sequences: int, max_length: int, encoding: Encoding) -> None:
    """Raises UserError where the cache cannot be had on this machine, its container or under its `ulimit -v`."""
    needed, free = cache_bytes(config, sequences, max_length, encoding), free_memory()
    if free is not None and needed > free:
        raise UserError(
            f"{sequences} sequences of {max_length} tokens need {needed / 1e9:.1f} GB for keys and values; expected at "
            f"most the {free / 1e9:.1f} GB of memory that are free: lower --max-cache-batch-size or --max-length"
        )


def fits_in_memory(size: int) -> bool:
    """Whether `size` bytes can be read into memory with room to spare, as far as system and container tell."""
    free = free_memory()
    if free is not None and _available() is None:
        free //= 2  # macOS tells what there is, not what is free
    return free is None or size * 1.1 < free


def free_memory() -> int | None:
    """Bytes that this process can still use, as far as the system tells; None where it does not."""
    available = _available()
    system = _installed() if available is None else available
    found = [size for size in (system, memory_limit(), _address_space()) if size is not None]
    return min(found, default=None)


def _available() -> int | None:
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        return None


def _installed() -> int | None:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None


def _address_space() -> int | None:
    """What `ulimit -v` leaves."""
    if sys.platform == "win32":
        return None
    import resource

    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most == resource.RLIM_INFINITY:
        return None
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        used = 0
    return max(0, most - used)

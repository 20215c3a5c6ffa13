"""Cores that this process may use: those it is bound to, and the share of them that its container is given."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """At least one."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return bound if quota is None else max(1, min(bound, math.ceil(quota)))


def cpu_quota(root: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> float | None:
    """Cores that cgroups leave this process, such as 1.5; None for no limit.

    More threads than that run until the quota of a period is used up, and then all of them wait for the next one.
    """
    found = [quota for folder in _folders(root, own) if (quota := _quota(folder)) is not None]
    return min(found, default=None)


def memory_limit(root: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes that cgroups still leave this process; None for no limit.

    Files that are cached count as used there, and give way: a model that was just downloaded, or loaded several times
    (which makes its pages active ones), is no less room.
    """
    left = []
    for folder in _folders(root, own):
        for limit, used, total in (
            ("memory.max", "memory.current", ""),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
        ):
            most, now = _number(folder / limit), _number(folder / used)
            if most is not None and now is not None and most < 1 << 60:
                files = sum(_statistic(folder, f"{total}{kind}_file") for kind in ("inactive", "active"))
                left.append(max(0, most - max(0, now - files)))
    return min(left, default=None)


def _statistic(folder: Path, name: str) -> int:
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)
    except (OSError, ValueError, IndexError):
        return 0


def _folders(root: Path, own: Path) -> list[Path]:
    """The control groups that this process is in, from its own up to the root, of both versions."""
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not Linux
        return []
    found = []
    for line in lines:
        _, kinds, path = line.split(":", 2)
        bases = [root] if not kinds else [root / kinds, *(root / kind for kind in kinds.split(","))]
        for base in bases:
            place = Path(path.lstrip("/"))
            # Inside a container the path is often the host's, and the group's files lie at the root.
            found += [base / part for part in (place, *place.parents)]
    return list(dict.fromkeys(found))


def _quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            most, period = (folder / "cpu.max").read_text().split()
            return None if most == "max" else int(most) / int(period)
    except (OSError, ValueError):
        return None
    most_us, period_us = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return most_us / period_us if most_us and period_us and most_us > 0 else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None

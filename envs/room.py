"""How many environments a machine has room for, by the memory and the processors that this process may use."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

GB = 1e9
KEPT_FOR_OTHERS = 0.2
"""Share of the memory that is left to everything else."""


def room(gigabytes: float, cores: float) -> int:
    """How many, if each takes so much memory and keeps so many processors busy; at least one where one fits into the memory."""
    by_memory = int(memory_gb() * (1 - KEPT_FOR_OTHERS) / gigabytes)
    return min(by_memory, max(int(processors() / cores), 1))


def processors() -> float:
    """Those that this process may use: a batch system gives a job some of a machine's, and a container a share of their time."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = [_share(text) for text in _limits("cpu.max")]
    return min([float(there), *(share for share in shares if share is not None)])


def _share(text: str) -> float | None:
    quota, _, period = text.partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def memory_gb() -> float:
    """The memory that this process and its like may use: the machine's, or the limit of its control group."""
    limits = [int(text) for text in _limits("memory.max") if text.isdigit()]
    return min([psutil.virtual_memory().total, *limits]) / GB


def _limits(name: str, root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[str]:
    """The limits of this process's control group and of all above it (cgroup v2)."""
    try:
        path = next((line[3:] for line in own.read_text().splitlines() if line.startswith("0::")), "/")
    except OSError:  # not Linux
        return []
    group = root / path.strip().lstrip("/")
    found = []
    for folder in (group, *group.parents):
        if (folder / name).is_file():
            found.append((folder / name).read_text().strip())
        if folder == root:
            break
    return found

"""Our own benchmarks, found by their place in this package, and their environments' Gymnasium ids; nothing heavy is imported."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

import gymnasium as gym

from envs.benchmark import Benchmark


@functools.cache
def own_benchmarks() -> dict[str, Benchmark]:
    """Name -> benchmark of every folder of this package with a ``benchmark.py``, which holds it as ``BENCHMARK``."""
    folders = sorted(path.parent.name for path in Path(__file__).parent.glob("*/benchmark.py"))
    found = [importlib.import_module(f"envs.{folder}.benchmark").BENCHMARK for folder in folders]
    return {benchmark.name: benchmark for benchmark in found}


def register(benchmark: Benchmark) -> None:
    """Register the environment of a benchmark with Gymnasium, in the place of another one of that name."""
    environment: Any = benchmark.environment
    known = gym.registry.get(benchmark.env_id)
    if known is None or known.entry_point != environment:
        gym.registry.pop(benchmark.env_id, None)
        gym.register(id=benchmark.env_id, entry_point=environment)


def register_all() -> None:
    """Register every environment of ours once."""
    for benchmark in own_benchmarks().values():
        register(benchmark)

"""Benchmarks by name, for the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym

from envs.base import GUIEnv, TaskSpec, TaskSuite
from envs.errors import UsageError, did_you_mean
from envs.miniwob.suite import MiniWoBSuite

SUITES: dict[str, Callable[[], TaskSuite]] = {
    "miniwob": MiniWoBSuite,
    "miniwob-core": MiniWoBSuite,
    "miniwob-experts": lambda: MiniWoBSuite("experts"),
    "miniwob-all": lambda: MiniWoBSuite("all"),
}


def get_suite(name: str) -> TaskSuite:
    """The suite of that name.

    Raises:
        UsageError: there is none (the nearest names are offered).
    """
    if name not in SUITES:
        raise UsageError(f"There is no suite {name!r}.", did_you_mean(name, SUITES, what="suite"))
    return SUITES[name]()


def make_env(spec: TaskSpec, **options: Any) -> GUIEnv:
    """A new environment that can run ``spec`` (and every other task of its suite); ``options`` go to its constructor."""
    env = gym.make(spec.env_id, disable_env_checker=True, **options).unwrapped
    assert isinstance(env, GUIEnv)
    return env

"""Benchmarks by name, for the command line."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

from envs.androidworld.suite import AndroidWorldSuite
from envs.base import Modality, TaskEnv, TaskSpec, TaskSuite
from envs.errors import SetupError, UsageError, did_you_mean
from envs.miniwob.suite import MiniWoBSuite
from envs.osworld.suite import LIGHT, UPSTREAM, OSWorldSuite

SUITES: dict[str, Callable[[], TaskSuite]] = {
    "miniwob": MiniWoBSuite,
    "miniwob-core": MiniWoBSuite,
    "miniwob-experts": lambda: MiniWoBSuite("experts"),
    "miniwob-all": lambda: MiniWoBSuite("all"),
    "androidworld": AndroidWorldSuite,
    "androidworld-android": lambda: AndroidWorldSuite("android"),
    "androidworld-information-retrieval": lambda: AndroidWorldSuite("information_retrieval"),
    "androidworld-miniwob": lambda: AndroidWorldSuite("miniwob"),
    "androidworld-miniwob-subset": lambda: AndroidWorldSuite("miniwob_subset"),
    "osworld": OSWorldSuite,
    **{f"osworld-{subset}": functools.partial(OSWorldSuite, subset) for subset in (*UPSTREAM, LIGHT)},
}
FROM_FILES: dict[str, Callable[[str], TaskSuite]] = {"osworld": OSWorldSuite}
"""Suites that can be read from the user's own files: ``osworld:PATH``."""

Machinery = Callable[[dict[str, Any], str, int], AbstractContextManager[dict[str, Any]]]
"""(environment options, name of the run, workers) -> the options with what all environments of the run share."""


def get_suite(name: str) -> TaskSuite:
    """The suite of that name.

    Raises:
        UsageError: there is none (the nearest names are offered).
    """
    benchmark, _, path = name.partition(":")
    if path and benchmark in FROM_FILES:
        return FROM_FILES[benchmark](path)
    if name not in SUITES:
        raise UsageError(f"There is no suite {name!r}.", did_you_mean(name, SUITES, what="suite"))
    return SUITES[name]()


def sub_suite(name: str, part: str) -> str:
    """The suite that is ``part`` of the benchmark ``name``: one of its own, or the user's files."""
    return f"{name}-{part}" if f"{name}-{part}" in SUITES or name not in FROM_FILES else f"{name}:{part}"


def default_limit(name: str) -> int:
    """How many instances a run of this suite has if the user names no number.

    Raises:
        UsageError: there is no such suite.
    """
    return get_suite(name).default_limit


def default_options(name: str) -> dict[str, Any]:
    """Options of the environment if the user does not say otherwise: OSWorld's own tasks are for OSWorld's own machine."""
    upstream = name in {"osworld", *(f"osworld-{subset}" for subset in UPSTREAM)}
    return {"provider": "official"} if upstream else {}


def default_workers(suite: str, options: Mapping[str, Any]) -> int | None:
    """How many sessions to run at a time if the user does not say; None where the machine's cores decide."""
    if benchmark_of(suite) != "androidworld":
        return None
    from envs.androidworld.machinery import default_workers as emulators

    return emulators(options)


def lacking(suite: str, options: Mapping[str, Any]) -> Iterator[SetupError]:
    """What this machine lacks for the suite, each with the command that brings it."""
    if benchmark_of(suite) == "androidworld":
        from envs.androidworld.setup import lacking as android_lacks

        yield from android_lacks(options)
    if benchmark_of(suite) == "osworld":
        from envs.osworld.needs import lacking as osworld_lacks

        yield from osworld_lacks(suite, options)


def remarks(suite: str, options: Mapping[str, Any], tasks: Sequence[TaskSpec]) -> Iterator[str]:
    """What a person should know before these tasks are run."""
    if benchmark_of(suite) == "osworld":
        from envs.osworld.needs import remarks as osworld_remarks

        yield from osworld_remarks(options, tasks)


def benchmark_of(suite: str) -> str:
    """``osworld`` of ``osworld-light`` and of ``osworld:PATH``."""
    return re.split("[-:]", suite, maxsplit=1)[0]


@contextmanager
def machinery(suite: str, options: Mapping[str, Any], *, run: str, workers: int) -> Iterator[dict[str, Any]]:
    """What the environments of a run share (containers, emulators), open for the whole run: an environment that is closed because
    its machine broke must not take the others' machines with it.

    Raises:
        SetupError, UsageError: it cannot be had.
    """
    opener = _MACHINERY.get(benchmark_of(suite))
    if opener is None:
        yield dict(options)
        return
    with opener(dict(options), run, workers) as shared:
        yield shared


def _androidworld(options: dict[str, Any], run: str, workers: int) -> AbstractContextManager[dict[str, Any]]:
    from envs.androidworld.machinery import shared_options

    return shared_options(options, run, workers)


def _osworld(options: dict[str, Any], run: str, workers: int) -> AbstractContextManager[dict[str, Any]]:
    from envs.osworld.machinery import shared_options

    return shared_options(options, run, workers)


_MACHINERY: dict[str, Machinery] = {"androidworld": _androidworld, "osworld": _osworld}


def shows(spec: TaskSpec) -> frozenset[Modality]:
    """What the observations of the environment of ``spec`` are made of, before there is one; empty where it does not say."""
    return frozenset(getattr(_creator(spec), "shows", ()))


def check_options(spec: TaskSpec, options: Mapping[str, Any]) -> None:
    """Refuse options that the environment of ``spec`` does not have.

    Raises:
        UsageError: unknown option (the nearest ones are offered).
    """
    known = inspect.signature(_creator(spec)).parameters
    for name in options:
        if name not in known:
            raise UsageError(f"The environment {spec.env_id} has no option {name!r}.", did_you_mean(name, known, what="option"))


def choices(spec: TaskSpec) -> tuple[Mapping[str, Sequence[str]], Sequence[str]]:
    """Of the environment of ``spec``: its options that are one of a few words, with the words; and those that only a user may set."""
    creator = _creator(spec)
    return getattr(creator, "choices", {}), getattr(creator, "withheld", ())


def _creator(spec: TaskSpec) -> Callable[..., Any]:
    entry_point: Any = gym.spec(spec.env_id).entry_point
    creator: Callable[..., Any] = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    return creator


def make_env(spec: TaskSpec, **options: Any) -> TaskEnv:
    """A new environment that can run ``spec`` (and every other task of its suite); ``options`` go to its constructor."""
    env = gym.make(spec.env_id, disable_env_checker=True, **options).unwrapped
    assert isinstance(env, TaskEnv)
    return env

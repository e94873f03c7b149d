"""Benchmarks by name: our own, those that installed packages offer, and ``module:Name``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

from envs.base import Modality, TaskEnv, TaskSpec, TaskSuite
from envs.benchmark import Benchmark
from envs.errors import SetupError, UsageError, did_you_mean
from envs.option_types import wrong_type
from envs.plugins import Plugins, load_module_name
from envs.registration import own_benchmarks, register
from envs.theirs import their_code

PLUGINS = Plugins("benchmark", "agentlab.benchmarks")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
NAMED_MODULE = re.compile(r"(?P<module>[\w.]+:[\w.]+)(?:(?P<mark>[-:])(?P<part>.+))?", re.DOTALL)
"""``my.module:Name``, ``my.module:Name-part`` or ``my.module:Name:PATH``."""


# -- finding -----------------------------------------------------------------------------------------------------------------------
def benchmark_names() -> list[str]:
    """Names of all installed benchmarks."""
    return sorted({*own_benchmarks(), *PLUGINS.installed()})


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of that name, or the one that ``module:Name`` names; its environment is registered with Gymnasium.

    Raises:
        UsageError: there is no such benchmark, or it is broken.
    """
    own = own_benchmarks()
    if name in own:
        return own[name]
    if name in PLUGINS.installed():
        found = as_benchmark(PLUGINS.load(name), f"The benchmark {name!r}")
        if found.name != name:
            raise UsageError(f"The benchmark {name!r} calls itself {found.name!r}.", "Its entry point must have its name.")
    else:
        found = as_benchmark(load_module_name(name, "benchmark"), name)
    if found.name in own:
        raise UsageError(f"{name} calls itself {found.name!r}, which is a benchmark of ours.", "Give it another name.")
    register(found)
    return found


def as_benchmark(found: Any, what: str) -> Benchmark:
    """``found`` as a benchmark: an instance of :class:`Benchmark`, or a subclass that needs no arguments.

    Raises:
        UsageError: it is neither, or lacks something.
    """
    if isinstance(found, type) and issubclass(found, Benchmark):
        try:
            found = found()
        except Exception as error:  # a stranger's code
            raise UsageError(
                f"{what} cannot be made: {error}.", "A benchmark is made without arguments and has a suite()."
            ) from error
    if not isinstance(found, Benchmark):
        kind = found.__name__ if isinstance(found, type) else f"a {type(found).__name__}"
        raise UsageError(f"{what} is {kind}, not a benchmark.", "Make it a subclass of envs.benchmark.Benchmark.")
    for attribute in ("name", "environment"):
        if not hasattr(found, attribute):
            raise UsageError(f"{what} has no {attribute!r}.", "envs/benchmark.py shows what a benchmark has.")
    if not isinstance(found.name, str) or not NAME.fullmatch(found.name):
        raise UsageError(f"{what} has the name {found.name!r}.", "A name has small letters, digits, '-' and '_' only.")
    return found


def installed_benchmarks() -> Iterator[tuple[str, Benchmark | UsageError]]:
    """All installed benchmarks by name; instead of one that is broken, what is wrong with it."""
    for name in benchmark_names():
        try:
            yield name, find_benchmark(name)
        except UsageError as error:
            yield name, error


def locate(suite: str) -> tuple[Benchmark, str]:
    """(benchmark, part) of the name of a suite, e.g. of ``osworld-light`` or ``osworld:PATH``.

    Raises:
        UsageError: there is no such suite (the nearest names are offered).
    """
    names = [name for name in benchmark_names() if suite == name or suite.startswith((f"{name}-", f"{name}:"))]
    if names:
        name = max(names, key=len)
        return _part(find_benchmark(name), name, suite[len(name) : len(name) + 1], suite[len(name) + 1 :])
    named = NAMED_MODULE.fullmatch(suite)
    if named is None:
        raise UsageError(f"There is no suite {suite!r}.", did_you_mean(suite, suite_names(), what="suite"))
    return _part(find_benchmark(named["module"]), named["module"], named["mark"] or "", named["part"] or "")


def _part(benchmark: Benchmark, name: str, mark: str, part: str) -> tuple[Benchmark, str]:
    """The benchmark, which is called ``name`` on the command line, and its part.

    Raises:
        UsageError: it has no such part.
    """
    known = suite_names(benchmark, name)
    if mark == ":" and not benchmark.takes_files:
        raise UsageError(f"{name} takes no tasks from files, as {name}:{part} asks.", f"Its suites: {', '.join(known)}.")
    if mark == "-" and part not in benchmark.parts:
        raise UsageError(f"There is no suite {f'{name}-{part}'!r}.", did_you_mean(f"{name}-{part}", known, what="suite"))
    return benchmark, part


def suite_names(benchmark: Benchmark | None = None, name: str = "") -> list[str]:
    """Names of the suites of a benchmark (as the one called ``name``), or of all that work."""
    if benchmark is not None:
        return [name or benchmark.name, *(f"{name or benchmark.name}-{part}" for part in benchmark.parts)]
    return [suite for _, found in installed_benchmarks() if isinstance(found, Benchmark) for suite in suite_names(found)]


# -- asking ------------------------------------------------------------------------------------------------------------------------
def get_suite(name: str) -> TaskSuite:
    """The suite of that name.

    Raises:
        UsageError: there is no such suite (the nearest names are offered).
    """
    benchmark, part = locate(name)
    suite = benchmark.suite(part)
    if not isinstance(suite, TaskSuite):
        raise UsageError(f"The suite of {name} is a {type(suite).__name__}.", "suite() returns an envs.base.TaskSuite.")
    return suite


def sub_suite(name: str, part: str) -> str:
    """The suite that is ``part`` of the benchmark ``name``: one of its own, or the user's files.

    Raises:
        UsageError: there is no such benchmark.
    """
    benchmark, given = locate(name)
    if given:
        raise UsageError(f"{name!r} is a part already, and --suite {part} another one.", f"Use {benchmark.name} --suite {part}.")
    return f"{name}-{part}" if part in benchmark.parts or not benchmark.takes_files else f"{name}:{part}"


def default_limit(name: str) -> int:
    """How many instances a run of this suite has if the user names no number.

    Raises:
        UsageError: there is no such suite.
    """
    return get_suite(name).default_limit


def default_attempts(name: str) -> int:
    """How many attempts per task a run of this suite makes if the user names no number.

    Raises:
        UsageError: there is no such suite.
    """
    return get_suite(name).default_attempts


def default_options(name: str) -> dict[str, Any]:
    """Options of the environment if the user does not say otherwise."""
    benchmark, part = locate(name)
    return benchmark.default_options(part)


def judged(suite: str, options: Mapping[str, Any]) -> bool:
    """Whether a judge alone says when a session ends and what is learned from it."""
    return locate(suite)[0].judged(options)


def default_workers(suite: str, options: Mapping[str, Any]) -> int | None:
    """How many sessions to run at a time if the user does not say; None where the machine's cores decide."""
    return locate(suite)[0].default_workers(options)


def lacking(suite: str, options: Mapping[str, Any]) -> Iterator[SetupError]:
    """What this machine lacks for the suite, each with the command that brings it."""
    benchmark, part = locate(suite)
    yield from benchmark.lacking(part, options)


def remarks(suite: str, options: Mapping[str, Any], tasks: Sequence[TaskSpec]) -> Iterator[str]:
    """What a person should know before these tasks are run."""
    yield from locate(suite)[0].remarks(options, tasks)


@contextmanager
def machinery(suite: str, options: Mapping[str, Any], *, run: str, workers: int) -> Iterator[dict[str, Any]]:
    """What the environments of a run share, open for the whole run.

    Raises:
        SetupError, UsageError: it is unavailable.
    """
    with locate(suite)[0].shared(dict(options), run, workers) as shared:
        yield shared


# -- environments ------------------------------------------------------------------------------------------------------------------
def shows(spec: TaskSpec) -> frozenset[Modality]:
    """What the observations of the environment of ``spec`` are made of, before there is one; empty where it does not say."""
    return frozenset(getattr(_creator(spec), "shows", ()))


def check_options(spec: TaskSpec, options: Mapping[str, Any]) -> None:
    """Refuse options that the environment of ``spec`` does not have.

    Raises:
        UsageError: unknown option (the nearest ones are offered).
    """
    for name, value in options.items():
        if not takes_option(spec, name):
            known = inspect.signature(_creator(spec)).parameters
            raise UsageError(f"The environment {spec.env_id} has no option {name!r}.", did_you_mean(name, known, what="option"))
        _check_value(name, value, _hints(_creator(spec)).get(name))


def takes_option(spec: TaskSpec, name: str) -> bool:
    """Whether the environment of ``spec`` has an option of that name."""
    known = inspect.signature(_creator(spec)).parameters
    return name in known or any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())


def _hints(creator: Callable[..., Any]) -> dict[str, Any]:
    """The types of a constructor's parameters; none where a stranger's cannot be told."""
    try:
        parameters = inspect.signature(creator, eval_str=True).parameters
        return {name: parameter.annotation for name, parameter in parameters.items()}
    except (NameError, TypeError, ValueError):
        return {}


def _check_value(name: str, value: Any, kind: Any) -> None:
    """Refuse a value from a command line or a file that is of another type than the option.

    Raises:
        UsageError: it is.
    """
    if expected := wrong_type(value, kind):
        shown = repr(value)
        raise UsageError(f"env.{name} is {shown[:60]}{'…' * (len(shown) > 60)}, not {expected}.")


def choices(spec: TaskSpec) -> tuple[Mapping[str, Sequence[str]], Sequence[str]]:
    """The options of ``spec``'s environment that are one of a few words, with the words; and those that only a user may set."""
    creator = _creator(spec)
    return getattr(creator, "choices", {}), getattr(creator, "withheld", ())


def _creator(spec: TaskSpec) -> Callable[..., Any]:
    if spec.env_id not in gym.registry:
        raise UsageError(
            f"The task {spec.name!r} is for an environment {spec.env_id!r}, which is not registered.",
            "A benchmark NAME registers its environment as agentlab/NAME-v0.",
        )
    entry_point: Any = gym.spec(spec.env_id).entry_point
    creator: Callable[..., Any] = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    return creator


def make_env(spec: TaskSpec, **options: Any) -> TaskEnv:
    """A new environment that can run ``spec`` (and every other task of its suite); ``options`` go to its constructor.

    Raises:
        UsageError: what is registered is not an environment of this house.
        InfrastructureError: its own code failed.
    """
    with their_code(_creator(spec), "__init__"):
        env = gym.make(spec.env_id, disable_env_checker=True, **options).unwrapped
    if not isinstance(env, TaskEnv):
        raise UsageError(f"The environment {spec.env_id} is a {type(env).__name__}.", "Make it a subclass of envs.base.TaskEnv.")
    return env

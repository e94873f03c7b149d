"""Task instances by (family, task, seed, index), derived by upstream's own ``create_suite``.

An instance is rebuilt for every attempt: upstream's information-retrieval tasks reword the dates in their own parameters when
they are initialised, so the same object cannot be initialised twice.
"""

from __future__ import annotations

import contextlib
import datetime
import difflib
import functools
import hashlib
import threading
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from android_world import registry, suite_utils
from android_world.env import device_constants
from android_world.task_evals.information_retrieval import information_retrieval
from android_world.task_evals.single import markor

from guest.errors import GuestError

_BUILDING = threading.RLock()
"""Upstream draws parameters from Python's global random generator."""


@dataclass(frozen=True)
class Key:
    """What an instance is named by."""

    family: str
    task: str
    seed: int
    index: int


FAMILIES = tuple(registry.get_families())
"""Upstream's task families."""


@functools.cache
def _registry(family: str) -> dict[str, Any]:
    try:
        return registry.TaskRegistry().get_registry(family)
    except ValueError:
        raise GuestError("unknown_family", f"There is no task family {family!r}.", known=list(FAMILIES)) from None


def families() -> dict[str, int]:
    """Task families and their numbers of tasks."""
    return {family: len(_registry(family)) for family in FAMILIES}


@contextlib.contextmanager
def _clock_of(key: Key) -> Iterator[None]:
    """The one task whose parameters hold the time of day (MarkorCreateFolder) gets one that belongs to its instance."""
    seconds = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:4], "big") % 86_400

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return device_constants.DT + datetime.timedelta(seconds=seconds)

    names = types.SimpleNamespace(**{**vars(datetime), "datetime": Clock})
    with mock.patch.object(markor, "datetime", names):
        yield


def build(key: Key) -> Any:
    """A fresh upstream task object of the instance.

    Raises:
        GuestError: unknown_family, unknown_task.
    """
    known = _registry(key.family)
    if key.task not in known:
        near = difflib.get_close_matches(key.task, known, n=3, cutoff=0.5)
        raise GuestError("unknown_task", f"The family {key.family!r} has no task {key.task!r}.", near=near)
    with _BUILDING, _clock_of(key):
        suite = suite_utils.create_suite({key.task: known[key.task]}, n_task_combinations=key.index + 1, seed=key.seed)
        return suite[key.task][key.index]


def describe(key: Key, task: Any) -> dict[str, Any]:
    """The reply of /task.  ``goal`` is None where upstream makes it only when the task is initialised (MiniWoB)."""
    try:
        goal = task.goal
    except (AttributeError, KeyError, RuntimeError, ValueError):
        goal = None
    return {
        "family": key.family,
        "task": key.task,
        "seed": key.seed,
        "index": key.index,
        "instance_seed": task.params.get("seed"),
        "goal": goal or None,
        "params": {name: plain(value) for name, value in task.params.items()},
        **_facts(task),
    }


def _facts(task: Any) -> dict[str, Any]:
    return {
        "template": task.template,
        "complexity": float(task.complexity),
        "budget": int(10 * task.complexity),
        "apps": list(task.app_names),
        "information_retrieval": isinstance(task, information_retrieval.InformationRetrieval),
        "start_on_home": bool(task.start_on_home_screen),
    }


@functools.lru_cache(maxsize=64)
def _listed(family: str, seed: int) -> tuple[dict[str, Any], ...]:
    return tuple({"name": name, **_facts(build(Key(family, name, seed, 0)))} for name in sorted(_registry(family)))


def listing(family: str, seed: int) -> list[dict[str, Any]]:
    """The reply of /tasks: alphabetical."""
    return [dict(entry) for entry in _listed(family, seed)]


def plain(value: Any) -> Any:
    """``value`` as JSON; an object becomes its type and its repr."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    return {"type": type(value).__name__, "repr": repr(value)}

"""When OSWorld's evaluator raises: who caused it?

Its own runner then writes no result at all, and the task drops out of its mean.  Here the attempt must become a score or a void, and
neither may be the agent's choice: what it left behind is scored, with 0 for the part that could not be made sense of; what has nothing
to do with the agent is a failure of the grader.
"""

from __future__ import annotations

import functools
import math
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .parts import HOST_FAULTS, MissingPart
from .watch import Watch

METRIC_SECONDS = 300.0
"""A metric takes seconds; an archive that the agent built to grow without end never stops."""


class Unreadable:
    """Stands for a result that could not be made from what the agent left."""


UNREADABLE = Unreadable()


class GraderFault(Exception):
    """The evaluator failed for a reason that is not in the guest."""


def machines_own(error: BaseException | None) -> bool:
    """Whether this happens because of the machine that grades, whatever the agent left."""
    if error is None:
        return False
    if isinstance(error, ImportError | MemoryError | MissingPart):
        return True
    return (isinstance(error, OSError) and error.errno in HOST_FAULTS) or machines_own(error.__cause__)


def evaluate(env: Any, watch: Watch, remarks: list[str]) -> float:
    """The score by OSWorld's environment, whose task has been set; ``remarks`` get what was scored 0 because it could not be read.

    Raises:
        GraderFault: an evaluator failed, and not because of what is in the guest.
    """
    _watch_postconfig(env, remarks)
    evaluator = Evaluator(env, watch, remarks)
    try:
        return float(env.evaluate())
    except GraderFault:
        raise
    except Exception as error:  # noqa: BLE001 - it is not our code
        _judge(error, any(evaluator.seen.values()), remarks)
        return 0.0


def _watch_postconfig(env: Any, remarks: list[str]) -> None:
    """A step before grading that fails on what the agent left (a file to open that it deleted) leaves the rest to be graded."""
    setup = env.setup_controller.setup

    @functools.wraps(setup)
    def done(*args: Any, **options: Any) -> Any:
        try:
            return setup(*args, **options)
        except Exception as error:  # noqa: BLE001 - it is not our code
            _judge(error, True, remarks)
            return True

    env.setup_controller.setup = done


class Evaluator:
    """The getters and metrics of OSWorld's environment, wrapped.

    Attributes:
        seen: Index of a metric -> whether what it measures came from the guest.
    """

    def __init__(self, env: Any, watch: Watch, remarks: list[str]) -> None:
        self.seen: dict[int, bool] = {}
        self._watch, self._remarks = watch, remarks
        steps = [*(env.config or []), *env.evaluator.get("postconfig", [])]
        self._written = {step["parameters"].get(stream) for step in steps for stream in ("stdout", "stderr")} - {None, ""}
        results, expected = (_listed(env.evaluator.get(state)) for state in ("result", "expected"))
        if isinstance(env.metric, list):
            env.result_getter = [self._getter(get, results, i) for i, get in enumerate(env.result_getter)]
            env.expected_getter = [self._getter(get, expected, i) for i, get in enumerate(env.expected_getter)]
            env.metric = [self._metric(measure, i) for i, measure in enumerate(env.metric)]
        else:
            env.result_getter, env.expected_getter = (
                self._getter(env.result_getter, results, 0),
                self._getter(env.expected_getter, expected, 0),
            )
            env.metric = self._metric(env.metric, 0)

    def _getter(self, get: Any, configs: list[Any], index: int) -> Any:
        if get is None:
            return None
        config = configs[index] if index < len(configs) else None
        from_guest = isinstance(config, dict) and config.get("type") == "cache_file" and config.get("path") in self._written

        @functools.wraps(get)
        def got(*args: Any) -> Any:
            self._watch.looked = from_guest  # what a command printed was written into the cache before
            try:
                return get(*args)
            except FileNotFoundError as error:
                _judge(error, self._watch.looked, [])
                raise  # OSWorld's code scores it 0
            except Exception as error:  # noqa: BLE001 - it is not our code
                _judge(error, self._watch.looked, self._remarks)
                return UNREADABLE
            finally:
                self._watch.seal()
                self.seen[index] = self.seen.get(index, False) or self._watch.looked

        return got

    def _metric(self, measure: Any, index: int) -> Any:
        @functools.wraps(measure)
        def measured(*states: Any, **options: Any) -> float:
            if any(state is UNREADABLE for state in states):
                return 0.0
            try:
                with _limit(METRIC_SECONDS * self._watch.patience):
                    value = float(measure(*states, **options))
                if math.isnan(value):
                    raise ValueError("the metric says NaN")
                return value
            except Exception as error:  # noqa: BLE001 - it is not our code
                _judge(error, self.seen.get(index, False), self._remarks)
                return 0.0

        return measured


def _listed(configs: Any) -> list[Any]:
    return configs if isinstance(configs, list) else [configs]


def _judge(error: Exception, looked: bool, remarks: list[str]) -> None:
    """Raise it as the grader's, or note that it is a 0."""
    if not looked or machines_own(error):
        raise GraderFault(_told(error)) from error
    remarks.append(f"the evaluator raised {_told(error)} on what is in the guest")


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500]


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Raise :class:`TimeoutError` in the block when it takes longer."""
    if sys.platform == "win32":
        yield
        return

    def over(*_: Any) -> None:
        raise TimeoutError(f"the metric took more than {seconds:g} s")

    before: Callable[..., Any] | int | None = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

"""The update beside what comes next (ROSA App. E.3): while the weights are solved for, the task is reset for the next attempt and the
beginning of its first prompt is read.

Neither depends on the new weights: a reset is the task's own, and only the head is adapted, so that the keys and values of a prompt are
the same before and after.  The order of everything the backbone computes is the same with and without it, and so are all numbers.

The solve gets a thread of its own; the environment stays with its worker, because browsers and devices are bound to their thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from envs.base import Observation
from envs.errors import InfrastructureError
from policies.base import NO_PASSES, Passes

Made = TypeVar("Made")


@dataclass(frozen=True)
class Ready:
    """A task that has been reset for an attempt.

    Attributes:
        observation, info: As ``reset`` gave them.
        reset_seconds: What that took.
        reading_seconds, passes: What reading the prompt's beginning took; part of acting.
        early: It was made beside the update before.
    """

    observation: Observation
    info: dict[str, Any]
    reset_seconds: float
    reading_seconds: float = 0.0
    passes: Passes = NO_PASSES
    early: bool = False

    @property
    def seconds(self) -> float:
        return self.reset_seconds + self.reading_seconds


@dataclass(frozen=True)
class Solved(Generic[Made]):
    """What a solve gave, and what was made ready beside it.

    Attributes:
        made: Its result.
        ready: What was made ready, or why the machinery could not.
        waited: Seconds that the loop spent on nothing but the solve.
        hidden: Seconds of the solve that passed while something was made ready.
    """

    made: Made
    ready: Ready | InfrastructureError | None
    waited: float
    hidden: float


def beside(solve: Callable[[], Made], prepare: Callable[[], Ready] | None) -> Solved[Made]:
    """Run ``solve`` while ``prepare`` runs here; without it, just ``solve``.

    Raises:
        LabError: what ``solve`` raises, once ``prepare`` has ended.
    """
    started = time.perf_counter()
    if prepare is None:
        made = solve()
        return Solved(made, None, time.perf_counter() - started, 0.0)

    def timed() -> tuple[Made, float]:
        return solve(), time.perf_counter() - started

    ready: Ready | InfrastructureError
    with ThreadPoolExecutor(1, "update") as pool:
        future = pool.submit(timed)
        try:
            ready = prepare()
        except InfrastructureError as error:  # of the attempt that it was for
            ready = error
        there = time.perf_counter() - started
        made, took = future.result()
    return Solved(made, ready, max(0.0, took - there), min(took, there))

"""The guessing game as a benchmark whose environments take room on a node, and that can lack something there."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from guessing import Guessing, GuessingEnv, GuessingSuite

from envs import actions as act
from envs.base import TaskSpec, TaskSuite
from envs.errors import InfrastructureError, SetupError

HERE: list[Callable[[], str]] = [lambda: os.environ.get("PLACED_NODE", "")]
"""Says on which node this is running; of a stand-in's nodes, which share a process, another one is put here."""


class Machine:
    """What an environment waits for when an episode begins."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._given_up = seconds, threading.Event()

    def boot(self) -> None:
        if self._given_up.wait(self._seconds):
            raise InfrastructureError("The machine was given up while it booted.", component="table")

    def interrupt(self) -> None:
        self._given_up.set()


class PlacedEnv(GuessingEnv):
    """Writes a line into ``journal`` when an episode begins and when one ends, so that what was lost in between is known.

    Args:
        journal: A file; "" for none.
        seconds: How long a step takes.
        broken: The node on which no environment can be made.
        flaky: The node on which every episode breaks.
        boots: How long a machine takes to boot when an episode begins.
        machine: It; None where none is needed.
    """

    def __init__(
        self, *, journal: str = "", seconds: float = 0.0, broken: str = "", flaky: str = "", boots: float = 0.0,
        machine: Machine | None = None, tell: bool = True, oracle: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(tell=tell, oracle=oracle)
        if broken and broken == HERE[0]():
            raise SetupError("There is no table here.", "buy one")
        self._journal, self._seconds, self._flaky, self._machine = journal, seconds, flaky, machine

    def _note(self, what: str) -> None:
        if self._journal:
            with Path(self._journal).open("a") as file:
                file.write(f"{what} {self._target} {HERE[0]()}\n")

    def _start(self, task: TaskSpec) -> str:
        said = super()._start(task)
        self._note("begin")
        if self._machine is not None:
            self._machine.boot()
        return said

    def _execute(self, action: act.Action) -> None:
        time.sleep(self._seconds)
        if self._flaky and self._flaky == HERE[0]():
            raise InfrastructureError("The table broke.", "Take another.", component="table")
        super()._execute(action)

    def _grade(self, last: act.Action | None) -> float:
        self._note("end")
        return super()._grade(last)


class PlacedSuite(GuessingSuite):
    def instances(self, names: Any, seed: int) -> Iterator[TaskSpec]:
        import dataclasses

        return (dataclasses.replace(task, env_id="agentlab/placed-v0") for task in super().instances(names, seed))


class Placed(Guessing):
    """``agentlab run placed:Placed``."""

    name = "placed"
    environment = PlacedEnv
    place = "desktops"
    lacks: ClassVar[dict[str, str]] = {}
    """Node -> what it lacks."""

    def suite(self, part: str = "") -> TaskSuite:
        return PlacedSuite()

    @contextmanager
    def shared(self, options: dict[str, Any], run: str, workers: int) -> Iterator[dict[str, Any]]:
        yield {**options, "machine": Machine(options["boots"])} if options.get("boots") else options

    def places(self) -> int:
        return 3

    def unspreadable(self, options: Mapping[str, Any]) -> str:
        return "the table stands in the hall." if options.get("journal") == "hall" else ""

    def traits(self, options: Mapping[str, Any]) -> Mapping[str, str]:
        return {"table": "round" if HERE[0]() == "node-2" else "square"}

    def lacking(self, part: str, options: Mapping[str, Any]) -> Iterator[SetupError]:
        if HERE[0]() in self.lacks:
            yield SetupError(f"There is no {self.lacks[HERE[0]()]}.", "agentlab setup placed")

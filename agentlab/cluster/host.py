"""What runs on a node: an environment, with what it shares with nobody, behind one method that Ray calls."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from envs.actions import Action
from envs.base import Modality, TaskSpec
from envs.benchmark import interrupt
from envs.errors import LabError, UsageError
from envs.slot import EnvSlot
from envs.suites import machinery

ANSWER_SECONDS = 0.5
"""How long a call is waited for on the node before the driver is told that it goes on: the process then hears what else it is told."""


@dataclass(frozen=True)
class About:
    """What the driver is told of an environment when it has been made."""

    shows: frozenset[Modality]
    oracle_available: bool
    action_space: Any


@dataclass(frozen=True)
class Moment:
    """What ``reset`` or ``step`` returned, and the seconds that it took on the node.

    Attributes:
        action_space: The environment's, where it is another one than it was.
    """

    value: tuple[Any, ...]
    seconds: float
    action_space: Any = None


@dataclass(frozen=True)
class HostReply:
    """An answer; an error that is meant for a person travels as a value, so that it is here what it was there."""

    value: Any = None
    error: LabError | None = None


class Host:
    """An environment of the suite ``suite`` on this machine, for the run called ``run``.

    The environment has a thread of its own (browsers and devices are bound to theirs), so that while it boots a machine the process
    can be told that the run is being stopped.
    """

    def __init__(self, suite: str, options: Mapping[str, Any], run: str) -> None:
        self._suite, self._options, self._run = suite, dict(options), run
        self._open = ExitStack()
        self._shared: Mapping[str, Any] = {}
        self._slot: EnvSlot | None = None
        self._task: TaskSpec | None = None
        self._space: Any = None
        self._thread = ThreadPoolExecutor(1, "environment")
        self._answer: Future[HostReply] | None = None

    def call(self, method: str, *arguments: Any) -> HostReply | None:
        """Call one of the methods below, after whatever was called before; None where it goes on, and :meth:`more` asks again."""
        self._answer = self._thread.submit(self._called, method, *arguments)
        return self.more()

    def more(self) -> HostReply | None:
        """The answer of the last call; None while it goes on."""
        if self._answer is None:
            raise UsageError("Nothing was called.", "call() comes first.")
        done, _ = wait([self._answer], ANSWER_SECONDS)
        return self._answer.result() if done else None

    def interrupt(self) -> None:
        """The run is being stopped: what is waited for in the call that goes on is given up, which ends it."""
        interrupt(self._shared)

    def _called(self, method: str, *arguments: Any) -> HostReply:
        try:
            return HostReply(getattr(self, method)(*arguments))
        except LabError as error:
            return HostReply(error=error)

    def make(self, task: TaskSpec) -> About:
        """Make the environment of ``task``, with what it needs (containers, a browser, a grader).

        Raises:
            InfrastructureError, SetupError: it cannot be made.
        """
        if self._slot is None:
            shared = machinery(self._suite, self._options, run=self._run, workers=1)
            self._shared = self._open.enter_context(shared)
            self._slot = EnvSlot(self._shared)
        self._task = task
        env = self._slot.get(task)
        self._space = env.action_space
        return About(env.shows, env.oracle_available, env.action_space)

    def reset(self, seed: int | None, options: dict[str, Any] | None) -> Moment:
        """Start an attempt."""
        env = self._env()
        return self._moment(env.reset(seed=seed, options=options))

    def step(self, action: Action | tuple[Action, ...]) -> Moment:
        """One step of it."""
        return self._moment(self._env().step(action))

    def oracle(self) -> Any:
        """What the environment's expert would do now."""
        return self._env().oracle()

    def reference(self) -> Any:
        """The right answer, for a judge."""
        return self._env().reference()

    def objection(self) -> Any:
        """What a user says to an attempt that a judge has not accepted."""
        return self._env().objection()

    def close(self) -> None:
        """Release everything; may be called twice."""
        slot, self._slot = self._slot, None
        try:
            if slot is not None:
                slot.close()
        finally:
            self._open.close()

    def _env(self) -> Any:
        if self._slot is None or self._task is None:
            raise UsageError("This host has no environment.", "make() comes first.")
        return self._slot.get(self._task)

    def _moment(self, value: tuple[Any, ...]) -> Moment:
        env = self._env()
        changed, self._space = env.action_space is not self._space, env.action_space
        return Moment(value, env.seconds, env.action_space if changed else None)

"""A real desktop as a Gymnasium environment: ``gymnasium.make("agentlab/osworld-v0")``."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from envs import actions as act
from envs.base import GUIEnv, Observation, Screenshot, TaskSpec
from envs.errors import InfrastructureError, UsageError
from envs.osworld.operations import FOREIGN_PROGRAM, compile_action
from envs.osworld.providers import Guest, Provider, make_provider
from envs.spaces import AnyText

KINDS = (
    act.Click, act.DoubleClick, act.RightClick, act.Hover, act.LongPress, act.Drag, act.Type, act.Hotkey, act.Scroll, act.Wait,
    act.Finished, act.Fail,
)  # fmt: skip
REST_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Timing:
    """How long the desktop is given to settle, in seconds.

    Attributes:
        after_reset: Between setting a task up and the first picture.
        after_action: Between an action and the next picture; also what ``Wait`` waits in addition.
        before_grading: Between the last action and grading.
        until_rest: The times are limits, and the wait is over as soon as two pictures in a row are equal.
    """

    after_reset: float
    after_action: float
    before_grading: float
    until_rest: bool


OFFICIAL = Timing(after_reset=60.0, after_action=3.0, before_grading=20.0, until_rest=False)
"""As the official runner waits (osworld.md §4)."""
BRISK = Timing(after_reset=10.0, after_action=3.0, before_grading=5.0, until_rest=True)
"""For guests without animations and clocks, such as our own: the same limits, without waiting in vain."""


class Grader(Protocol):
    """Sets OSWorld tasks up and grades them (the official code, behind a process boundary)."""

    def prepare(self, task: Mapping[str, Any], guest: Guest) -> None:
        """Run the task's ``config`` steps."""

    def score(self, task: Mapping[str, Any], guest: Guest, last: act.Action | None) -> float:
        """Run ``postconfig`` and the evaluator; in [0, 1]."""

    def close(self) -> None:
        """End the process; can be called twice."""


class OSWorldEnv(GUIEnv):
    """A desktop from a provider; every reset brings a clean one.

    The task is OSWorld's own JSON in ``TaskSpec.options["task"]``; without one the desktop is free, the instruction is
    ``TaskSpec.options["instruction"]`` and every episode scores 0.

    Observation: ``screenshot`` [1080, 1920, 3] uint8 (or the size of ``screen``), with the pointer; with ``accessibility`` also
    ``accessibility_tree``, OSWorld's XML, which takes seconds.

    Args:
        provider: ``light``, ``HOST:PORT``, or a provider; one that is passed in is shared and not closed here.
        grader: What sets tasks up and grades them; needed for tasks with JSON.
        screen: (width, height) in pixels of the guest.
        timing: ``OFFICIAL``, ``BRISK``, or None: brisk on our own image and official elsewhere.
        accessibility: Add ``accessibility_tree`` to the observation.
        render_mode: ``rgb_array`` or None.
    """

    def __init__(
        self,
        *,
        provider: str | Provider = "light",
        grader: Grader | None = None,
        screen: tuple[int, int] = (1920, 1080),
        timing: Timing | None = None,
        accessibility: bool = False,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(width=screen[0], height=screen[1], kinds=KINDS, render_mode=render_mode)
        self._provider = make_provider(provider) if isinstance(provider, str) else provider
        self._owns_provider = isinstance(provider, str)
        self._timing = timing or (BRISK if self._provider.name == "light" else OFFICIAL)
        self._grader, self._accessibility = grader, accessibility
        self._screen = screen
        self._guest: Guest | None = None
        if accessibility:
            assert isinstance(self.observation_space, gym.spaces.Dict)
            self.observation_space["accessibility_tree"] = AnyText()

    # -- hooks of GUIEnv ---------------------------------------------------------------------------------------------------------
    def _default_task(self, seed: int) -> TaskSpec:
        options = {"instruction": "Use the desktop."}
        return TaskSpec(env_id="agentlab/osworld-v0", name="free-desktop", seed=seed, max_steps=15, options=options)

    def _start(self, task: TaskSpec) -> str:
        self._release()
        job = task.options.get("task")
        if job is not None and self._grader is None:
            raise UsageError(f"The task {task.name} is set up and graded by OSWorld's code.", "Pass grader= to the environment.")
        self._guest = self._provider.acquire()
        with self._blaming() as guest:
            found, expected = guest.client.screen_size(), self._screen
            if found != expected:
                raise UsageError(f"The guest's screen is {found[0]}x{found[1]}.", f"Make the environment with screen={found}.")
            if job is not None and self._grader is not None:
                self._grader.prepare(job, guest)
            self._settle(guest, self._timing.after_reset)
        return str(job["instruction"] if job is not None else task.options.get("instruction", ""))

    def _execute(self, action: act.Action) -> None:
        with self._blaming() as guest:
            if isinstance(action, act.Wait):
                time.sleep(self._timing.after_action)
            else:
                operations = compile_action(action)
                if guest.client.takes_operations():
                    guest.client.operate(operations)
                else:
                    self._operate_foreign(guest, operations)
            self._settle(guest, self._timing.after_action)

    def _observe(self) -> Observation:
        with self._blaming() as guest:
            observation = Observation(screenshot=self._picture(guest))
            if self._accessibility:
                observation["accessibility_tree"] = guest.client.accessibility_tree()
            return observation

    def _grade(self, last: act.Action | None) -> float:
        assert self._task is not None
        job = self._task.options.get("task")
        if job is None or self._grader is None:
            return 0.0
        with self._blaming() as guest:
            self._settle(guest, self._timing.before_grading)
            return self._grader.score(job, guest, last)

    def close(self) -> None:
        self._release()
        if self._owns_provider:
            self._provider.close()

    # -- details -----------------------------------------------------------------------------------------------------------------
    @property
    def guest(self) -> Guest | None:
        """The desktop of the current episode."""
        return self._guest

    def _release(self) -> None:
        guest, self._guest = self._guest, None
        if guest is not None:
            self._provider.release(guest)

    def _picture(self, guest: Guest) -> Screenshot:
        picture = guest.client.screenshot()
        height, width = picture.shape[:2]
        if (width, height) != self._screen:
            raise InfrastructureError(f"The guest's screen has become {width}x{height}.", component="guest")
        return picture

    def _settle(self, guest: Guest, limit: float) -> None:
        if not self._timing.until_rest:
            time.sleep(limit)
            return
        until = time.monotonic() + limit
        before = self._picture(guest)
        while time.monotonic() < until:
            time.sleep(REST_POLL_SECONDS)
            now = self._picture(guest)
            if np.array_equal(before, now):
                return
            before = now

    def _operate_foreign(self, guest: Guest, operations: list[dict[str, Any]]) -> None:
        program = FOREIGN_PROGRAM.read_text(encoding="utf-8")
        done = guest.client.execute(["python", "-c", program, json.dumps(operations)])
        if done.returncode != 0:
            raise InfrastructureError(f"The guest could not perform an action: {done.error.strip()[-300:]}", component="guest")

    @contextmanager
    def _blaming(self) -> Iterator[Guest]:
        """The guest; failures in the block say what became of its container."""
        if self._guest is None:
            raise InfrastructureError("There is no guest; the last reset failed.", "Call reset() again.", component="guest")
        try:
            yield self._guest
        except InfrastructureError as error:
            raise self._provider.explain(self._guest, error) from error

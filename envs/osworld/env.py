"""A real desktop as a Gymnasium environment: ``gymnasium.make("agentlab/osworld-v0")``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import gymnasium as gym
import numpy as np

from envs import actions as act
from envs.base import MAX_TREE, Observation, Screenshot, TaskSpec
from envs.errors import InfrastructureError, UsageError, did_you_mean
from envs.gui import GUIEnv, Rectangle
from envs.osworld import jobs
from envs.osworld.grading import OfficialGrader
from envs.osworld.machinery import NAMES, make_provider, proxies_of
from envs.osworld.operations import Held, Operation, compile_action, foreign_command
from envs.osworld.providers import Guest, Provider
from envs.osworld.suite import ENV_ID, MAX_STEPS, REFUSED
from envs.spaces import AnyText

KINDS = (
    act.Click, act.DoubleClick, act.TripleClick, act.RightClick, act.MiddleClick, act.Hover, act.LongPress, act.Drag, act.MouseDown,
    act.MouseUp, act.Type, act.Hotkey, act.KeyDown, act.KeyUp, act.Scroll, act.Wait, act.Finished, act.Fail,
)  # fmt: skip
REST_POLL_SECONDS = 0.2
MOST_WAIT_SECONDS = 60.0
"""A longer wait that the agent asks for is cut to this."""


@dataclass(frozen=True)
class Timing:
    """How long the desktop is given to settle, in seconds.

    Attributes:
        after_reset: Between setting a task up and the first picture.
        after_action: Between an action and the next picture.
        before_grading: Between the last action and grading.
        until_rest: The times are limits, and the wait is over as soon as the desktop is at rest: no program has anything to do, or,
            where the guest cannot tell, two pictures in a row are equal.
        wait: What the action ``Wait`` waits in addition.
    """

    after_reset: float
    after_action: float
    before_grading: float
    until_rest: bool
    wait: float = 3.0


OFFICIAL = Timing(after_reset=60.0, after_action=3.0, before_grading=20.0, until_rest=False)
"""As the official runner waits (osworld.md §4)."""
BRISK = Timing(after_reset=60.0, after_action=15.0, before_grading=20.0, until_rest=True)
"""For guests without animations and clocks, such as our own: waits as long as a busy machine needs, and no longer."""
TIMINGS = {"official": OFFICIAL, "brisk": BRISK}
CLOCK = (240, 32)
"""Width and height of GNOME's clock with its notification mark, in the middle of the bar on top."""


class Grader(Protocol):
    """Sets OSWorld tasks up and grades them (the official code, behind a process boundary)."""

    def prepare(self, task: Mapping[str, Any], guest: Guest) -> None:
        """Run the task's ``config`` steps."""

    def score(self, task: Mapping[str, Any], guest: Guest, last: act.Action | None) -> float:
        """Run ``postconfig`` and the evaluator; in [0, 1]."""

    def forget(self, guest: Guest) -> None:
        """The guest's episode is over, graded or not."""

    def close(self) -> None:
        """End the process; can be called twice."""


class OSWorldEnv(GUIEnv):
    """A desktop from a provider; every reset brings a clean one.

    The task is OSWorld's own JSON in ``TaskSpec.options["task"]``; without one the desktop is free, the instruction is
    ``TaskSpec.options["instruction"]`` and every episode scores 0.

    Observation: ``screenshot`` [1080, 1920, 3] uint8 (or the size of ``screen``), with the pointer; with ``accessibility`` also
    ``accessibility_tree``, OSWorld's XML, which takes seconds.

    Args:
        provider: ``light``, ``official``, ``address:HOST:PORT``, or a provider; one that is passed in is shared and not closed here.
        grader: What sets tasks up and grades them; one that is passed in is shared and not closed here.  None is the official one,
            started with the first task that has JSON.
        screen: (width, height) in pixels of the guest.
        timing: ``official``, ``brisk``, a :class:`Timing`, or None: brisk on our own image and official elsewhere.
        accessibility: Add ``accessibility_tree`` to the observation.
        last_step_fail: As the official UI-TARS runner does, take the last reply that the budget allows for FAIL, unexecuted, unless
            it finishes, fails or waits.  A feasible task that was solved but not declared so is then lost, an infeasible one won.
        run_agent_code: Also run tasks whose metric imports a program that the agent has changed, here on the host.
        oracle: Let :meth:`oracle` play the recorded solution; tasks without one are refused.
        disk: Of the official virtual machine (``OfficialProvider``).
        ram, cores: Of the official virtual machine, or at most of one light desktop; None is what each needs.
        password: Of the user of a guest that is running already.
        spares: Booted desktops that wait, for a fast reset; None is one light desktop, and no virtual machine.
        proxy: File with proxies for tasks that ask for one, in OSWorld's format (``PROXY_CONFIG_FILE``); None leaves them without.
        render_mode: ``rgb_array`` or None.
    """

    choices: ClassVar[dict[str, tuple[str, ...]]] = {"provider": NAMES, "timing": tuple(TIMINGS)}
    withheld = ("run_agent_code", "spares", "cores", "ram", "proxy")

    def __init__(
        self,
        *,
        provider: str | Provider = "light",
        grader: Grader | None = None,
        screen: tuple[int, int] = (1920, 1080),
        timing: Timing | str | None = None,
        accessibility: bool = False,
        last_step_fail: bool = False,
        run_agent_code: bool = False,
        oracle: bool = False,
        disk: str | None = None,
        ram: str | None = None,
        cores: int | None = None,
        password: str = "password",
        spares: int | None = None,
        proxy: str | None = None,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(width=screen[0], height=screen[1], kinds=KINDS, render_mode=render_mode)
        self._timing = _timing(timing)
        settings: dict[str, Any] = {
            "screen": (screen[0], screen[1]),
            "disk": disk,
            "ram": ram,
            "cores": cores,
            "password": password,
            "spares": spares,
        }
        self._provider = make_provider(provider, **settings) if isinstance(provider, str) else provider
        self._owns_provider, self._owns_grader = isinstance(provider, str), grader is None
        self._grader, self._accessibility = grader, accessibility
        self._last_step_fail, self._run_agent_code, self._use_oracle = last_step_fail, run_agent_code, oracle
        self._screen = (screen[0], screen[1])
        self._proxies = proxies_of(proxy)
        self._guest: Guest | None = None
        self._held = Held()
        self.oracle_available = oracle
        if accessibility:
            assert isinstance(self.observation_space, gym.spaces.Dict)
            self.observation_space["accessibility_tree"] = AnyText(MAX_TREE)

    # -- hooks of GUIEnv ---------------------------------------------------------------------------------------------------------
    def _default_task(self, seed: int) -> TaskSpec:
        options = {"instruction": "Use the desktop."}
        return TaskSpec(env_id=ENV_ID, name="free-desktop", seed=seed, max_steps=MAX_STEPS, options=options)

    def _start(self, task: TaskSpec) -> str:
        self._release()
        job = task.options.get("task")
        if job is not None:
            self._check(task.name, job)
        self._guest = self._provider.acquire()
        with self._blaming() as guest:
            found, expected = guest.client.screen_size(), self._screen
            if found != expected:
                raise UsageError(
                    f"The guest's screen is {found[0]}x{found[1]}.",
                    f"Say --set osworld.screen=[{found[0]},{found[1]}], or screen={found}.",
                )
            if job is not None:
                self._official().prepare(job, guest)
            self._settle(guest, self._settling.after_reset)
        return str(job["instruction"] if job is not None else task.options.get("instruction", ""))

    def _check(self, name: str, job: jobs.Job) -> None:
        if jobs.RUNS_AGENT_CODE & set(jobs.functions(job)) and not self._run_agent_code:
            raise UsageError(f"The task {name} is refused: {REFUSED}.")
        if self._use_oracle and not jobs.oracle(job):
            raise UsageError(f"The task {name} has no recorded solution.", "The scripted policy plays those of --suite light.")
        self._provider.require(name, job)

    def _official(self) -> Grader:
        if self._grader is None:
            self._grader = OfficialGrader(proxies=self._proxies)
        return self._grader

    def step(self, action: act.Action | tuple[act.Action, ...]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """As every environment; with ``last_step_fail`` the last reply counts as the official UI-TARS runner counts it."""
        if self._last_step_fail and self._task is not None and self._steps + 1 >= self._task.max_steps:
            said = action if isinstance(action, tuple) else (action,)
            if not any(isinstance(one, act.Finished | act.Fail | act.Wait) for one in said):
                action = act.Fail("the budget is used up")
        return super().step(action)

    def oracle(self) -> tuple[str, tuple[act.Action, ...]] | None:
        """The next step of the task's recorded solution, whatever the screen shows; None after the last."""
        job = self._task.options.get("task") if self._task is not None else None
        if not self._use_oracle or job is None:
            return None
        recorded = jobs.oracle(job)
        return (f"Step {self._steps + 1} of the recorded solution.", recorded[self._steps]) if self._steps < len(recorded) else None

    def _execute(self, action: act.Action) -> None:
        with self._blaming() as guest:
            if isinstance(action, act.Wait):
                time.sleep(self._settling.wait if action.seconds is None else min(action.seconds, MOST_WAIT_SECONDS))
            else:
                self._operate(guest, compile_action(action))
            self._settle(guest, self._settling.after_action)

    def _observe(self) -> Observation:
        with self._blaming() as guest:
            observation = Observation(screenshot=self._picture(guest))
            if self._accessibility:
                observation["accessibility_tree"] = guest.client.accessibility_tree()
            return observation

    def _grade(self, last: act.Action | None) -> float:
        assert self._task is not None
        job = self._task.options.get("task")
        if job is None:
            return 0.0
        with self._blaming() as guest:
            self._settle(guest, self._settling.before_grading)
            return self._official().score(job, guest, last)

    def restless(self) -> tuple[Rectangle, ...]:
        """GNOME's clock; our own desktop has none."""
        width, height = CLOCK
        return () if self._provider.name == "light" else (((self._screen[0] - width) // 2, 0, width, height),)

    def close(self) -> None:
        self._release()
        if self._owns_provider:
            self._provider.close()
        if self._owns_grader and self._grader is not None:
            self._grader.close()

    # -- details -----------------------------------------------------------------------------------------------------------------
    @property
    def guest(self) -> Guest | None:
        """The desktop of the current episode."""
        return self._guest

    @property
    def _settling(self) -> Timing:
        return self._timing or (BRISK if self._provider.name == "light" else OFFICIAL)

    def _release(self) -> None:
        guest, self._guest = self._guest, None
        if guest is None:
            return
        held = self._held.release()
        if held and not self._provider.clean:  # the next attempt gets this very desktop
            with contextlib.suppress(InfrastructureError):  # it may be gone
                self._operate(guest, held)
        if self._grader is not None:
            self._grader.forget(guest)
        self._provider.release(guest)

    def _picture(self, guest: Guest) -> Screenshot:
        picture = guest.client.screenshot()
        height, width = picture.shape[:2]
        if (width, height) != self._screen:
            raise InfrastructureError(f"The guest's screen has become {width}x{height}.", component="guest")
        return picture

    def _settle(self, guest: Guest, limit: float) -> None:
        if not self._settling.until_rest:
            time.sleep(limit)
            return
        until = time.monotonic() + limit
        if guest.client.wait_for_rest(limit) is not None:
            return
        before = self._picture(guest)
        while time.monotonic() < until:
            time.sleep(REST_POLL_SECONDS)
            now = self._picture(guest)
            if np.array_equal(before, now):
                return
            before = now

    def _operate(self, guest: Guest, operations: list[Operation]) -> None:
        pressing = [operation for operation in operations if operation["op"] in ("hold", "press")]
        for operation in pressing:
            self._held.note(operation)  # before: what fails may have done half of it
        if guest.client.takes_operations():
            guest.client.operate(operations)
        else:
            self._operate_foreign(guest, operations)
        for operation in operations:
            self._held.note(operation)

    def _operate_foreign(self, guest: Guest, operations: list[Operation]) -> None:
        done = guest.client.execute(foreign_command(operations))
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


def _timing(wanted: Timing | str | None) -> Timing | None:
    if not isinstance(wanted, str):
        return wanted
    if wanted not in TIMINGS:
        raise UsageError(f"There is no timing {wanted!r}.", did_you_mean(wanted, TIMINGS, what="timing"))
    return TIMINGS[wanted]

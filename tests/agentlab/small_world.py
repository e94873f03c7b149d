"""A real GUIEnv and a real Policy, both tiny, for tests of the attempt loop: the machinery breaks, and learning works, on cue."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from envs import actions as act
from envs.base import Observation, TaskSpec
from envs.errors import AdaptationError, InfrastructureError, StoreError
from envs.gui import GUIEnv
from policies.base import Decision, Policy, PolicySession, Update

ENV_ID = "agentlab-tests/door-v0"


class DoorEnv(GUIEnv):
    """Doors in a row; click door ``seed % 8``, then say finished.  ``faults`` breaks episodes in the order they are made."""

    faults: ClassVar[list[str]] = []
    """For each coming episode: "" or where it breaks: start, execute, observe, grade."""
    opened: ClassVar[int] = 0
    closed: ClassVar[int] = 0

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(width=80, height=10, kinds=(act.Click, act.Wait, act.Finished, act.Fail), render_mode=render_mode)
        type(self).opened += 1
        self._fault, self._door = "", -1
        self._closed = False

    def _break(self, where: str) -> None:
        if self._fault == where:
            raise InfrastructureError(f"The door broke in {where}.", component="door")

    def _start(self, task: TaskSpec) -> str:
        self._fault = type(self).faults.pop(0) if type(self).faults else ""
        self._break("start")
        self._target, self._door = task.seed % 8, -1
        return f"Open door {self._target}"

    def _execute(self, action: act.Action) -> None:
        self._break("execute")
        if isinstance(action, act.Click):
            self._door = int(action.x // 10)

    def _observe(self) -> Observation:
        self._break("observe")
        screen = np.zeros((10, 80, 3), np.uint8)
        if self._door >= 0:
            screen[:, self._door * 10 : self._door * 10 + 10] = 255
        return {"screenshot": screen}

    def _grade(self, last: act.Action | None) -> float:
        self._break("grade")
        return float(self._door == self._target)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            type(self).closed += 1


def door(seed: int, max_steps: int = 3) -> TaskSpec:
    return TaskSpec(ENV_ID, "door", seed, max_steps, domain="doors")


class DoorPolicy(Policy):
    """Tries door 0 first; every update moves on to the next door.  Guidance "door N" sends it to door N."""

    name = "doors"
    adaptable = True

    def __init__(self, *, adapts: bool = True, fails: Sequence[str] = ()) -> None:
        self.adapts, self.fails = adapts, fails
        self.sessions: list[DoorSession] = []

    def open(self, task: TaskSpec, *, seed: int, adapt: Any = None) -> DoorSession:
        session = DoorSession(self, seed)
        self.sessions.append(session)
        return session


class DoorSession(PolicySession):
    def __init__(self, policy: DoorPolicy, seed: int) -> None:
        self.policy, self.seed = policy, seed
        self.theta = self.acted = self.discarded = 0
        self.rewards: list[list[float]] = []
        self.recalled: list[list[tuple[act.Action, ...]]] = []
        self.closed = False

    def begin(self, instruction: str, *, guidance: str = "", attempt: int = 1) -> None:
        self.acted = 0
        self.door = int(guidance.split()[-1]) if guidance else self.theta

    def act(self, observation: Observation) -> Decision:
        self.acted += 1
        if self.acted == 1:
            return Decision(
                f"door {self.door}", (act.Click(self.door * 10.0 + 5, 5.0),), action_text="click", tokens=2, seconds=0.01
            )
        return Decision("done", (act.Finished(),), action_text="finished", tokens=1, seconds=0.01)

    def adapt(self, rewards: Sequence[float], *, refined: str | None = None) -> Update | None:
        if not self.policy.adapts:
            return None
        if "adapt" in self.policy.fails:
            raise AdaptationError("NaN in the update.")
        self.rewards.append(list(rewards))
        self.theta += 1
        return Update("next-door", True, 0.001, {"delta_norm2": 1.0})

    def recall(self, steps: Sequence[tuple[Observation, tuple[act.Action, ...]]]) -> None:
        self.recalled.append([actions for _, actions in steps])

    def discard(self) -> None:
        self.discarded += 1

    def save_adapter(self, folder: Path) -> bool:
        (folder / "adapter.json").write_text(json.dumps({"theta": self.theta}))
        return True

    def load_adapter(self, folder: Path) -> None:
        if "load" in self.policy.fails:
            raise StoreError("The adapter does not fit.")
        self.theta = json.loads((folder / "adapter.json").read_text())["theta"]

    def close(self) -> None:
        self.closed = True


if ENV_ID not in gym.registry:
    gym.register(ENV_ID, entry_point=DoorEnv, disable_env_checker=True, order_enforce=False)

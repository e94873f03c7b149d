"""Policies without a model: the floor (``noop``, ``random``) and the ceiling (``scripted``) of a benchmark."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from envs import actions as act
from envs.actions import Action
from envs.base import ActionSpace, Observation, TaskSpec
from envs.errors import UsageError
from policies.base import Decision, Policy, PolicySession
from policies.sampling import seed_of

Oracle = Callable[[], tuple[str, tuple[Action, ...]] | None]

RANDOM_KINDS = (act.Click, act.DoubleClick, act.RightClick, act.Hover, act.Drag, act.Type, act.Hotkey, act.Scroll, act.Wait)


class ScriptedPolicy(Policy):
    """``noop`` waits, ``random`` draws actions uniformly, ``scripted`` follows the environment's own expert."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.needs_oracle = name == "scripted"

    def open(self, task: TaskSpec, *, seed: int, adapt: Any = None) -> ScriptedSession:
        if adapt is not None and getattr(adapt, "method", "") != "none":
            raise UsageError(f"The policy {self.name!r} has no weights to adapt.", "Use --adapt none, or a policy with weights.")
        kinds = {"noop": NoopSession, "random": RandomSession, "scripted": ScriptedSession}
        return kinds[self.name](task, seed)


class ScriptedSession(PolicySession):
    """Follows ``oracle``, which whoever owns the environment sets after ``open``; done when the oracle has nothing more to do."""

    def __init__(self, task: TaskSpec, seed: int) -> None:
        self.task, self.seed = task, seed
        self.oracle: Oracle | None = None
        self.attempt = self.step = 0

    def begin(self, instruction: str, *, guidance: str = "", attempt: int = 1) -> None:
        self.attempt, self.step = attempt, 0

    def act(self, observation: Observation) -> Decision:
        started = time.perf_counter()
        thought, actions = self._choose(observation)
        self.step += 1
        action_text = "; ".join(act.describe(action) for action in actions)
        text = f"Thought: {thought}\nAction: {action_text}"
        return Decision(text, actions, thought=thought, action_text=action_text, seconds=time.perf_counter() - started)

    def _choose(self, observation: Observation) -> tuple[str, tuple[Action, ...]]:
        if self.oracle is None:
            raise UsageError(
                "The scripted policy has no expert for this environment.", "Use a MiniWoB++ task that has one, or another policy."
            )
        return self.oracle() or ("Nothing is left to do.", (act.Finished(),))


class NoopSession(ScriptedSession):
    """Waits until the step budget is used up."""

    def _choose(self, observation: Observation) -> tuple[str, tuple[Action, ...]]:
        return "", (act.Wait(),)


class RandomSession(ScriptedSession):
    """Draws one action per step, its kind and place uniform; the same seed, task, attempt and step give the same action."""

    def _choose(self, observation: Observation) -> tuple[str, tuple[Action, ...]]:
        height, width = observation["screenshot"].shape[:2]
        space = ActionSpace(RANDOM_KINDS, width, height)
        space.seed(seed_of(self.seed, self.task.id, self.attempt, self.step))
        return "", (space.sample(),)

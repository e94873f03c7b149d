"""Policies without a model: the floor (``noop``, ``random``) and the ceiling (``scripted``) of a benchmark."""

from __future__ import annotations

import abc
import copy
import time
from typing import Any

import gymnasium as gym

from envs import actions as act
from envs.actions import Action
from envs.base import Environment, Observation, TaskSpec, picture
from envs.errors import UsageError
from envs.spaces import ScreenActionSpace
from policies.base import Decision, Policy, PolicySession
from policies.sampling import seed_of

RANDOM_KINDS = (act.Click, act.DoubleClick, act.RightClick, act.Hover, act.Drag, act.Type, act.Hotkey, act.Scroll, act.Wait)


class ReferencePolicy(Policy):
    """``noop`` waits, ``random`` draws actions uniformly, ``scripted`` follows the environment's own expert."""

    needs = frozenset()

    def __init__(self, name: str) -> None:
        self.name = name
        self.env_options = {"oracle": True} if name == "scripted" else {}

    def open(self, task: TaskSpec, *, seed: int, adapt: Any = None) -> ReferenceSession:
        if adapt is not None and getattr(adapt, "method", "") != "none":
            raise UsageError(f"The policy {self.name!r} has no weights to adapt.", "Use --adapt none, or a policy with weights.")
        kinds: dict[str, type[ReferenceSession]] = {"noop": NoopSession, "random": RandomSession, "scripted": ScriptedSession}
        return kinds[self.name](task, seed)


class ReferenceSession(PolicySession):
    """What the three have in common: a reply is made of a thought and actions, and is not parsed."""

    def __init__(self, task: TaskSpec, seed: int) -> None:
        self.task, self.seed = task, seed
        self.env: Environment | None = None
        self.attempt = self.step = 0

    def meet(self, env: Environment) -> None:
        self.env = env

    def begin(self, instruction: str, *, guidance: str = "", attempt: int = 1) -> None:
        self.attempt, self.step = attempt, 0

    def act(self, observation: Observation) -> Decision:
        started = time.perf_counter()
        thought, actions = self._choose(observation)
        self.step += 1
        action_text = "; ".join(act.describe(action) for action in actions)
        text = f"Thought: {thought}\nAction: {action_text}"
        return Decision(text, actions, thought=thought, action_text=action_text, seconds=time.perf_counter() - started)

    @abc.abstractmethod
    def _choose(self, observation: Observation) -> tuple[str, tuple[Action, ...]]:
        """(thought, actions) of the next reply."""


class ScriptedSession(ReferenceSession):
    """Follows the expert of the environment that it has met; done when the expert has nothing more to do."""

    def _choose(self, observation: Observation) -> tuple[str, tuple[Action, ...]]:
        if self.env is None:
            raise UsageError("The scripted policy has not met an environment.", "Call meet(env) before begin().")
        if not self.env.oracle_available:
            raise UsageError(
                "The scripted policy has no expert for this environment.", "Use a benchmark that has one, or another policy."
            )
        return self.env.oracle() or ("Nothing is left to do.", (act.Finished(),))


class NoopSession(ReferenceSession):
    """Waits until the step budget is used up; without a screen, gives an empty answer."""

    def _choose(self, observation: Observation) -> tuple[str, tuple[Action, ...]]:
        return "", (act.Wait() if "screenshot" in observation else act.Answer(""),)


class RandomSession(ReferenceSession):
    """Draws one action per step, its kind and place uniform; the same seed, task, attempt and step give the same action."""

    def _choose(self, observation: Observation) -> tuple[str, tuple[Action, ...]]:
        space: gym.Space[Any]
        if "screenshot" in observation:
            height, width = picture(observation).shape[:2]
            space = ScreenActionSpace(RANDOM_KINDS, width, height)
        elif self.env is not None:
            space = copy.deepcopy(self.env.action_space)  # its random numbers are the environment's own
        else:
            raise UsageError("Without a picture the random policy must know what can be done.", "Call meet(env) before begin().")
        space.seed(seed_of(self.seed, self.task.id, self.attempt, self.step))
        return "", (space.sample(),)

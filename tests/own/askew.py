"""Benchmarks that are not what they should be: ``agentlab run askew:Twice``, and ``askew:Plain``, which has no expert."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from envs import actions as act
from envs.base import Observation, TaskSpec, TaskSuite
from envs.benchmark import Benchmark
from envs.text import TextEnv


class PlainEnv(TextEnv):
    """Takes one answer; ``score`` is what its grader gives."""

    score: ClassVar[Any] = 0.0

    def _start(self, task: TaskSpec) -> str:
        self._answered = False
        return "Say something."

    def _execute(self, action: act.Action) -> None:
        self._answered = True

    def _observe(self) -> Observation:
        return {"text": "…"}

    def _ended(self) -> bool:
        return self._answered

    def _grade(self, last: act.Action | None) -> float:
        score: float = self.score
        return score


class AnySuite(TaskSuite):
    """Tasks called so, in that order."""

    name = "any"

    def __init__(self, env_id: str, names: Sequence[str]) -> None:
        self._env_id, self._names = env_id, list(names)

    def task_names(self) -> list[str]:
        return self._names

    def instances(self, names: Sequence[str] | None, seed: int) -> Iterator[TaskSpec]:
        return (TaskSpec(self._env_id, name, seed, max_steps=1) for name in names or self._names)


class Plain(Benchmark):
    """Nothing is wrong with it, but that it has no expert."""

    name = "plain"
    summary = "Say something."
    environment = PlainEnv

    def suite(self, part: str = "") -> TaskSuite:
        return AnySuite(self.env_id, ["a", "b"])


class Twice(Plain):
    """Has one task twice."""

    name = "twice"

    def suite(self, part: str = "") -> TaskSuite:
        return AnySuite(self.env_id, ["a", "b", "a"])

"""A benchmark of your own: guess a number, in words only.

In this folder: ``agentlab run own_benchmark:Guess --policy own_policy:Halving --adapt textgrad --attempts 5``
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

from envs import actions as act
from envs.base import Observation, TaskSpec, TaskSuite
from envs.benchmark import Benchmark
from envs.errors import InvalidActionError, UsageError, did_you_mean
from envs.text import TextEnv

SIZES = {"small": 20, "large": 100}


class GuessEnv(TextEnv):
    """Thinks of a number and says whether a guess is too low or too high; the score is 1 if it was guessed."""

    def _start(self, task: TaskSpec) -> str:
        size = SIZES[task.name]
        self._number = random.Random(task.seed).randint(1, size)  # the same at every attempt
        self._guess: int | None = None
        return f"I am thinking of a number between 1 and {size}. Guess it."

    def _execute(self, action: act.Action) -> None:
        assert isinstance(action, act.Answer)
        if not action.text.strip().isdecimal():
            raise InvalidActionError(f"{action.text!r} is not a number.")
        self._guess = int(action.text)

    def _observe(self) -> Observation:
        if self._guess is None:
            return {"text": "What is your guess?"}
        said = "too low" if self._guess < self._number else "too high" if self._guess > self._number else "right"
        return {"text": f"{self._guess} is {said}."}

    def _ended(self) -> bool:
        return self._guess == self._number

    def _grade(self, last: act.Action | None) -> float:
        return float(self._guess == self._number)


class GuessSuite(TaskSuite):
    """Numbers without end, drawn from the run's seed."""

    name = "guess"

    def task_names(self) -> list[str]:
        return list(SIZES)

    def instances(self, names: Sequence[str] | None, seed: int) -> Iterator[TaskSpec]:
        for name in names or ():
            if name not in SIZES:
                raise UsageError(f"There is no task {name!r}.", did_you_mean(name, SIZES, what="task"))
        rounds = itertools.count(1000 * seed)
        return (TaskSpec(Guess().env_id, name, number, max_steps=3) for number in rounds for name in names or SIZES)


class Guess(Benchmark):
    """What the house asks of a benchmark; all that is not said here has a default."""

    name = "guess"
    summary = "Guess a number, three guesses an attempt"
    environment = GuessEnv

    def suite(self, part: str = "") -> TaskSuite:
        return GuessSuite()

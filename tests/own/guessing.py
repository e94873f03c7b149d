"""A text-only benchmark, whole: guess a number from 1 to 100 in a few turns; no screen anywhere."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import gymnasium as gym

from envs import actions as act
from envs.base import Observation, TaskSpec, TaskSuite
from envs.benchmark import Benchmark
from envs.errors import InfrastructureError, InvalidActionError
from envs.text import TextEnv
from policies.base import Decision, PastAttempt, Policy, PolicySession

ENV_ID = "agentlab/guessing-v0"


class GuessingEnv(TextEnv):
    """Every guess is answered by "too small" or "too large"; a right one ends the episode."""

    faults: ClassVar[list[str]] = []
    """For each coming episode: "" or where it breaks: start, execute."""

    def __init__(self, *, oracle: bool = False, tell: bool = True, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.oracle_available, self._tell = oracle, tell
        self._target, self._guesses, self._fault = 0, list[int](), ""

    def _default_task(self, seed: int) -> TaskSpec:
        return guessing(seed)

    def _break(self, where: str) -> None:
        if self._fault == where:
            raise InfrastructureError(f"The table broke in {where}.", component="table")

    def _start(self, task: TaskSpec) -> str:
        self._fault = type(self).faults.pop(0) if type(self).faults else ""
        self._break("start")
        self._target, self._guesses = task.seed * 37 % 100 + 1, []
        return "Guess the number from 1 to 100."

    def _execute(self, action: act.Action) -> None:
        self._break("execute")
        if not isinstance(action, act.Answer) or not action.text.strip().isdecimal():
            raise InvalidActionError("Only whole numbers are guesses.")
        self._guesses.append(int(action.text))

    def _observe(self) -> Observation:
        return {"text": "\n".join(["Your guesses so far:", *(f"{guess}: {self._judge(guess)}" for guess in self._guesses)])}

    def _judge(self, guess: int) -> str:
        if guess == self._target:
            return "right"
        return ("too small" if guess < self._target else "too large") if self._tell else "wrong"

    def _ended(self) -> bool:
        return self._target in self._guesses

    def _grade(self, last: act.Action | None) -> float:
        return float(self._ended())

    def _feedback(self, score: float | None) -> str:
        return (
            f"My number is not {self._guesses[-1]}: that is {self._judge(self._guesses[-1])}."
            if score == 0 and self._guesses
            else ""
        )

    def oracle(self) -> tuple[str, tuple[act.Action, ...]] | None:
        return None if self._ended() else ("I know it.", (act.Answer(str(self._target)),))


def guessing(seed: int, max_steps: int = 3) -> TaskSpec:
    return TaskSpec(ENV_ID, "guess", seed, max_steps, domain="games")


if ENV_ID not in gym.registry:
    gym.register(ENV_ID, entry_point=GuessingEnv, disable_env_checker=True, order_enforce=False)


class GuessingSuite(TaskSuite):
    """The instances of one game, seed by seed."""

    name = "guessing"
    default_limit = 5

    def task_names(self) -> list[str]:
        return ["guess"]

    def instances(self, names: Sequence[str] | None, seed: int) -> Iterator[TaskSpec]:
        return (guessing(seed + number) for number in itertools.count())


class Guessing(Benchmark):
    """The benchmark: ``agentlab run guessing:Guessing``."""

    name = "guessing"
    summary = "Guess a number from 1 to 100."
    environment = GuessingEnv

    def suite(self, part: str = "") -> TaskSuite:
        return GuessingSuite()


class Guesser(Policy):
    """Halves what is left, as far as it has read or been told; ``--policy guessing:Guesser``.

    Args:
        seconds: How long it thinks over every reply.
    """

    name = "guesser"
    needs = frozenset({"text"})
    converses = True

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def open(self, task: TaskSpec, *, seed: int, adapt: Any = None) -> PolicySession:
        return GuesserSession(self.seconds)


class GuesserSession(PolicySession):
    def __init__(self, seconds: float) -> None:
        self.seconds, self.told = seconds, ""
        self.history: Sequence[PastAttempt] = ()

    def converse(self, history: Sequence[PastAttempt]) -> None:
        self.history = history

    def begin(self, instruction: str, *, guidance: str = "", attempt: int = 1) -> None:
        said = [f"{observation['text']}\n{past.feedback}" for past in self.history for observation, _ in past.turns]
        self.told = "\n".join([guidance, *said])

    def act(self, observation: Observation) -> Decision:
        time.sleep(self.seconds)
        known = f"{self.told}\n{observation['text']}"
        low = max([0, *(int(n) for n in re.findall(r"(\d+): (?:that is )?too small", known))])
        high = min([101, *(int(n) for n in re.findall(r"(\d+): (?:that is )?too large", known))])
        guess = str((low + high) // 2)
        return Decision(f"Between {low} and {high}: {guess}", (act.Answer(guess),), "I halve.", f"answer('{guess}')", tokens=3)

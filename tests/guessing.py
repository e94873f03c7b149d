"""A text-only benchmark, whole: guess a number from 1 to 100 in a few turns; no screen anywhere."""

from __future__ import annotations

from typing import ClassVar

import gymnasium as gym

from envs import actions as act
from envs.base import Observation, TaskSpec
from envs.errors import InfrastructureError, InvalidActionError
from envs.text import TextEnv

ENV_ID = "agentlab-tests/guessing-v0"


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

"""A policy of your own: halves the interval, and reads in its guidance what an earlier attempt has found out.

In this folder: ``agentlab run own_benchmark:Guess --policy own_policy:Halving --set model.first=7``
"""

from __future__ import annotations

import re
from typing import Any

from envs import actions as act
from envs.base import Observation, TaskSpec
from envs.errors import UsageError
from policies.base import Decision, Policy, PolicySession

BETWEEN = re.compile(r"between (\d+) and (\d+)")
TRIED = re.compile(r"guess\((\d+)\)")
SAID = re.compile(r"(\d+) is too (low|high)")


class HalvingSession(PolicySession):
    """One task: the interval in which the number can be, and what was tried in vain."""

    def __init__(self, first: int | None) -> None:
        self._first = first

    def begin(self, instruction: str, *, guidance: str = "", attempt: int = 1) -> None:
        low, high = (BETWEEN.findall(guidance) or BETWEEN.findall(instruction))[-1]  # the guidance knows more
        self._low, self._high = int(low), int(high)
        self._tried = {int(number) for number in TRIED.findall(guidance)}
        self._step = 0

    def act(self, observation: Observation) -> Decision:
        for number, said in SAID.findall(observation["text"]):
            self._low, self._high = (int(number) + 1, self._high) if said == "low" else (self._low, int(number) - 1)
        left = [n for n in range(self._low, self._high + 1) if n not in self._tried] or [self._low]
        guess = self._first if self._step == 0 and self._first in left else left[len(left) // 2]
        self._step += 1
        thought = f"It is between {self._low} and {self._high}."
        text = f"{thought} guess({guess})"
        return Decision(text, (act.Answer(str(guess)),), thought=thought, action_text=f"guess({guess})")


class Halving(Policy):
    """Made with those of ``name``, ``sampling`` and the settings ``model.KEY`` that its constructor has parameters for.

    Args:
        first: The first guess of an attempt, where it can be right.
    """

    name = "halving"
    needs = frozenset({"text"})

    def __init__(self, first: int | None = None) -> None:
        self._first = first

    def open(self, task: TaskSpec, *, seed: int, adapt: Any = None) -> HalvingSession:
        if adapt is not None:
            raise UsageError("The policy 'halving' has no weights to adapt.", "Use --adapt none, textgrad or reflexion.")
        return HalvingSession(self._first)

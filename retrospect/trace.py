"""What is known of one attempt: the steps as the agent lived them, and how it ended.

This is the vocabulary that the attempt loop fills in, the run directory stores, and the critics read.  It holds nothing the agent
could not have seen, except the final score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from envs.actions import Action
from envs.base import Observation


@dataclass(frozen=True)
class Step:
    """One reply and what it did.

    Attributes:
        index: 1-based.
        observation: What the agent saw when deciding; empty where that is not known (runs made elsewhere).
        text: The whole reply, verbatim.
        thought: Its thought.
        action_text: Its action part, verbatim, in the model's coordinate frame.
        actions: The parsed actions, in pixels.
        invalid: Why the reply could not be executed ("" if it could).
        feedback: What a user said to it ("" if nothing); the agent did not see it in this attempt.
        seconds: {"acting", "environment"} wall-clock seconds.
        tokens: Generated tokens, those of redrawn replies included.
        token_ids: The reply's own tokens, if they are known.
        redrawn: Replies drawn before this one and not taken (``no_repeat``).
        redrawn_unparsable: Those among them that were not actions.
        forward_passes, prefills: What the reply cost in rows of the model's calls; 0 where that is not known.
    """

    index: int
    observation: Observation
    text: str
    thought: str
    action_text: str
    actions: tuple[Action, ...]
    invalid: str = ""
    feedback: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    redrawn: int = 0
    redrawn_unparsable: int = 0
    forward_passes: int = 0
    prefills: int = 0
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Trace:
    """One attempt.

    Attributes:
        instruction: The task's instruction, verbatim.
        steps: At least one step.
        final: What there was to see after the last step.
        score: The benchmark's score in [0, 1].
        ended_by: ``finished``, ``fail``, ``environment`` or ``budget``.
        guidance: The guidance this attempt was made under.
        attempt: 1-based.
    """

    instruction: str
    steps: Sequence[Step]
    final: Observation
    score: float
    ended_by: str
    guidance: str = ""
    attempt: int = 1
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def observations(self) -> list[Observation]:
        """Before each step, and after the last one."""
        return [*(step.observation for step in self.steps), self.final]

    @property
    def feedback(self) -> str:
        """What a user said to the attempt as it ended ("" if nothing)."""
        return self.steps[-1].feedback if self.steps else ""

    def after(self, index: int) -> Observation:
        """What step ``index`` (1-based) led to."""
        return self.observations[index]

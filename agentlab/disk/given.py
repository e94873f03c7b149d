"""What a session was given of earlier ones, as its folder says (:mod:`agentlab.experience.session` writes it)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentlab.disk.files import read_json
from envs.errors import StoreError

GIVEN, LEFT = "given.json", "left.json"


@dataclass(frozen=True)
class Given:
    """What is known of it, of known types, whatever stood in the files.

    Attributes:
        rounds: Rounds that had been added when the session began.
        lessons: (id, kind, when, text).
        examples: (id, question, reply).
        theta_1: Numbers and words about the weights that it started from; ``digest`` is "" where these were frozen.
        frozen_logprob: Log-probability of what attempt 1 said, under the frozen policy; None if it is not known.
        left_seconds, left_tokens: What writing down what it leaves took, and the tokens that its engine used.
    """

    rounds: int = 0
    lessons: tuple[tuple[str, str, str, str], ...] = ()
    examples: tuple[tuple[str, str, str], ...] = ()
    theta_1: dict[str, float | str] = field(default_factory=dict)
    frozen_logprob: float | None = None
    left_seconds: float = 0.0
    left_tokens: float = 0.0

    @property
    def something(self) -> bool:
        """It was given anything at all."""
        return bool(self.lessons or self.examples or self.theta_1.get("digest"))


def read_given(session: Path) -> Given | None:
    """What the session in this folder was given; None if the run has no experience, or that cannot be read."""
    if not os.path.lexists(session / GIVEN):
        return None
    try:
        data = read_json(session / GIVEN)
        left = read_json(session / LEFT) if os.path.lexists(session / LEFT) else {}
    except StoreError:
        return None
    theta = data.get("theta_1")
    rounds, cost = data.get("rounds"), left.get("cost")
    cost = cost if isinstance(cost, dict) else {}
    return Given(
        rounds=len(rounds) if isinstance(rounds, list) else 0,
        lessons=tuple((_text(x, "id"), _text(x, "kind"), _text(x, "when"), _text(x, "text")) for x in _dicts(data, "lessons")),
        examples=tuple((_text(x, "id"), _text(x, "question"), _text(x, "reply")) for x in _dicts(data, "examples")),
        theta_1={str(k): v for k, v in theta.items() if isinstance(v, int | float | str)} if isinstance(theta, dict) else {},
        frozen_logprob=_number(left["frozen_logprob"]) if "frozen_logprob" in left else None,
        left_seconds=_number(cost.get("seconds")),
        left_tokens=_number(cost.get("tokens")),
    )


def _dicts(data: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = data.get(name)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _text(data: dict[str, Any], name: str) -> str:
    value = data.get(name)
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and abs(value) < 2**64 else 0.0

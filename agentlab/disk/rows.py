"""The rows of ``results.jsonl``: one per finished attempt, flat enough for ``jq``."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import Any

from agentlab.disk.store import SCHEMA
from agentlab.results.metrics import SPLIT, Row
from envs import actions as act
from envs.base import TaskSpec
from retrospect.reflect import Reflection
from retrospect.trace import Trace

Broken = list[dict[str, str]]
"""What the machinery broke: ``component`` and ``message`` per failure."""


@dataclass
class Attempt:
    """A graded attempt, and what was learned from it.

    Attributes:
        started: ``time.perf_counter()`` at its beginning.
        guidance: The words after it, for the next attempt.
        adapter: Whether its folder has an adapter.
    """

    trace: Trace
    started: float
    guidance: str
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SPLIT, 0.0))
    words: dict[str, Any] | None = None
    update: dict[str, Any] | None = None
    adapter: bool = False


def graded(task: TaskSpec, attempt: Attempt, broken: Broken, *, success: bool, over: bool) -> Row:
    """The row of an attempt that the benchmark has scored."""
    trace, seconds = attempt.trace, attempt.seconds
    seconds["rest"] = max(0.0, time.perf_counter() - attempt.started - sum(seconds.values()))
    return _row(task, trace.attempt, trace.guidance, "graded", broken) | {
        "score": trace.score,
        "success": success,
        "reward": 1 if success else -1,
        "session_over": over,
        "steps": len(trace.steps),
        "ended_by": trace.ended_by,
        "invalid": sum(bool(s.invalid) for s in trace.steps),
        "unparsable": sum(any(isinstance(a, act.Invalid) for a in s.actions) for s in trace.steps),
        "redrawn": sum(s.redrawn for s in trace.steps),
        "redrawn_unparsable": sum(s.redrawn_unparsable for s in trace.steps),
        "tokens": sum(s.tokens for s in trace.steps),
        "seconds": {part: round(value, 4) for part, value in seconds.items()},
        "words": attempt.words,
        "update": attempt.update,
        "adapter": attempt.adapter,
        "actions_hash": digest(json.dumps([[act.to_json(a) for a in s.actions] for s in trace.steps])),
    }


def broken(task: TaskSpec, attempt: int, guidance: str, broken: Broken, seconds: float) -> Row:
    """The row of an attempt that the machinery never let end: no score, no reward; it ends the session."""
    row = _row(task, attempt, guidance, "infrastructure", broken)
    row["seconds"]["rest"] = round(seconds, 4)
    return row


def _row(task: TaskSpec, attempt: int, guidance: str, outcome: str, broken: Broken) -> Row:
    return {
        "schema": SCHEMA,
        "task": task.id,
        "name": task.name,
        "seed": task.seed,
        "domain": task.domain,
        "feasible": task.feasible,
        "attempt": attempt,
        "outcome": outcome,
        "score": None,
        "success": False,
        "reward": None,
        "session_over": True,
        "steps": 0,
        "ended_by": "infrastructure",
        "invalid": 0,
        "unparsable": 0,
        "redrawn": 0,
        "redrawn_unparsable": 0,
        "tokens": 0,
        "seconds": dict.fromkeys(SPLIT, 0.0),
        "memory": {},
        "words": None,
        "update": None,
        "adapter": False,
        "guidance_hash": digest(guidance) if guidance else "",
        "actions_hash": "",
        "infrastructure": broken,
    }


def words_columns(reflection: Reflection) -> dict[str, Any]:
    """What of a reflection goes into the row; all of it is in the attempt's words.json."""
    names = ("distance", "seconds", "requests", "tokens", "cost", "error")
    return {name: getattr(reflection, name) for name in names} | {"characters": len(reflection.guidance)}


def session_over(made: list[Row]) -> bool:
    return bool(made) and bool(made[-1]["session_over"])


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

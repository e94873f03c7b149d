"""The row of an attempt that has just ended, made of what was recorded and learned (:mod:`agentlab.disk.row` says what is in it)."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agentlab.disk.names import digest
from agentlab.disk.row import SPLIT, Breakage, JudgeColumns, Row, Seconds, UpdateColumns, WordsColumns
from envs import actions as act
from envs.base import TaskSpec
from policies.base import NO_PASSES, Passes
from retrospect.reflect import Reflection
from retrospect.trace import Trace


@dataclass
class Played:
    """A graded attempt that has just been made, and what was learned from it.

    Attributes:
        started: ``time.perf_counter()`` at its beginning.
        guidance: The words after it, for the next attempt.
        adapter: Whether its folder has an adapter.
        passes: Of reading its first prompt beforehand.
        hidden: Seconds of the update that passed while the next attempt was made ready.
    """

    trace: Trace
    started: float
    guidance: str
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SPLIT, 0.0))
    judge: JudgeColumns | None = None
    words: WordsColumns | None = None
    update: UpdateColumns | None = None
    adapter: bool = False
    passes: Passes = NO_PASSES
    hidden: float = 0.0


def graded(
    task: TaskSpec, played: Played, broken: Sequence[Breakage], *, success: bool, over: bool, rewarded: bool | None = None
) -> Row:
    """The row of an attempt that the benchmark has scored; ``broken`` are the tries before it.

    ``rewarded``: r_t is +1; by default, where it succeeded.
    """
    trace, seconds = played.trace, played.seconds
    seconds["rest"] = max(0.0, time.perf_counter() - played.started - sum(seconds.values()))
    return Row(
        **_about(task, trace.attempt, trace.guidance, broken),
        outcome="graded",
        score=trace.score,
        success=success,
        reward=1 if (success if rewarded is None else rewarded) else -1,
        session_over=over,
        steps=len(trace.steps),
        ended_by=trace.ended_by,
        invalid=sum(bool(s.invalid) for s in trace.steps),
        unparsable=sum(any(isinstance(a, act.Invalid) for a in s.actions) for s in trace.steps),
        redrawn=sum(s.redrawn for s in trace.steps),
        redrawn_unparsable=sum(s.redrawn_unparsable for s in trace.steps),
        tokens=sum(s.tokens for s in trace.steps),
        forward_passes=sum(s.forward_passes for s in trace.steps)
        + played.passes.forward
        + _of_update(played.update, "forward_passes"),
        prefills=sum(s.prefills for s in trace.steps) + played.passes.prefill + _of_update(played.update, "prefills"),
        seconds=Seconds(**{part: round(value, 4) for part, value in seconds.items()}),
        hidden_seconds=round(played.hidden, 4),
        judge=played.judge,
        words=played.words,
        update=played.update,
        adapter=played.adapter,
        actions_hash=digest(json.dumps([[act.to_json(a) for a in s.actions] for s in trace.steps])),
    )


def _of_update(update: UpdateColumns | None, name: str) -> int:
    """A count among an update's own numbers; 0 if it has none."""
    return int(update.numbers.get(name) or 0) if update is not None else 0


def broken(task: TaskSpec, attempt: int, guidance: str, broken: Sequence[Breakage], seconds: float) -> Row:
    """The row of an attempt that the machinery kept from ending: no score, no reward; it ends the session."""
    return Row(**_about(task, attempt, guidance, broken), outcome="infrastructure", seconds=Seconds(rest=round(seconds, 4)))


def _about(task: TaskSpec, attempt: int, guidance: str, broken: Sequence[Breakage]) -> dict[str, Any]:
    return {
        "task": task.id,
        "name": task.name,
        "seed": task.seed,
        "domain": task.domain,
        "repeat": task.repeat,
        "feasible": task.feasible,
        "attempt": attempt,
        "guidance_hash": digest(guidance) if guidance else "",
        "infrastructure": list(broken),
    }


def words_columns(reflection: Reflection) -> WordsColumns:
    """What of a reflection goes into the row; all of it is in the attempt's words.json."""
    taken = {name: getattr(reflection, name) for name in WordsColumns.model_fields if name != "characters"}
    return WordsColumns(**taken, characters=len(reflection.guidance))


def session_over(made: Sequence[Row]) -> bool:
    return bool(made) and made[-1].session_over

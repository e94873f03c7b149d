"""Small run directories, written by the product's own writers, whose every number is chosen by the test."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agentlab.disk import rows
from agentlab.disk.record import AttemptWriter
from agentlab.disk.row import SPLIT, Breakage, Seconds, UpdateColumns, WordsColumns
from agentlab.disk.store import RunStore, SessionStore
from agentlab.run.resolve import resolve
from agentlab.run.session import step_of
from envs import actions as act
from envs.base import Screenshot, TaskSpec
from policies.base import Decision
from retrospect.trace import Trace

NO_WORDS = {"distance": 0.0, "seconds": 0.0, "requests": 0, "tokens": 0, "cost": 0.0, "error": "", "characters": 0}


@dataclass(frozen=True)
class Made:
    """One attempt: what the agent did at each step, and how it ended.  ``broken`` names the component that never let it end."""

    success: bool = False
    steps: Sequence[tuple[str, act.Action]] = (("The red square is it.", act.Click(40.0, 60.0)),)
    guidance_after: str = ""
    update: Mapping[str, Any] | None = None
    words: Mapping[str, Any] | None = None
    seconds: float = 1.0
    broken: str = ""
    memory: Mapping[str, float] = field(default_factory=lambda: {"process": 100.0})


def screen(number: int, height: int = 220, width: int = 160) -> Screenshot:
    """A screen that differs from those of other numbers."""
    picture = np.full((height, width, 3), 255, np.uint8)
    picture[:50] = (255, 255, 0)
    picture[60:90, 10 + 20 * number : 30 + 20 * number] = (200, 0, 0)
    return picture


def task(name: str, seed: int = 1, domain: str = "miniwob") -> TaskSpec:
    return TaskSpec("agentlab/miniwob-v0", name, seed, 10, domain=domain)


def make_run(
    folder: Path, sessions: Mapping[TaskSpec, Sequence[Made]] | Sequence[tuple[TaskSpec, Sequence[Made]]], **config: Any
) -> Path:
    """Write a run with these sessions; ``config`` are settings that differ from the defaults."""
    settings = resolve({"suite": "miniwob", "policy": "random", "attempts": 3, "out": folder, **config})
    store = RunStore.open(folder, settings.to_json())
    pairs = sessions.items() if isinstance(sessions, Mapping) else sessions
    for spec, attempts in pairs:
        guidance = ""
        for number, made in enumerate(attempts, start=1):
            over = made.success or number == settings.attempts or bool(made.broken)
            make_attempt(store.session(spec.id), spec, number, made, guidance, over)
            guidance = made.guidance_after
    store.close()
    return folder


def make_attempt(session: SessionStore, spec: TaskSpec, number: int, made: Made, guidance: str, over: bool) -> None:
    writer = AttemptWriter(session.start_attempt(number))
    if made.broken:
        failure = Breakage(component=made.broken, message=f"{made.broken} died")
        session.commit(number, rows.broken(spec, number, guidance, [failure] * 3, 2.0))
        return
    instruction = f"Click the red square of {spec.name}."
    writer.begin(spec, number, instruction, guidance, 0.1)
    seen, steps = writer.observation({"screenshot": screen(0)}), []
    for index, (thought, action) in enumerate(made.steps, start=1):
        text = f"Thought: {thought}\nAction: {act.describe(action)}"
        decision = Decision(
            text, (action,), thought=thought, action_text=act.describe(action), tokens=12, seconds=0.5, logprob=-1.5
        )
        steps.append(step_of(index, {"screenshot": screen(index - 1)}, decision, {}, 0.1))
        writer.step(steps[-1], seen, decision)
        seen = writer.observation({"screenshot": screen(index)})
    score = float(made.success)
    writer.end(seen, score, "environment")
    trace = Trace(instruction, steps, {"screenshot": screen(len(steps))}, score, "environment", guidance=guidance, attempt=number)
    played = rows.Played(trace, time.perf_counter(), guidance=made.guidance_after, adapter=made.update is not None)
    played.update = UpdateColumns(**{"seconds": 0.0, **made.update}) if made.update is not None else None
    played.words = WordsColumns(**NO_WORDS | made.words) if made.words is not None else None
    if made.update is not None:
        writer.json("update.json", dict(made.update))
    if made.guidance_after:
        writer.text("guidance.txt", made.guidance_after)
        writer.json("words.json", {"reflection": {"guidance": made.guidance_after, "credit": [-1.0] * len(steps)}, "state": {}})
    row = rows.graded(spec, played, [], success=made.success, over=over)
    seconds = Seconds(**{part: made.seconds * (1 + place) for place, part in enumerate(SPLIT)})
    session.commit(number, row.model_copy(update={"seconds": seconds, "memory": dict(made.memory)}))

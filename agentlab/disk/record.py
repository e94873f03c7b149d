"""One attempt on disk, written while it is lived and read back as a :class:`~retrospect.trace.Trace`.

events.jsonl     begin, one line per step, end; flushed line by line
                 (`screen` names what the agent saw, `observation` is what it read; each only where the environment gives it)
screens/000.webp lossless; NNN is the screen before step NNN+1, the last one the final screen; unchanged screens are not repeated
guidance.txt     the words after this attempt, for the next one; words.json how they were made
adapter/         the weights after this attempt (PEFT layout, written by the policy), update.json what the update did,
                 tokens.json what it did to the probability of every token
judge.json       what a judge said of the whole reply, where one was asked
result.json      the row of results.jsonl; written last
void_01/         what a try that the machinery broke had recorded
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from agentlab.disk.files import disk_errors, mend, read_lines, strict_json, write_atomic
from agentlab.disk.runs import read_observation
from envs import actions as act
from envs.base import Observation, Screenshot, TaskSpec
from envs.errors import InvalidActionError, StoreError
from envs.redaction import without_secrets
from policies.base import Decision, PastAttempt
from retrospect.trace import Step, Trace

Recorded = dict[str, str]
"""An observation as an event has it: ``screen``, the name of a file, and ``observation``, a text; each only if it was observed."""


class AttemptWriter:
    """Writes one attempt into its folder; used by one thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._screens = 0
        self._last: tuple[str, Screenshot] | None = None

    def event(self, kind: str, **fields: Any) -> None:
        """Append one line to events.jsonl and flush it to the operating system."""
        path = self.folder / "events.jsonl"
        with disk_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(without_secrets(strict_json({"event": kind, **fields}) + "\n"))

    def observation(self, observation: Observation) -> Recorded:
        """Save what was observed, and return it as an event has it."""
        recorded: Recorded = {}
        if "screenshot" in observation:
            recorded["screen"] = self.screen(observation["screenshot"])
        if "text" in observation:
            recorded["observation"] = observation["text"]
        return recorded

    def screen(self, screenshot: Screenshot) -> str:
        """Save a screen and return its name; the name of the one before if nothing changed."""
        number, self._screens = self._screens, self._screens + 1
        if self._last is not None and np.array_equal(self._last[1], screenshot):
            return self._last[0]
        name = f"screens/{number:03d}.webp"
        path = self.folder / name
        with disk_errors(path):
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(screenshot).save(path, lossless=True, quality=20, method=0)  # fast; lossless at any quality
        self._last = (name, screenshot.copy())
        return name

    def begin(
        self, task: TaskSpec, attempt: int, instruction: str, guidance: str, seconds: float, examples: Sequence[Sequence[str]] = ()
    ) -> None:
        """``examples``: solved questions of earlier sessions that stand before this one."""
        shown = {"examples": [list(pair) for pair in examples]} if examples else {}
        self.event("begin", task=task.id, attempt=attempt, instruction=instruction, guidance=guidance, seconds=seconds, **shown)

    def step(self, step: Step, before: Recorded, decision: Decision | None = None) -> None:
        """One step from what was seen ``before``; with the policy's ``decision`` also what is known of the reply's tokens."""
        known = {} if decision is None else {"token_ids": decision.token_ids, "token_logprobs": decision.token_logprobs}
        self.event(
            "step",
            index=step.index,
            **before,
            text=step.text,
            thought=step.thought,
            action_text=step.action_text,
            actions=[act.to_json(a) for a in step.actions],
            invalid=step.invalid,
            **({"feedback": step.feedback} if step.feedback else {}),
            tokens=step.tokens,
            redrawn=step.redrawn,
            redrawn_unparsable=step.redrawn_unparsable,
            forward_passes=step.forward_passes,
            prefills=step.prefills,
            logprob=None if decision is None else decision.logprob,
            seconds=step.seconds,
            **{name: list(values) for name, values in known.items() if values},
        )

    def end(self, final: Recorded, score: float, ended_by: str) -> None:
        self.event("end", **final, score=score, ended_by=ended_by)

    def text(self, name: str, content: str) -> None:
        write_atomic(self.folder / name, content)

    def json(self, name: str, content: dict[str, Any]) -> None:
        write_atomic(self.folder / name, strict_json(content, indent=2) + "\n")

    def void(self) -> None:
        """The machinery broke this try: keep what there is in ``void_NN/`` and start the folder afresh."""
        with disk_errors(self.folder):
            there = [p for p in self.folder.iterdir() if not p.name.startswith("void_")]
            if not there:
                return
            aside = self.folder / f"void_{len(list(self.folder.glob('void_*'))) + 1:02d}"
            aside.mkdir()
            for path in there:
                path.rename(aside / path.name)
        self._screens, self._last = 0, None


def load_trace(folder: Path) -> Trace:
    """A finished attempt as the agent lived it.

    Raises:
        StoreError: the attempt has not ended, or a file of it is missing or corrupt.
    """
    events = read_lines(folder / "events.jsonl")
    by_kind = {kind: [e for e in events if e.get("event") == kind] for kind in ("begin", "step", "end")}
    if not (by_kind["begin"] and by_kind["step"] and by_kind["end"]):
        raise StoreError(f"{folder} holds no finished attempt.", "Continue the run first.")
    begin, end = by_kind["begin"][0], by_kind["end"][0]
    try:
        return Trace(
            instruction=begin["instruction"],
            steps=[_step(folder, event) for event in by_kind["step"]],
            final=read_observation(folder, end),
            score=end["score"],
            ended_by=end["ended_by"],
            guidance=begin["guidance"],
            attempt=begin["attempt"],
        )
    except (KeyError, TypeError, ValueError, AttributeError, InvalidActionError) as error:
        what = f"{type(error).__name__}: {error}"
        raise StoreError(f"{folder / 'events.jsonl'} is corrupt ({what}).", mend(folder / "events.jsonl")) from error


def past(trace: Trace) -> PastAttempt:
    """A finished attempt as a conversation goes on from it."""
    return PastAttempt(trace.guidance, tuple((step.observation, step.text) for step in trace.steps), trace.feedback)


def _step(folder: Path, event: dict[str, Any]) -> Step:
    return Step(
        index=event["index"],
        observation=read_observation(folder, event),
        text=event["text"],
        thought=event["thought"],
        action_text=event["action_text"],
        actions=tuple(act.from_json(a) for a in event["actions"]),
        invalid=event["invalid"],
        feedback=event.get("feedback", ""),
        seconds=event["seconds"],
        tokens=event["tokens"],
        redrawn=event.get("redrawn", 0),
        redrawn_unparsable=event.get("redrawn_unparsable", 0),
        forward_passes=event.get("forward_passes", 0),
        prefills=event.get("prefills", 0),
        token_ids=tuple(int(token) for token in event.get("token_ids", ())),
    )

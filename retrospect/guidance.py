"""The words a policy gets after a failure, when they are written by rule.

One compact form serves everybody: the rule-based critic writes it, the bundled policy was trained to read it, and a large model
reads it as plain English.  It quotes the agent's own thoughts and actions in the agent's own coordinate frame, so nothing in it can
be invented.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

MAX_ATTEMPTS = 4
MAX_STEPS = 6
MAX_THOUGHT = 80
MAX_ACTION = 120
MAX_FEEDBACK = 160

HEADER = "Failed before:"
FOOTER = "Do otherwise."


@dataclass(frozen=True)
class Tried:
    """One step of a failed attempt: the agent's own words, whether anything visibly changed, and what a user said to it."""

    thought: str
    action_text: str
    changed: bool = True
    feedback: str = ""


def render_tried(attempts: Sequence[Sequence[Tried]]) -> str:
    """Guidance that lists what was tried in vain, newest last; "" if nothing was.

    Identical attempts, and a step repeated in a row, are listed once; of many attempts the last MAX_ATTEMPTS are kept, of a long
    attempt the last MAX_STEPS steps.
    """
    lines: list[str] = []
    for attempt in attempts:
        line = _line(attempt)
        if not line:
            continue
        if line in lines:
            lines.remove(line)
        lines.append(line)
    if not lines:
        return ""
    return "\n".join([HEADER, *(f"- {line}" for line in lines[-MAX_ATTEMPTS:]), FOOTER])


def _line(attempt: Sequence[Tried]) -> str:
    steps = [step for step, _ in itertools.groupby(map(_step, attempt))]
    if len(steps) > MAX_STEPS:
        steps = ["...", *steps[-MAX_STEPS:]]
    return "; ".join(steps)


def _step(tried: Tried) -> str:
    thought, action = _short(tried.thought, MAX_THOUGHT), _short(tried.action_text, MAX_ACTION)
    text = f"{thought}: {action}" if thought else action
    notes = [*([] if tried.changed else ["nothing changed"]), *([_short(tried.feedback, MAX_FEEDBACK)] if tried.feedback else [])]
    return f"{text} ({'; '.join(notes)})" if notes else text


def _short(text: str, limit: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"

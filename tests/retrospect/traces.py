"""Hand-made screens and traces, small enough to be read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs import actions as act
from envs.base import Screenshot
from retrospect.trace import Step, Trace

WIDTH, HEIGHT = 160, 210
TASK = 'Click on the "Submit" button.'


def screen(*boxes: tuple[int, int, int, int], colour: int = 40) -> Screenshot:
    """A white screen with dark boxes (left, top, right, bottom)."""
    pixels = np.full((HEIGHT, WIDTH, 3), 255, dtype=np.uint8)
    for left, top, right, bottom in boxes:
        pixels[top:bottom, left:right] = colour
    return pixels


BUTTON = (10, 10, 50, 26)
MENU = (100, 100, 150, 160)
HOME, OPENED, DIALOG = screen(BUTTON), screen(BUTTON, MENU), screen(BUTTON, (20, 150, 120, 200))


def step(index: int, shown: Screenshot, *actions: act.Action, thought: str = "", text: str = "", invalid: str = "") -> Step:
    action_text = text or "; ".join(act.describe(action) for action in actions)
    return Step(index, {"screenshot": shown}, f"Thought: {thought}\nAction: {action_text}", thought, action_text, actions, invalid)


def trace(
    moves: Sequence[tuple[Screenshot, act.Action]], final: Screenshot, ended_by: str, *, guidance: str = "", attempt: int = 1
) -> Trace:
    """A failed attempt of one action per step."""
    steps = [step(i, shown, action, thought=f"thought {i}") for i, (shown, action) in enumerate(moves, start=1)]
    return Trace(TASK, steps, {"screenshot": final}, 0.0, ended_by, guidance, attempt)


def one_click(x: float, y: float, *, guidance: str = "", attempt: int = 1) -> Trace:
    """The commonest MiniWoB++ failure: one click, and the episode is over."""
    return trace([(HOME, act.Click(x, y))], screen(), "environment", guidance=guidance, attempt=attempt)

"""What the bundled policy says: UI-TARS replies with 0-1000 coordinates in steps of ten."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from envs import actions as act
from envs.errors import UsageError
from policies.nano.screen import SCREEN_HEIGHT, SCREEN_WIDTH

STEP = 10
"""Coordinates are multiples of this (of 1000): 1.6 pixels across and 2.2 down, so the last digit costs nothing to learn."""

Box = Mapping[str, float]
"""{"x", "y", "w", "h"} in pixels."""


def to_relative(value: float, size: int) -> int:
    """Pixel to 0-1000, on the grid."""
    return min(max(round(value / size * 1000 / STEP) * STEP, 0), 1000 - STEP)


def to_pixel(relative: float, size: int) -> float:
    return relative * size / 1000


def _snap(value: float, size: int, low: float, high: float) -> float:
    """The grid coordinate nearest to ``value``, kept inside [low, high) where the grid allows it."""
    grid = to_relative(value, size)
    for candidate in (grid, grid + STEP, grid - STEP):
        if low <= to_pixel(candidate, size) < high:
            return to_pixel(candidate, size)
    return to_pixel(grid, size)


def snapped(action: act.Action, box: Box | None = None) -> act.Action:
    """``action`` moved to the coordinates that a reply can express, inside ``box`` if it was."""
    if not isinstance(action, act.POINTED):
        return action
    x0, y0, x1, y1 = (box["x"], box["y"], box["x"] + box["w"], box["y"] + box["h"]) if box else (0.0, 0.0, 1e9, 1e9)
    changes: dict[str, Any] = {"x": _snap(action.x, SCREEN_WIDTH, x0, x1), "y": _snap(action.y, SCREEN_HEIGHT, y0, y1)}
    if isinstance(action, act.Drag):
        changes["end_x"] = to_pixel(to_relative(action.end_x, SCREEN_WIDTH), SCREEN_WIDTH)
        changes["end_y"] = to_pixel(to_relative(action.end_y, SCREEN_HEIGHT), SCREEN_HEIGHT)
    changed: act.Action = dataclasses.replace(action, **changes)  # type: ignore[arg-type]
    return changed


def _point(x: float, y: float) -> str:
    return f"({to_relative(x, SCREEN_WIDTH)},{to_relative(y, SCREEN_HEIGHT)})"


_POINTED = {act.Click: "click", act.DoubleClick: "left_double", act.Hover: "hover"}


def action_text(action: act.Action) -> str:
    """``action`` in UI-TARS's words.

    Raises:
        UsageError: the bundled policy has no such action.
    """
    if isinstance(action, act.Drag):
        return f"drag(start_box='{_point(action.x, action.y)}', end_box='{_point(action.end_x, action.end_y)}')"
    if isinstance(action, act.Scroll):
        return f"scroll(start_box='{_point(action.x, action.y)}', direction='{action.direction}')"
    if isinstance(action, act.Type):
        quoted = action.text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
        return f"type(content='{quoted}" + ("\\n')" if action.submit else "')")
    if isinstance(action, act.Hotkey):
        return f"hotkey(key='{' '.join(action.keys)}')"
    if isinstance(action, act.Wait | act.Finished):
        return f"{action.kind}()"
    name = _POINTED.get(type(action))
    if name is None or not isinstance(action, act.POINTED):
        raise UsageError(f"The bundled policy has no words for {action.kind!r}.")
    return f"{name}(start_box='{_point(action.x, action.y)}')"


def reply_text(thought: str, action: act.Action) -> str:
    """The whole reply."""
    return f"Thought: {thought}\nAction: {action_text(action)}"

"""The options of the environment, checked before anything is started: a 7B policy takes minutes to load."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envs import actions as act
from envs.androidworld import knobs
from envs.androidworld.gestures import Conventions
from envs.errors import InvalidActionError, UsageError

CHOICES = {"settle": ("stable", "none"), "restore": ("never", "attempt")}
FLAGS = ("finished_answers", "accessibility", "oracle")
CONVENTIONS = tuple(field.name for field in dataclasses.fields(Conventions))

Demonstrations = dict[str, tuple[tuple[act.Action, ...], ...]]
"""Task name -> steps -> actions."""


def check(options: Mapping[str, Any]) -> None:
    """Refuse values that the environment cannot take; names are not looked at.

    Raises:
        UsageError: a bad value.
    """
    for name, known in CHOICES.items():
        if options.get(name, known[0]) not in known:
            raise UsageError(f"androidworld.{name} is {options[name]!r}.", f"Known: {', '.join(known)}.")
    for name in FLAGS:
        if not isinstance(options.get(name, True), bool):
            raise UsageError(f"androidworld.{name} is {options[name]!r}.", "Give true or false.")
    knobs.check({name: options[name] for name in knobs.KNOBS if name in options}, options.get("provider", "ours"))
    spares = options.get("spares", 0)
    if isinstance(spares, bool) or not isinstance(spares, int) or spares < 0:
        raise UsageError(f"androidworld.spares is {spares!r}.", "Give a number of emulators, 0 or more.")
    if not isinstance(options.get("image", ""), str):
        raise UsageError(f"androidworld.image is {options['image']!r}.", "Give the tag of an image.")
    Conventions(**{name: options[name] for name in CONVENTIONS if name in options})
    if "screen" in options:
        screen_of(options["screen"])
    if options.get("demonstrations") is not None:
        read_demonstrations(options["demonstrations"])


def screen_of(screen: Any) -> tuple[int, int]:
    """(width, height) in pixels.

    Raises:
        UsageError: it is not two whole numbers above 0.
    """
    sides = tuple(screen) if isinstance(screen, list | tuple) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides):
        raise UsageError(f"androidworld.screen is {screen!r}.", "Give [width, height] in pixels.")
    return sides[0], sides[1]


def read_demonstrations(path: str | Path) -> Demonstrations:
    """The file that the policy ``scripted`` follows.

    Raises:
        UsageError: it cannot be read, or is not of this form.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        return {str(name): tuple(tuple(act.from_json(one) for one in step) for step in steps) for name, steps in data.items()}
    except (OSError, ValueError, TypeError, AttributeError, InvalidActionError) as error:
        raise UsageError(f"{path} is not a file of demonstrations: {error}", "See docs/androidworld.md for its form.") from error

"""What a reply is read into, and where its points lie: shared by every family's parser."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from envs import actions as act
from envs.actions import Action
from envs.errors import InvalidActionError
from policies.families.messages import Platform

MAX_ACTIONS = 16
"""Calls per reply: more is a model in a loop."""

MAX_CHARACTERS = 200_000
"""The most characters of a reply that is read: a longer one is not an action, whatever it says."""

TOLERANCE = 0.02
"""Share of the coordinate range by which a point may lie outside and still be meant for the edge."""


TAGS = re.compile(r"</?(?:think|thinking|thought|conclusion)>|<\|[A-Za-z0-9_]{1,40}\|>")
"""What is not part of a thought or an action: tags around them, and special tokens."""
_LEFT_OUT = re.compile(rf"{TAGS.pattern}|\r")


@dataclass(frozen=True)
class Frame:
    """The model's coordinate frame: its point (x, y) lies at pixel (x · width / units_x, y · height / units_y).

    Attributes:
        width, height: Size of the observation's screenshot in pixels.
        units_x, units_y: What the model takes for the size: 1000 each, or the resized picture.
        pointer: Where the pointer is, in pixels; None stands for the middle of the screen.
        platform: Which device: ``home`` is a key of a keyboard and a button of a phone.
        cut: The reply ran out of tokens: a bracket that is missing at its end is not put there, since a number may be missing with it.
    """

    width: int
    height: int
    units_x: float = 1000.0
    units_y: float = 1000.0
    pointer: tuple[float, float] | None = None
    platform: Platform = "computer"
    cut: bool = False

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """The pixel meant, clamped to the screen.

        Raises:
            InvalidActionError: the point lies off the screen by more than ``TOLERANCE``.
        """
        for value, units in ((x, self.units_x), (y, self.units_y)):
            if not -TOLERANCE * units <= value <= (1 + TOLERANCE) * units:
                raise InvalidActionError(f"Point ({x:g}, {y:g}) is off the screen (0-{self.units_x:g}, 0-{self.units_y:g}).")
        column, row = x * self.width / self.units_x, y * self.height / self.units_y
        return min(max(column, 0.0), self.width - 1.0), min(max(row, 0.0), self.height - 1.0)

    @property
    def here(self) -> tuple[float, float]:
        """Where the pointer is: what an action without a place of its own acts on."""
        return self.pointer or (self.width / 2, self.height / 2)

    def after(self, actions: Sequence[Action]) -> Frame:
        """The frame once ``actions`` are done: the pointer may be elsewhere."""
        return dataclasses.replace(self, pointer=pointer_after(actions, self.pointer))


class Reply(NamedTuple):
    """A parsed reply; ``action_text`` is the action part in the model's own words and frame."""

    thought: str
    action_text: str
    actions: tuple[Action, ...]

    @property
    def parsable(self) -> bool:
        return not any(isinstance(action, act.Invalid) for action in self.actions)


def is_thinking(text: str, tag: str = "think") -> bool:
    """Whether a thought was begun (by the template or the model) and has not ended."""
    return text.rfind(f"<{tag}>") > text.rfind(f"</{tag}>")


def cut_off() -> InvalidActionError:
    """Of an action whose end is missing in a reply that ran out of tokens."""
    return InvalidActionError("The reply ran out of tokens before its action was complete.")


def offset_of(part: str, text: str) -> int | None:
    """Where the last ``part`` of a reply begins in its whole text, special tokens included; None if it is not there.

    Parsers leave tags, special tokens and carriage returns out of what they give, so that it need not stand in the text as it is.
    """
    kept, start = list[tuple[int, str]](), 0  # (offset in the text, what stands there)
    for left_out in _LEFT_OUT.finditer(text):
        kept.append((start, text[start : left_out.start()]))
        start = left_out.end()
    kept.append((start, text[start:]))
    at = "".join(piece for _, piece in kept).rfind(_LEFT_OUT.sub("", part))
    for start, piece in kept:
        if 0 <= at < len(piece):
            return start + at
        at -= len(piece)
    return None


def pointer_after(actions: Sequence[Action], before: tuple[float, float] | None) -> tuple[float, float] | None:
    """Where the pointer is once ``actions`` are done, as far as they say."""
    for action in actions:
        if isinstance(action, act.Drag):
            before = (action.end_x, action.end_y)
        elif isinstance(action, act.POINTED):
            before = (action.x, action.y)
    return before


def bounded(text: str) -> str:
    """``text``, if it is short enough to be read.

    Raises:
        InvalidActionError: it is too long.
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidActionError(f"The reply has {len(text)} characters; at most {MAX_CHARACTERS} are read.")
    return text


def shorten(text: str, limit: int = 60) -> str:
    """One line of at most ``limit`` characters."""
    flat = " ".join(text[: 4 * limit].split())
    return flat if len(flat) <= limit and len(text) <= 4 * limit else flat[: limit - 1] + "…"

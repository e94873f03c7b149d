"""Points, times and escapes as models write them."""

from __future__ import annotations

import re

from envs import actions as act
from envs.errors import InvalidActionError
from policies.families.reply import shorten

MAX_CHARACTERS = 400
MAX_SECONDS = 60.0

_FULL_WIDTH = str.maketrans("（），．－～［］｛｝：０１２３４５６７８９、", "(),.-~[]{}:0123456789,")
_TAG = re.compile(r"</?\s{0,9}(?:point|bbox|box|start|end)\s{0,9}/?>|<\|?[A-Za-z_]{0,40}\|?>", re.IGNORECASE)
_NUMBER = r"-?\d++(?:\.\d*+)?+|-?\.\d++"
_NUMBERS = re.compile(_NUMBER)
_RANGE = re.compile(rf"({_NUMBER})\s{{0,9}}+(?:-|~|–|—|\bto\b)\s{{0,9}}+(\d++(?:\.\d*+)?+)")
_FILLER = re.compile(r"[\s,;:=()\[\]{}'\"]|\b[xy][12]?\b", re.IGNORECASE)
_AXIS = re.compile(r"\b[xy][12]?\b", re.IGNORECASE)


def parse_point(text: str) -> tuple[float, float]:
    """(x, y) in the model's frame from ``(x,y)``, ``[x1, y1, x2, y2]`` (its centre), tags, floats or ranges (their middle).

    Raises:
        InvalidActionError: not one point.
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidActionError(f"{len(text)} characters are no point.")
    plain = _TAG.sub(" ", text.translate(_FULL_WIDTH))
    plain = _RANGE.sub(lambda m: f" {(float(m[1]) + float(m[2])) / 2} ", plain)
    plain = _AXIS.sub(" ", plain)
    numbers = [float(n) for n in _NUMBERS.findall(plain)]
    if _FILLER.sub("", _NUMBERS.sub(" ", plain)) or len(numbers) not in (2, 4):
        raise InvalidActionError(f"{shorten(text)!r} is no point: (x,y) expected.")
    if len(numbers) == 4:
        return (numbers[0] + numbers[2]) / 2, (numbers[1] + numbers[3]) / 2
    return numbers[0], numbers[1]


def seconds_of(value: object) -> float | None:
    """A duration as a model gives it, at most ``MAX_SECONDS``; None if it gives none, or one that cannot be read."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return min(max(float(value), 0.0), MAX_SECONDS) if abs(value) < 1e9 else MAX_SECONDS
    number = _NUMBERS.match(str(value)[:40].strip().strip("'\""))
    return min(max(float(number[0]), 0.0), MAX_SECONDS) if number else None


def swipe_direction(start: tuple[float, float], end: tuple[float, float]) -> act.Direction:
    """The finger drags the content along: moving it up shows what is below.

    Raises:
        InvalidActionError: it goes nowhere.
    """
    dx, dy = end[0] - start[0], end[1] - start[1]
    if dx == dy == 0:
        raise InvalidActionError("scroll whose start_box equals its end_box.")
    if abs(dy) >= abs(dx):
        return "down" if dy < 0 else "up"
    return "right" if dx < 0 else "left"


_ESCAPES = {"n": "\n", "t": "\t", "r": "\n", "'": "'", '"': '"', "\\": "\\"}


def unescape(content: str) -> str:
    r"""Resolve ``\n``, ``\t``, ``\'``, ``\"`` and ``\\``; any other backslash stays (a Windows path, a regular expression)."""
    return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), content, flags=re.DOTALL)

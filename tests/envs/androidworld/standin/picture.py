"""Draws the stand-in's nodes: a picture with a wallpaper, so that it costs what a real screen costs to send."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from standin.phone import Phone
from standin.state import LAUNCHER, Node

try:
    import cv2
except ImportError:  # only upstream's environment has it
    from lite import cv2

COLOURS = {"button": (66, 133, 244), "switch": (52, 168, 83), "slider": (251, 188, 5), "field": (232, 234, 237)}


@functools.cache
def wallpaper(width: int, height: int) -> Any:
    """A soft texture that is always the same, uint8 RGB [height, width, 3]; about as large a PNG as a photograph's behind icons."""
    random = np.random.default_rng(7)
    coarse = random.integers(40, 200, (height // 90 + 1, width // 90 + 1, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return smooth


_last: dict[str, Any] = {}


def draw(phone: Phone, plain: Any = None) -> Any:
    """The screen now, uint8 RGB, shape [height, width, 3]; drawn again only when something on it has changed.

    Args:
        phone: What is drawn.
        plain: A colour that the application in front fills the whole screen with.
    """
    seen = repr([dataclasses.replace(node, tap=None, hold=None) for node in phone.nodes()]) + phone.page
    if _last.get("seen") != seen:
        _last.update(seen=seen, frame=_draw(phone))
    frame = _last["frame"].copy() if plain is None else np.full((phone.height, phone.width, 3), plain, dtype=np.uint8)
    if phone.state.settings["system"].get("pointer_location") == "1":
        # The system's own line of coordinates, above every application.
        frame[: max(2, phone.height // 50)] = (230, 230, 230)
        frame[max(1, phone.height // 100), ::3] = (10, 10, 10)
    return frame


def _draw(phone: Phone) -> Any:
    width, height = phone.width, phone.height
    frame = wallpaper(width, height).copy() if phone.page == LAUNCHER else np.full((height, width, 3), 250, dtype=np.uint8)
    for node in phone.nodes():
        _draw_node(frame, node, width)
    return frame


def _draw_node(frame: Any, node: Node, width: int) -> None:
    left, top, right, bottom = node.box
    if node.kind in COLOURS:
        colour = COLOURS[node.kind] if node.kind != "switch" or node.checked else (154, 160, 166)
        cv2.rectangle(frame, (left, top), (right - 1, bottom - 1), colour, -1)
    if node.focused:
        cv2.rectangle(frame, (left, top), (right - 1, bottom - 1), (217, 48, 37), max(1, width // 200))
    text = node.text or node.hint
    if text:
        place, scale, line = (left + width // 60, (top + bottom) // 2), width / 900, max(1, width // 500)
        shown = text.encode("ascii", "replace").decode()  # the drawing library has no other letters
        cv2.putText(frame, shown, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), line)
    if not text.isascii():
        # Other letters show as dots made of their code points, so that two texts never look alike.
        for i, letter in enumerate(text[:40]):
            colour = tuple(ord(letter) >> shift & 255 for shift in (8, 4, 0))
            cv2.circle(frame, (left + (i + 1) * max(3, width // 60), bottom - 4), 1 + ord(letter) % 5, colour, -1)

"""Two screens compared pixel by pixel, outside of masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from envs.base import Screenshot
from envs.errors import UsageError
from envs.gui import Rectangle
from envs.numerals import whole


def differing(a: Screenshot, b: Screenshot, masks: Sequence[Rectangle] = (), tolerance: int = 0) -> NDArray[np.bool_]:
    """[H, W]: where, outside the masks, a channel of two screens of one size differs by more than ``tolerance``."""
    if np.array_equal(a, b):
        return np.zeros(a.shape[:2], bool)
    differs: NDArray[np.bool_] = np.any(np.abs(a.astype(np.int16) - b.astype(np.int16)) > tolerance, axis=2)
    return differs & ~_masked(a, masks)


def differing_share(a: Screenshot, b: Screenshot, masks: Sequence[Rectangle] = (), tolerance: int = 0) -> float:
    """Share of pixels, outside the masks, at which a channel differs by more than ``tolerance``; 1 if the sizes differ."""
    if a.shape != b.shape:
        return 1.0
    found = int(differing(a, b, masks, tolerance).sum())
    return found / int((~_masked(a, masks)).sum()) if found else 0.0


def _masked(screen: Screenshot, masks: Sequence[Rectangle]) -> NDArray[np.bool_]:
    masked = np.zeros(screen.shape[:2], bool)
    for x, y, width, height in masks:
        masked[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)] = True
    return masked


def parse_mask(text: str) -> Rectangle:
    """``x,y,width,height``.

    Raises:
        UsageError: it is not of that form.
    """
    sides = [side for part in text.split(",") if (side := whole(part.strip())) is not None]
    if len(sides) != 4 or text.count(",") != 3:
        raise UsageError(f"--mask {text!r} is not a rectangle.", "Give x,y,width,height in pixels, e.g. --mask 1700,0,220,30")
    x, y, width, height = sides
    return x, y, width, height

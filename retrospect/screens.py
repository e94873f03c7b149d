"""What changed between two screens, as a person would see it: regions and words, not pixels.

Video noise, a blinking text cursor and single specks are not changes; a focus ring, one typed letter and a pressed button are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from envs.base import Screenshot

BLOCK = 8
"""Side of the blocks in which differing pixels are counted, in pixels."""

CONTRAST = 24
"""Levels of 255 by which one channel must differ; JPEG and video noise stay below."""

MIN_PIXELS = 3
"""Differing pixels below which a block counts as unchanged (specks)."""

CARET_WIDTH, CARET_HEIGHT = 3, 32
"""A lone upright stroke up to this size (pixels) is a blinking text cursor, which changes by itself."""

MAX_BOXES = 8

_STRIDE = CARET_WIDTH + 1  # between sampled pixels: two neighbours cannot lie on one cursor


@dataclass(frozen=True)
class Box:
    """A region in pixels of the screenshot, right and bottom exclusive."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Change:
    """How a screen differs from the one before: its regions, largest first, and the share of the screen's pixels that differ."""

    boxes: tuple[Box, ...] = ()
    share: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.boxes)


def compare(before: Screenshot, after: Screenshot) -> Change:
    """The visible difference of two screens, each [H, W, 3] uint8; screens of different size differ everywhere."""
    height, width = after.shape[:2]
    if before.shape != after.shape:
        return Change((Box(0, 0, width, height),), 1.0)
    differs = _differing_pixels(before, after)  # [H, W]
    if not differs.any():
        return Change()
    counts = _count_per_block(differs)  # [H / BLOCK, W / BLOCK], rounded up
    labels, _ = ndimage.label(counts >= MIN_PIXELS, structure=np.ones((3, 3)))
    regions = []
    for label, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        members = np.kron(labels[rows, columns] == label, np.ones((BLOCK, BLOCK), dtype=bool))
        top, left = rows.start * BLOCK, columns.start * BLOCK
        pixels = differs[top : top + members.shape[0], left : left + members.shape[1]]
        pixels = pixels & members[: pixels.shape[0], : pixels.shape[1]]
        box = _bounds(pixels, left, top)
        if not _is_caret(box):
            regions.append((int(pixels.sum()), box))
    regions.sort(key=lambda region: (-region[0], region[1].top, region[1].left))
    return Change(tuple(box for _, box in regions[:MAX_BOXES]), sum(count for count, _ in regions) / (height * width))


def identify(screens: Sequence[Screenshot]) -> list[int]:
    """A number per screen: two screens have the same number if they look the same."""
    seen: list[Screenshot] = []
    numbers = []
    for screen in screens:
        match = next((number for number in range(len(seen) - 1, -1, -1) if _same(seen[number], screen)), len(seen))
        if match == len(seen):
            seen.append(screen)
        numbers.append(match)
    return numbers


def place(x: float, y: float, width: int, height: int) -> str:
    """Where a pixel lies, in words: one of nine fields, e.g. ``top left``, ``right``, ``middle``."""
    row = ("top", "", "bottom")[min(2, max(0, int(3 * y / height)))]
    column = ("left", "", "right")[min(2, max(0, int(3 * x / width)))]
    return f"{row} {column}".strip() or "middle"


def places(change: Change, width: int, height: int) -> tuple[str, ...]:
    """Where a change lies, in words, each once; ``("most of the screen",)`` when it covers more than half of it."""
    if any((box.right - box.left) * (box.bottom - box.top) > width * height / 2 for box in change.boxes):
        return ("most of the screen",)
    words = (place((box.left + box.right) / 2, (box.top + box.bottom) / 2, width, height) for box in change.boxes)
    return tuple(dict.fromkeys(words))


def _differing_pixels(before: Screenshot, after: Screenshot) -> NDArray[np.bool_]:
    differs = np.zeros(before.shape[:2], dtype=bool)
    rows = np.flatnonzero((before != after).any(axis=(1, 2)))
    if len(rows):  # most steps change a part of the screen only
        part = slice(rows[0], rows[-1] + 1)
        difference = np.maximum(before[part], after[part]) - np.minimum(before[part], after[part])  # stays uint8, never wraps
        differs[part] = np.maximum(np.maximum(difference[..., 0], difference[..., 1]), difference[..., 2]) > CONTRAST
    return differs


def _count_per_block(differs: NDArray[np.bool_]) -> NDArray[np.int64]:
    height, width = differs.shape
    padded = np.pad(differs, ((0, -height % BLOCK), (0, -width % BLOCK)))
    return padded.reshape(padded.shape[0] // BLOCK, BLOCK, padded.shape[1] // BLOCK, BLOCK).sum(axis=(1, 3))


def _bounds(pixels: NDArray[np.bool_], left: int, top: int) -> Box:
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    return Box(left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1)


def _is_caret(box: Box) -> bool:
    width, height = box.right - box.left, box.bottom - box.top
    return width <= CARET_WIDTH and width < height <= CARET_HEIGHT


def _same(one: Screenshot, other: Screenshot) -> bool:
    if one.shape != other.shape:
        return False
    sampled = _differing_pixels(one[::_STRIDE, ::_STRIDE], other[::_STRIDE, ::_STRIDE])
    across = sampled[:, 1:] & sampled[:, :-1]
    if (across[1:] & across[:-1]).any():  # four neighbours differ: neither speck nor cursor, so the exact comparison is spared
        return False
    return not compare(one, other)

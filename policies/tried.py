"""What a session has tried, screen by screen: which screens count as the same one, and which actions.

Screens are the same if they are equal but for what is restless.  What is restless shows where nothing was done: every attempt begins on the
same screen, so that what differs between two first screens (a clock, a picture that moves) changed by itself; its cells, and those around
them, are not looked at.  A text cursor is known by its shape: a solid stroke of one colour, at most three pixels wide, on one colour.  (A
letter drawn without grey edges as such a stroke is taken for one.)  Anything else that differs, a ticked box, a letter typed, makes another
screen.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from envs.actions import Action
from envs.base import Screenshot

CELL = 16
"""Side of the cells, in pixels, in which screens are compared."""

MOST_RESTLESS = 0.1
"""Two first screens that differ in a larger share of their cells are another page: nothing is learned from them."""

CARET = (3, 0.06)
"""A text cursor: at most this many pixels wide, and this share of the screen high."""

Actions = tuple[Action, ...]
Step = TypeVar("Step")


@dataclass(frozen=True)
class SeenScreen:
    """A screen as it is remembered: its size, a hash of every cell [rows, columns], and its pixels, compressed."""

    size: tuple[int, int]
    cells: NDArray[np.uint64]
    packed: bytes

    def pixels(self) -> Screenshot:
        """[height, width, 3] uint8."""
        width, height = self.size
        return np.frombuffer(zlib.decompress(self.packed), dtype=np.uint8).reshape(height, width, 3)


def look_at(screenshot: Screenshot) -> SeenScreen:
    """``screenshot`` [height, width, 3] uint8, to be compared later."""
    height, width, _ = screenshot.shape
    rows, columns = -(-height // CELL), -(-width // CELL)
    padded = np.zeros((rows * CELL, columns * CELL, 3), dtype=np.uint8)
    padded[:height, :width] = screenshot
    cells = padded.reshape(rows, CELL, columns, CELL * 3).transpose(0, 2, 1, 3).reshape(rows, columns, -1)
    return SeenScreen(
        (width, height), cells.astype(np.uint64) @ _weights(), zlib.compress(np.ascontiguousarray(screenshot).data, 1)
    )


@cache
def _weights() -> NDArray[np.uint64]:
    return np.random.default_rng(0).integers(1, 2**63, CELL * CELL * 3, dtype=np.uint64)


class TriedActions:
    """The actions of one session, by the screen they were done on.

    Args:
        radius: Points nearer to each other than this share of the screen's shorter side are one place.
    """

    def __init__(self, radius: float) -> None:
        self.radius = radius
        self._earlier: list[tuple[SeenScreen, Actions]] = []
        self._now: list[tuple[SeenScreen, Actions]] = []
        self._first: list[SeenScreen] = []

    def begin(self, *, again: bool) -> None:
        """An attempt begins; ``again``: under the number of the last one, which was void and is forgotten."""
        self._earlier += [] if again else self._now
        self._now = []

    def first(self, look: SeenScreen) -> None:
        """The first screen of an attempt."""
        if not any(np.array_equal(look.cells, other.cells) for other in self._first):
            self._first.append(look)

    def add(self, look: SeenScreen, actions: Actions) -> None:
        """``actions`` were done on this screen in the attempt in flight."""
        self._now.append((look, actions))

    def recall(self, steps: Sequence[tuple[SeenScreen, Actions]]) -> None:
        """What was done in an attempt made earlier, and blamed."""
        self._earlier += steps

    def blame(self, credit: Sequence[float]) -> None:
        """Of the attempt just made, only what has a negative credit counts as tried; ``credit``: one number per step."""
        self._now = blamed(self._now, credit)

    def on(self, look: SeenScreen) -> tuple[Actions, ...]:
        """What was tried on this screen."""
        return tuple(actions for seen, actions in (*self._earlier, *self._now) if self.same(seen, look))

    def same(self, a: SeenScreen, b: SeenScreen) -> bool:
        """Whether two screens are equal but for what is restless."""
        if a.size != b.size:
            return False
        differ = (a.cells != b.cells) & ~self._restless(a.cells.shape)
        if not differ.any():
            return True
        _width, height = a.size
        tall = CARET[1] * height
        return int(differ.sum()) <= 2 * (2 + tall // CELL) and _is_caret(a.pixels(), b.pixels(), differ, tall)

    def _restless(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Cells that change by themselves, and those around them."""
        found = np.zeros(shape, dtype=bool)
        firsts = [look.cells for look in self._first if look.cells.shape == shape]
        for other in firsts[1:]:
            differ = other != firsts[0]
            if differ.mean() <= MOST_RESTLESS:
                found |= differ
        wide = np.pad(found, 1)
        around = [wide[i : i + shape[0], j : j + shape[1]] for i in range(3) for j in range(3)]
        return np.logical_or.reduce(around)


def blamed(steps: Sequence[Step], credit: Sequence[float]) -> list[Step]:
    """The steps whose credit is negative; all of them where there is no credit for each."""
    return [step for step, r in zip(steps, credit, strict=True) if r < 0] if len(credit) == len(steps) else list(steps)


def _is_caret(a: Screenshot, b: Screenshot, cells: NDArray[np.bool_], tall: float) -> bool:
    height, width, _ = a.shape
    counted = np.kron(cells, np.ones((CELL, CELL), dtype=bool))[:height, :width]
    rows, columns = np.nonzero((a != b).any(axis=2) & counted)
    wide, high = int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1
    if wide > CARET[0] or high > tall or high < 2 * wide or len(rows) != wide * high:
        return False
    return all(bool((some[rows, columns] == some[rows[0], columns[0]]).all()) for some in (a, b))


def alike(a: Actions, b: Actions, radius: float) -> bool:
    """Whether two replies do the same: equal actions, their points at most ``radius`` pixels apart."""
    return len(a) == len(b) and all(_alike(x, y, radius) for x, y in zip(a, b, strict=True))


def _alike(a: Action, b: Action, radius: float) -> bool:
    if type(a) is not type(b):
        return False
    mine, other = dataclasses.asdict(a), dataclasses.asdict(b)
    for names in (("x", "y"), ("end_x", "end_y")):
        if names[0] not in mine:
            continue
        places = [[action.pop(name) for name in names] for action in (mine, other)]
        # A scroll has an end only where the agent drew the finger's way itself; one with an end and one without differ.
        known = [None not in place for place in places]
        if known[0] != known[1] or (known[0] and math.dist(*places) > radius):
            return False
    return mine == other

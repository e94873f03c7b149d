"""Gymnasium spaces that Gymnasium does not have: text of any characters, and the actions of an environment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, fields
from typing import Any, ClassVar

import gymnasium as gym
from gymnasium.spaces import Text

from envs import actions as act


class AnyText(Text):
    """Text of any characters; Gymnasium's own ``Text`` must list its alphabet."""

    def __init__(self, max_length: int = 1_000_000) -> None:
        super().__init__(max_length=max_length, min_length=0)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        return "".join(chr(c) for c in self.np_random.integers(32, 127, size=int(self.np_random.integers(0, 32))))

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and len(x) <= self.max_length


class ActionSpace(gym.Space[Any]):
    """The actions an environment understands: an :class:`~envs.actions.Action` or a tuple of them (one reply, one step).

    Raises:
        ValueError: on construction, for actions that have a place on a screen: those need a :class:`ScreenActionSpace`.
    """

    on_screen: ClassVar[bool] = False

    def __init__(self, kinds: Iterable[type[act.Action]], seed: int | None = None) -> None:
        self.kinds = tuple(kinds)
        if not self.on_screen and (pointed := [kind.kind for kind in self.kinds if kind in act.POINTED]):
            raise ValueError(f"{', '.join(pointed)} need a place on a screen: use ScreenActionSpace.")
        super().__init__(shape=None, dtype=None, seed=seed)

    def sample(self, mask: Any = None, probability: Any = None) -> act.Action:
        kind = self.kinds[int(self.np_random.integers(len(self.kinds)))]
        needed = {f.name for f in fields(kind) if f.default is MISSING}
        return kind(**{name: value for name, value in self._values().items() if name in needed})

    def _values(self) -> dict[str, Any]:
        """A value for every field without a default that an action of this space may have; keys are those that every guest knows."""
        keys = ("shift",) if self.np_random.integers(2) else ("tab",)
        return {"text": "abc", "keys": keys, "name": "Settings", "reason": "sampled"}

    def contains(self, x: Any) -> bool:
        return all(self._contains_one(a) for a in x) if isinstance(x, tuple) and x else self._contains_one(x)

    def _contains_one(self, action: Any) -> bool:
        known: tuple[type[act.Action], ...] = (act.Invalid, *self.kinds)
        return isinstance(action, known) and not act.problem(action)

    @property
    def is_np_flattenable(self) -> bool:
        return False

    def to_jsonable(self, sample_n: Iterable[Any]) -> list[Any]:
        return [act.to_json(a) for a in sample_n]

    def from_jsonable(self, sample_n: list[Any]) -> list[Any]:
        return [act.from_json(a) for a in sample_n]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActionSpace) and type(other) is type(self) and other.kinds == self.kinds


class ScreenActionSpace(ActionSpace):
    """Actions on a screen of ``width`` x ``height`` pixels: those that have a place have it on the screen."""

    on_screen = True

    def __init__(self, kinds: Iterable[type[act.Action]], width: int, height: int, seed: int | None = None) -> None:
        self.width, self.height = width, height
        super().__init__(kinds, seed=seed)

    def _values(self) -> dict[str, Any]:
        x, end_x = (float(v) for v in self.np_random.integers(0, self.width, 2))
        y, end_y = (float(v) for v in self.np_random.integers(0, self.height, 2))
        direction = act.DIRECTIONS[int(self.np_random.integers(4))]
        return {**super()._values(), "x": x, "y": y, "end_x": end_x, "end_y": end_y, "direction": direction}

    def _contains_one(self, action: Any) -> bool:
        if not super()._contains_one(action):
            return False
        if not isinstance(action, act.POINTED):
            return True
        points = [(action.x, action.y)]
        if isinstance(action, act.Drag | act.Scroll) and action.end_x is not None and action.end_y is not None:
            points.append((action.end_x, action.end_y))
        return all(0 <= px < self.width and 0 <= py < self.height for px, py in points)

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and (self.width, self.height) == (other.width, other.height)  # type: ignore[attr-defined]

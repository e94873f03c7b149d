"""Environments with a screen: what the agent sees is a picture, and actions have places on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from envs import actions as act
from envs.base import Modality, Observation, Screenshot, TaskEnv, picture
from envs.spaces import ScreenActionSpace

Rectangle = tuple[int, int, int, int]
"""x, y, width, height in pixels."""

LOOK_AGAIN_SECONDS = 0.15
"""Between two looks at a screen that is waited for."""


class GUIEnv(TaskEnv):
    """Base of the graphical environments: a screen of ``width`` x ``height`` pixels and the actions ``kinds`` on it.

    An environment that also gives a text adds it to its observation space, and to ``shows``.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 1}
    shows: ClassVar[frozenset[Modality]] = frozenset({"picture"})
    _outside = "is off the screen or unknown to this environment"

    def __init__(self, *, width: int, height: int, kinds: Iterable[type[act.Action]], render_mode: str | None = None) -> None:
        super().__init__(
            observation_space=gym.spaces.Dict({"screenshot": _pictures(width, height)}),
            action_space=ScreenActionSpace(kinds, width, height),
            render_mode=render_mode,
        )
        self._expected: tuple[Callable[[Screenshot], bool], float] | None = None

    def _turned(self, width: int, height: int) -> None:
        """The screen has another size from now on (a phone was turned): new spaces, since those that somebody holds may not change."""
        assert isinstance(self.observation_space, gym.spaces.Dict) and isinstance(self.action_space, ScreenActionSpace)
        self.observation_space = gym.spaces.Dict({**self.observation_space.spaces, "screenshot": _pictures(width, height)})
        self.action_space = ScreenActionSpace(self.action_space.kinds, width, height)

    def restless(self) -> tuple[Rectangle, ...]:
        """Parts of the screen that change by themselves (a clock), in pixels of the current episode's screen."""
        return ()

    def expect(self, same: Callable[[Screenshot], bool] | None, seconds: float = 0.0) -> None:
        """The next calls of ``reset`` and ``step`` look again, for up to ``seconds``, while ``same`` is false of the screen.

        For replays: a text cursor blinks and a window may be drawn late, so that a screen counts as another one only if it stays so.
        """
        self._expected = (same, seconds) if same is not None else None

    def _observed(self) -> Observation:
        observation = super()._observed()
        if self._expected is not None:
            same, seconds = self._expected
            until = time.monotonic() + seconds
            while not same(picture(observation)) and time.monotonic() < until:
                time.sleep(LOOK_AGAIN_SECONDS)
                observation = super()._observed()
        return observation

    def render(self) -> Screenshot | None:
        return None if self._observation is None else self._observation["screenshot"]


def _pictures(width: int, height: int) -> gym.spaces.Box:
    return gym.spaces.Box(0, 255, shape=(height, width, 3), dtype=np.uint8)

"""Environments without a screen: what the agent sees is a text, and what it does is to say something."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import gymnasium as gym

from envs import actions as act
from envs.base import MAX_TEXT, Modality, TaskEnv
from envs.spaces import ActionSpace, AnyText

KINDS: tuple[type[act.Action], ...] = (act.Answer, act.Finished, act.Fail, act.Invalid)
"""What can be done where there is nothing but words: answer, declare the task done or impossible."""


class TextEnv(TaskEnv):
    """Base of the text environments.

    Observation: ``{"text": str}``, at most :data:`envs.base.MAX_TEXT` characters.  The agent's turn is ``Answer(text)``; whether it
    ends the episode is the benchmark's to say (``_ended``).  A subclass implements ``_start``, ``_execute``, ``_observe`` and
    ``_grade``; what a user could say to a failed attempt is ``_feedback``.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}
    shows: ClassVar[frozenset[Modality]] = frozenset({"text"})

    def __init__(self, *, kinds: Iterable[type[act.Action]] = KINDS, render_mode: str | None = None) -> None:
        super().__init__(
            observation_space=gym.spaces.Dict({"text": AnyText(MAX_TEXT)}),
            action_space=ActionSpace(kinds),
            render_mode=render_mode,
        )

    def render(self) -> str | None:
        return None if self._observation is None else self._observation["text"]

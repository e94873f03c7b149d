"""What one worker owns: an environment, reused from task to task and made anew after the machinery broke."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Protocol

from envs.base import Environment, TaskEnv, TaskSpec
from envs.errors import InfrastructureError
from envs.suites import make_env


class Slot(Protocol):
    """Holds at most one environment, of this process or elsewhere; used by one thread only."""

    def get(self, task: TaskSpec) -> Environment:
        """The environment of ``task``.

        Raises:
            InfrastructureError, SetupError: it cannot be made.
        """

    def renew(self) -> None:
        """The machinery broke: the next :meth:`get` makes another environment."""

    def idle(self) -> None:
        """A session has ended, and the next may be long in coming."""

    def close(self) -> None:
        """May be called twice."""


class EnvSlot:
    """A :class:`Slot` of this process (browsers and devices are bound to their thread)."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = dict(options)
        self._env: TaskEnv | None = None
        self._env_id = ""

    def get(self, task: TaskSpec) -> TaskEnv:
        """The environment of ``task``.

        Raises:
            InfrastructureError, SetupError: it cannot be made.
        """
        if self._env is None or self._env_id != task.env_id:
            self.close()
            self._env, self._env_id = make_env(task, **self._options), task.env_id
        return self._env

    def renew(self) -> None:
        """The machinery broke: the next :meth:`get` makes another environment."""
        env, self._env = self._env, None
        if env is not None:
            with contextlib.suppress(InfrastructureError):  # it is broken already; all that matters is that it is released
                env.close()

    def idle(self) -> None:
        """What it holds stays, for the next session."""

    def close(self) -> None:
        """May be called twice."""
        env, self._env = self._env, None
        if env is not None:
            env.close()

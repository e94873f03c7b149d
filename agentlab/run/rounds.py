"""The order in which workers get tasks: round after round; a round begins when all sessions of the one before have ended."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from envs.base import TaskSpec

WAIT = 0.5
"""Seconds between two looks at whether the run is being stopped."""


@dataclass(frozen=True)
class NextTask:
    """A task and the number of its round."""

    task: TaskSpec
    round: int


class Rounds:
    """Hands out the tasks of ``rounds``; threads share it.

    Args:
        rounds: Tasks that are left to do, per round.
        end: Called with a round's number, by one thread, when all of its sessions have ended and before the next round begins.
        stop: Set when the run is being stopped.
    """

    def __init__(self, rounds: Sequence[Sequence[TaskSpec]], end: Callable[[int], None], stop: threading.Event) -> None:
        self._rounds, self._end, self._stop = rounds, end, stop
        self._changed = threading.Condition()
        self._number, self._out = -1, 0
        self._left: deque[TaskSpec] = deque()

    def get(self) -> NextTask | None:
        """The next task; None if there is none left, or the run is being stopped."""
        with self._changed:
            while not self._stop.is_set():
                if self._left:
                    self._out += 1
                    return NextTask(self._left.popleft(), self._number)
                if not self._out and not self._next():
                    return None
                if self._out:
                    self._changed.wait(WAIT)
            return None

    def done(self) -> None:
        """A session that was handed out has ended.  (Of one that was interrupted or broke the run this is never said.)"""
        with self._changed:
            self._out -= 1
            self._changed.notify_all()

    def _next(self) -> bool:
        """End the round and begin the next one; False if there is none."""
        if self._number >= len(self._rounds):
            return False
        if self._number >= 0:
            self._end(self._number)
        self._number += 1
        if self._number >= len(self._rounds):
            self._changed.notify_all()
            return False
        self._left.extend(self._rounds[self._number])
        self._changed.notify_all()
        return True

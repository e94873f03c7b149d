"""One at a time, in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class Turns:
    """A lock that is handed to whoever has waited longest.

    ``threading.Lock`` lets the thread that has just released it take it again before anybody who waits wakes up.  Where one thread
    answers batch after batch, all others wait for seconds to look something up, and are missing from every batch meanwhile.
    """

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        turn = threading.Lock()
        with self._gate:
            if not self._taken:
                self._taken = True
                return
            turn.acquire()
            self._waiting.append(turn)
        try:
            turn.acquire()
        except BaseException:  # Ctrl-C: nobody is to wait for one who has left
            with self._gate:
                mine = turn in self._waiting
                if mine:
                    self._waiting.remove(turn)
            if not mine:  # it was handed over just then
                self._hand_on()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._hand_on()

    def _hand_on(self) -> None:
        with self._gate:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False

"""Which node an environment is made on: where there is room, away from nodes that failed lately."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentlab.cluster.connection import JOIN, Node
from envs.errors import InfrastructureError, SetupError

LOOK_SECONDS = 1.0
"""Between two looks at which nodes live."""
WAIT_SECONDS = 0.25
GONE_SECONDS = 600.0
"""How long a run waits for a node when none is left that has room, before it stops."""
SUSPECT = 2
"""Failures in a row after which a node is left alone for a while, and avoided by sessions that something has failed in."""
REST_SECONDS, LONGEST_REST = 30.0, 600.0
"""How long it is left alone; twice as long each time after that."""


@dataclass
class _Account:
    """What is known of a node.

    Attributes:
        used: Environments of this run on it.
        failures: In a row, since something last worked on it.
        rests_until: When it may be used again.
        error: Why it was left last.
    """

    node: Node
    used: int = 0
    failures: int = 0
    rests_until: float = 0.0
    error: Exception | None = field(default=None, repr=False)


class Places:
    """The nodes' room, as far as this run uses it; threads share it.

    Args:
        place: What one environment takes one of, e.g. ``desktops``.
        look: The cluster's nodes now.
        say: Gets a line when a node comes or goes.
        clock: Seconds, for tests.
    """

    def __init__(
        self,
        place: str,
        look: Callable[[], Sequence[Node]],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.place, self._look, self._say, self._clock = place, look, say, clock
        self._accounts: dict[str, _Account] = {}
        self._living: set[str] = set()
        self._parked: list[tuple[Node, Any]] = []
        self._changed = threading.Condition()
        self._looked = self._seen = clock()
        self._refresh(first=True)

    def room(self) -> int:
        """How many environments the living nodes have room for."""
        with self._changed:
            return sum(account.node.room(self.place) for account in self._accounts.values() if account.node.id in self._living)

    def summary(self) -> str:
        """``nodes 3 of 4``: alive, and ever seen."""
        with self._changed:
            return f"nodes {len(self._living)} of {len(self._accounts)}"

    def take(self, stop: threading.Event, *, careful: bool = False) -> tuple[Node, Any]:
        """A node with what is parked on it, or one that has room for one more (and None); waits until there is one.

        Args:
            stop: Set when the run is being stopped.
            careful: Rather wait for another than take a node that failed several times in a row.

        Raises:
            InfrastructureError: the run is being stopped.
            SetupError: no node with such room is left, or all lack something.
        """
        with self._changed:
            while True:
                if stop.is_set():
                    raise InfrastructureError("The run is being stopped.", component="cluster")
                self._refresh()
                for parked in [p for p in self._parked if p[0].id in self._living]:
                    self._parked.remove(parked)
                    return parked
                now = self._clock()
                here = self._here()
                avoid = careful and any(a.failures < SUSPECT for a in here)
                free = [a for a in here if a.used < a.node.room(self.place) and a.rests_until <= now]
                free = [a for a in free if not (avoid and a.failures >= SUSPECT)]
                if free:
                    best = min(free, key=lambda a: (a.failures, a.used / a.node.room(self.place), a.node.name))
                    best.used += 1
                    return best.node, None
                self._refuse_if_hopeless(now)
                self._changed.wait(WAIT_SECONDS)

    def park(self, node: Node, what: Any) -> None:
        """Leave what is on ``node``, whose place stays taken, to the next who takes."""
        with self._changed:
            self._parked.append((node, what))
            self._changed.notify_all()

    def parked(self) -> list[tuple[Node, Any]]:
        """All that is parked, to be given back: nobody takes it any more."""
        with self._changed:
            parked, self._parked = self._parked, []
            return parked

    def give_back(self, node: Node, error: Exception | None = None) -> None:
        """An environment is not on ``node`` any more; ``error``: because something failed there."""
        with self._changed:
            account = self._accounts[node.id]
            account.used -= 1
            if error is not None:
                account.failures += 1
                account.error = error
                more = account.failures - SUSPECT
                rest = min(REST_SECONDS * 2 ** min(more, 10), LONGEST_REST) if more >= 0 else 0.0
                account.rests_until = self._clock() + rest
                self._looked = -LOOK_SECONDS  # it may be gone: look at once
            self._changed.notify_all()

    def worked(self, node: Node) -> None:
        """An episode on ``node`` ended as it should."""
        with self._changed:
            account = self._accounts[node.id]
            account.failures, account.rests_until, account.error = 0, 0.0, None

    def _here(self) -> list[_Account]:
        return [self._accounts[name] for name in sorted(self._living)]

    def _refresh(self, *, first: bool = False) -> None:
        now = self._clock()
        if not first and now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        found = {node.id: node for node in self._look() if node.room(self.place) or node.id in self._accounts}
        living = {name for name, node in found.items() if node.alive}
        for name in living - self._accounts.keys():
            self._accounts[name] = _Account(found[name])
            if not first:
                self._say(f"{found[name].name} has joined the cluster.")
        gone = [self._accounts[name].node.name for name in sorted(self._living - living)]
        self._living = living
        for name in gone:
            self._say(
                f"{name} is gone; what it was doing is done again elsewhere ({len(living)} of {len(self._accounts)} nodes left)."
            )
        if living:
            self._seen = now

    def _refuse_if_hopeless(self, now: float) -> None:
        here = self._here()
        if not here and now - self._seen > GONE_SECONDS:
            raise SetupError(
                f"No node of the cluster with {self.place or 'processors'} has been there for {GONE_SECONDS / 60:.0f} minutes.",
                f"Start some (`{JOIN}`); the same command continues the run.",
            )
        if here and all(a.failures >= SUSPECT and isinstance(a.error, SetupError) for a in here):
            raise next(a.error for a in here if a.error is not None)

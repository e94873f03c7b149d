"""Sessions run in threads of their own; the model answers them in batches.

There is no extra thread: the first caller that finds the model free collects what is waiting and runs it for everybody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from envs.errors import PolicyError

Question = TypeVar("Question")
Result = TypeVar("Result")

_POLL_S = 1.0
"""Upper bound of a single wait; what is waited for always notifies earlier."""


@dataclass(frozen=True)
class Again(Generic[Question]):
    """Instead of a result: what is to be asked in the next batch, in the place of the question."""

    question: Question


class _Ticket(Generic[Question, Result]):
    def __init__(self, question: Question) -> None:
        self.question = question
        self.result: Result | None = None
        self.error: BaseException | None = None
        self.done = False


class Batcher(Generic[Question, Result]):
    """Collects concurrent calls.

    A batch starts as soon as every session known to be acting waits, or ``max_batch`` do, or ``window_s`` seconds after the model
    became free: a session that is busy with its environment delays the others no longer.
    """

    def __init__(
        self, run: Callable[[Sequence[Question]], Sequence[Result | Again[Question]]], *, max_batch: int, window_s: float = 0.02
    ) -> None:
        self._run = run
        self._max_batch, self._window_s = max_batch, window_s
        self._changed = threading.Condition()
        self._waiting: list[_Ticket[Question, Result]] = []
        self._acting: set[Hashable] = set()
        self._busy = False

    def enter(self, session: Hashable) -> None:
        """``session`` is in an attempt: its next call is worth waiting for.  May be called twice."""
        with self._changed:
            self._acting.add(session)

    def leave(self, session: Hashable) -> None:
        """``session`` is not acting any more.  May be called twice."""
        with self._changed:
            self._acting.discard(session)
            self._changed.notify_all()

    @property
    def acting(self) -> int:
        """Sessions that are in an attempt."""
        with self._changed:
            return len(self._acting)

    def limit(self, max_batch: int) -> None:
        """Collect no more than ``max_batch`` from now on: more has turned out not to fit into memory."""
        with self._changed:
            self._max_batch = min(self._max_batch, max_batch)

    def submit(self, question: Question) -> Result:
        """Block until the batch with ``question`` has run; an error of the batch is raised in each of its callers."""
        ticket: _Ticket[Question, Result] = _Ticket(question)
        with self._changed:
            self._waiting.append(ticket)
            self._changed.notify_all()
        while not ticket.done:
            batch = self._next_batch(ticket)
            if batch:
                self._answer(batch)
        if ticket.error is not None:
            raise ticket.error
        return ticket.result  # type: ignore[return-value]

    def _next_batch(self, ticket: _Ticket[Question, Result]) -> list[_Ticket[Question, Result]]:
        """Wait until ``ticket`` is answered (empty list) or its caller has to run the next batch."""
        with self._changed:
            while self._busy and not ticket.done:
                self._changed.wait(_POLL_S)
            if ticket.done:
                return []
            self._busy = True
            deadline = time.monotonic() + self._window_s
            while len(self._waiting) < min(self._max_batch, len(self._acting)):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            batch, self._waiting = self._waiting[: self._max_batch], self._waiting[self._max_batch :]
            return batch

    def _answer(self, batch: list[_Ticket[Question, Result]]) -> None:
        again: list[_Ticket[Question, Result]] = []
        try:
            results = self._run([t.question for t in batch])
            for ticket, result in zip(batch, results, strict=True):
                if isinstance(result, Again):
                    ticket.question = result.question
                    again.append(ticket)
                else:
                    ticket.result = result
        except BaseException as error:
            again = []
            for ticket in batch:
                # Ctrl-C belongs to the thread it reached; the others only learn that their answer will not come.
                ticket.error = error if isinstance(error, Exception) else PolicyError("Generation was interrupted.")
            if not isinstance(error, Exception):
                raise
        finally:
            with self._changed:
                for ticket in batch:
                    ticket.done = ticket not in again
                self._waiting = again + self._waiting
                self._busy = False
                self._changed.notify_all()

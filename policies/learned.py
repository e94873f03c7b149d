"""What a session with a head adapter does between attempts, whatever its prompts are made of.

A subclass acts, and says how the prompt of an earlier step looks under other guidance; recording, updating, undoing, saving and
scoring under a refined context are here.
"""

from __future__ import annotations

import abc
import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from envs.errors import AdaptationError, PolicyError, UsageError
from policies.backbone import Backbone
from policies.base import Passes, Update
from policies.generation import Generation, Prompt
from policies.learner import HeadLearner
from policies.marks import frame_tokens
from policies.prior.session import StartingSession


class LearnedSession(StartingSession):
    """One task with a head adapter of its own, if the weights adapt.

    A reply's last token, where it ends the turn, enters the equations with reward 0: were it pushed away like the answer before it, a
    failed "20" would become "2000000…" instead of another number.

    Args:
        engine: The shared backbone.
        learner: The adapter; None if the weights do not adapt.
    """

    _pieces_per_reply = 2  # its end is recorded by itself

    def __init__(self, engine: Backbone, learner: HeadLearner | None) -> None:
        self.engine, self.learner = engine, learner
        self._replies: list[Tensor] = []  # y of every step of the attempt

    def captured(self) -> list[tuple[Tensor, Tensor]]:
        """(H [n, d], y [n]) of every reply of the attempt in flight, in order."""
        pieces = self._learner().capture()
        hidden, sizes = torch.cat([h for h, _ in pieces]), [len(tokens) for tokens in self._replies]
        return list(zip(hidden.split(sizes), self._replies, strict=True))

    @abc.abstractmethod
    def _prompt_under(self, guidance: str, step: int) -> Prompt:
        """The prompt of reply ``step`` (0-based) of this attempt, under other guidance."""

    def _record(self, reply: Generation) -> None:
        """The next reply of the attempt."""
        if self.learner is None or reply.hidden is None:
            return
        self._note(self.learner, reply.hidden, reply.tokens, len(self._replies))
        self._replies.append(reply.tokens)

    def _note(self, learner: HeadLearner, hidden: Tensor, tokens: Tensor, step: int) -> None:
        ends = len(tokens) > 1 and int(tokens[-1]) in self.engine.stop_ids
        n = len(tokens) - ends
        frame = frame_tokens(self.engine.pieces(tokens)) if learner.wants_frame else None
        if frame is not None:
            frame[n:] = True
        learner.record(hidden[:n], tokens[:n], 2 * step, frame=None if frame is None else frame[:n])
        learner.record(
            hidden[n:], tokens[n:], 2 * step + 1, frame=None if frame is None else frame[n:]
        )  # the end of the turn: protected

    @staticmethod
    def _of_pieces(rewards: Sequence[float]) -> list[float]:
        """Rewards of what :meth:`_note` recorded: each step's, and 0 for its end."""
        return [value for reward in rewards for value in (reward, 0.0)]

    def adapt(self, rewards: Sequence[float], *, refined: str | None = None, guidance: str | None = None) -> Update | None:
        """See :meth:`policies.base.PolicySession.adapt`."""
        self.engine.leave(id(self))
        if self.learner is None:
            return None
        try:
            numbers = None if refined is None else self._error_terms(refined, rewards)
            guided = None if not guidance else self._under(guidance).capture()
            update = self._in_steps(self.learner.update(self._of_pieces(rewards), guided))
            scored = len(self._replies) * ((refined is not None) + (guided is not None))
            update = dataclasses.replace(update, passes=Passes(scored, scored))
        finally:
            self._forget()
        return update if numbers is None else dataclasses.replace(update, numbers={**update.numbers, **numbers})

    def _error_terms(self, guidance: str, rewards: Sequence[float]) -> dict[str, Any]:
        """‖R‖ and ‖Δθ‖² of ROSA2 Theorem 4.1, in the attempt's own context (``raw``) and under ``guidance`` (``refined``).

        Numbers for the record only: if they are unavailable, the record says why, and the update is still made.
        """
        assert self.learner is not None
        try:
            # Of a copy, whose capture is dropped: that of the attempt itself stays.
            raw = copy.copy(self.learner).residual(self._of_pieces(rewards))
            return {"raw": raw, "refined": self._under(guidance).residual(self._of_pieces(rewards))}
        except (AdaptationError, PolicyError) as error:
            return {"refined": {"error": error.message}}

    def _under(self, guidance: str) -> HeadLearner:
        """A copy of the learner with the attempt's replies as they look under ``guidance``: a teacher-forced pass per step."""
        assert self.learner is not None
        scratch = copy.copy(self.learner)
        scratch.discard()  # of the copy: the capture of the attempt itself stays
        for step, tokens in enumerate(self._replies):
            score = self.engine.score(self._prompt_under(guidance, step), tokens, self.learner.adapter)
            self._note(scratch, score.hidden, tokens, step)
        return scratch

    def _in_steps(self, update: Update) -> Update:
        """The update with the texts of its tokens, a reply and its end put together again."""
        parts: dict[int, list[Any]] = {}
        for reply in update.replies:
            parts.setdefault(reply.step // 2, []).append(reply)
        replies = []
        for step, some in parts.items():
            before, after = (tuple(v for part in some for v in getattr(part, name)) for name in ("before", "after"))
            if len(before) == len(self._replies[step]):
                pieces = tuple(self.engine.pieces(self._replies[step]))
                replies.append(dataclasses.replace(some[0], step=step, before=before, after=after, pieces=pieces))
        return dataclasses.replace(update, replies=tuple(replies))

    def discard(self) -> None:
        self._forget()
        self.engine.leave(id(self))

    def _forget(self) -> None:
        self._replies = []
        if self.learner is not None:
            self.learner.discard()

    def rollback(self) -> None:
        self._learner().rollback()

    def save_adapter(self, folder: Path) -> bool:
        return self.learner.save(folder) if self.learner is not None else False

    def load_adapter(self, folder: Path) -> None:
        self._learner().load(folder)

    def _learner(self) -> HeadLearner:
        if self.learner is None:
            raise UsageError("This session adapts no weights.", "Open it with a weight adaptation.")
        return self.learner

    def close(self) -> None:
        self.engine.leave(id(self))
        self._forget()
        self.learner = None

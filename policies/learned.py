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
from policies.learner import Capture, HeadLearner
from policies.marks import coordinate_tokens, frame_tokens
from policies.prior.session import StartingSession


class LearnedSession(StartingSession):
    """One task with a head adapter of its own, if the weights adapt.

    Attributes:
        engine: The shared backbone.
        learner: The adapter; None if the weights do not adapt.
    """

    engine: Backbone
    _replies: list[Tensor]  # y of every step of the attempt, for scoring it under another prompt

    def _learn_with(self, learner: HeadLearner | None) -> None:
        """Begin with a learner, and nothing recorded."""
        self.learner, self._replies = learner, []
        if learner is not None:
            learner.pieces_per_reply = self._pieces_per_reply

    @abc.abstractmethod
    def _prompt_under(self, guidance: str, step: int) -> Prompt:
        """The prompt of reply ``step`` (0-based) of this attempt, under other guidance."""

    def captured(self) -> Capture:
        """(H [n, d], y [n]) of every reply of the attempt in flight, in order."""
        return [self._whole(pieces) for pieces in self._learner().capture_by_step(self._pieces_per_reply)]

    def _record(self, reply: Generation) -> None:
        """The next reply of the attempt."""
        if self.learner is None or reply.hidden is None:
            return
        self._note(self.learner, reply.hidden, reply.tokens, len(self._replies))
        self._replies.append(reply.tokens)

    # -- how a reply is recorded ---------------------------------------------------------------------------------------------------
    def _note(self, learner: HeadLearner, hidden: Tensor, tokens: Tensor, step: int) -> None:
        learner.record(hidden, tokens, step, **self._marks(learner, tokens))

    def _marks(self, learner: HeadLearner, tokens: Tensor) -> dict[str, Tensor]:
        """What the method of the weights needs to know of a reply's tokens besides H."""
        marks: dict[str, Tensor] = {}
        if learner.wants_coordinates:
            marks["coordinates"] = coordinate_tokens(self.engine.pieces(tokens))
        if learner.wants_frame:
            ends = torch.tensor([token in self.engine.stop_ids for token in tokens.tolist()])
            marks["frame"] = ends | frame_tokens(self.engine.pieces(tokens))
        return marks

    def _of_pieces(self, rewards: Sequence[float]) -> list[float]:
        """The reward of everything that :meth:`_note` recorded, by the rewards of the steps."""
        return list(rewards)

    def _in_steps(self, update: Update) -> Update:
        """The update with the texts of its tokens, one entry per step."""
        replies = [dataclasses.replace(r, pieces=tuple(self.engine.pieces(self._replies[r.step]))) for r in update.replies]
        return dataclasses.replace(update, replies=tuple(replies))

    # -- learning ------------------------------------------------------------------------------------------------------------------
    def adapt(self, rewards: Sequence[float], *, refined: str | None = None, guidance: str | None = None) -> Update | None:
        """See :meth:`policies.base.PolicySession.adapt`.

        With ``refined`` guidance, the attempt is also scored under it in a teacher-forced pass per step (ROSA2 Theorem 4.1), and
        the update's numbers get the entries ``raw`` and ``refined``.
        """
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
        credit = self._of_pieces(rewards)
        try:
            # Of a copy, whose capture is dropped: that of the attempt itself stays.
            raw = copy.copy(self._learner()).residual(credit)
            return {"raw": raw, "refined": self._under(guidance).residual(credit)}
        except (AdaptationError, PolicyError) as error:
            return {"refined": {"error": error.message}}

    def _under(self, guidance: str) -> HeadLearner:
        """A copy of the learner with the attempt's replies as they look under ``guidance``: a teacher-forced pass per step."""
        learner = self._learner()
        scratch = copy.copy(learner)
        scratch.discard()  # of the copy: the capture of the attempt itself stays
        for step, tokens in enumerate(self._replies):
            score = self.engine.score(self._prompt_under(guidance, step), tokens, learner.adapter)
            self._note(scratch, score.hidden, tokens, step)
        return scratch

    def discard(self) -> None:
        super().discard()
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
        super().close()
        self.engine.leave(id(self))
        self._forget()
        self.learner = None

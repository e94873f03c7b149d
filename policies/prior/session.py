"""What a session with a head does for experience: start from θ₁, and give the tokens of an attempt it went through."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from envs.errors import UsageError
from policies.adapters.base import HeadAdapter
from policies.base import PolicySession
from policies.learner import HeadLearner
from policies.prior.step import Rows, kept


class StartingSession(PolicySession):
    """A session with a head adapter of its own, if its weights adapt (``learner``) or it starts from some (:meth:`start`)."""

    engine: Any
    learner: HeadLearner | None
    _theta_1: HeadAdapter | None = None

    @property
    def adapter(self) -> HeadAdapter | None:
        """What the session acts with; None is the frozen policy."""
        return self._theta_1 if self.learner is None else self.learner.adapter

    def start(self, theta: HeadAdapter) -> None:
        """See :meth:`policies.base.PolicySession.start`."""
        if self.learner is None:
            self._theta_1 = theta
        else:
            self.learner.start(theta)

    def rows(self, reward: float) -> Rows | None:
        """See :meth:`policies.base.PolicySession.rows`."""
        if self.learner is None:
            raise UsageError("This session captures nothing.", "Open it with a weight adaptation.")
        replies = [self._whole(pieces) for pieces in self.learner.capture_by_step(self._pieces_per_reply)]
        return kept(self.learner.weight, replies, reward, self.engine.stop_ids)

    _pieces_per_reply = 1

    @staticmethod
    def _whole(pieces: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        hidden, tokens = (torch.cat(parts) for parts in zip(*pieces, strict=True))
        return hidden, tokens

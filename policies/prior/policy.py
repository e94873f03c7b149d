"""What a policy with a head does for experience: it makes θ₁ out of stored tokens, and says which head they belong to."""

from __future__ import annotations

import hashlib
from typing import Any

from torch import Tensor

from policies.base import Policy
from policies.learner import HeadLearner
from policies.prior.config import PriorConfig
from policies.prior.step import digest_of, theta_one
from policies.rosa.config import RosaConfig

SAMPLED = 64
"""Rows of the head, and numbers of every other weight, that the fingerprint is made of."""


class StartingPolicy(Policy):
    """A policy whose sessions are :class:`policies.prior.session.StartingSession`."""

    engine: Any

    def fingerprint(self) -> str:
        """See :meth:`policies.base.Policy.fingerprint`: of the head's shape, type and some of its rows, and of the first numbers of every
        other weight, as H depends on them too; "" where they are elsewhere.
        """
        model = getattr(self.engine, "model", None)  # of a served one nothing is here, or its head alone
        weight = self._weight() if model is not None else None
        if weight is None or model is None:
            return ""
        V = weight.shape[0]
        found = hashlib.sha256(f"{tuple(weight.shape)} {weight.dtype}".encode())
        for row in range(0, V, max(1, V // SAMPLED)):
            found.update(weight[row].detach().float().cpu().numpy().tobytes())
        for name, parameter in model.named_parameters():
            if parameter.device.type != "meta":  # offloaded
                first = parameter.detach().reshape(-1)[:SAMPLED]
                found.update(f"{name} {tuple(parameter.shape)}".encode() + first.float().cpu().numpy().tobytes())
        return found.hexdigest()[:16]

    def prior(self, sessions: Any, config: Any, common: Any = None) -> tuple[Any, dict[str, Any]]:
        """See :meth:`policies.base.Policy.prior`."""
        weight = self._weight()
        if weight is None:
            return super().prior(sessions, config, common)
        assert isinstance(config, PriorConfig)
        theta, numbers = theta_one(weight, sessions, config, common)
        return theta, numbers | {"digest": digest_of(theta)}

    def _weight(self) -> Tensor | None:
        """W [V, d]; None where it is in another process, which learns there."""
        learner = self.engine.learner(RosaConfig(), 0)
        return learner.weight if type(learner) is HeadLearner else None

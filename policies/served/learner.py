"""A learner whose head is elsewhere: it captures and keeps as any other, and its updates are computed beside the head."""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from envs.errors import AdaptationError, InfrastructureError
from policies.base import Update
from policies.learner import Capture, HeadLearner
from policies.methods import WeightsConfig
from policies.served import updates, wire
from policies.served.client import COMPONENT, Unknown

if TYPE_CHECKING:
    from policies.served.engine import ServedEngine


class ServedLearner(HeadLearner):
    """The adapter of one session of a served model.  Its W is a shape without numbers: nothing here computes with it."""

    def __init__(self, config: WeightsConfig, engine: ServedEngine, seed: int) -> None:
        super().__init__(config, torch.empty(engine.shape, device="meta"), seed)
        self._engine = engine
        self._session = ""
        self._closing: Any = None

    @property
    def device(self) -> torch.device:
        return self._engine.device

    def update(self, rewards: Sequence[float], guided: Capture | None = None) -> Update:
        """See :meth:`policies.learner.HeadLearner.update`.

        Raises:
            InfrastructureError: the server is gone; the adapter is unchanged.
        """
        if self.config.guided:
            raise AdaptationError(
                "A server does not learn from guidance.", "Use model.update=here, or another adapt.weights.target."
            )
        started = time.perf_counter()
        dropped = self._dropped
        try:
            fields, tensors = self._answered(rewards, updates.UPDATE)
            update, adapter, past = updates.updated(fields, tensors, self._engine.shape)
        except wire.WireError as error:
            raise InfrastructureError(f"The server's answer is not an update: {error}", component=COMPONENT) from error
        finally:
            self.discard()
        if adapter is not None:
            self._accept(adapter, past)
            self._engine.named(adapter, str(fields["adapter"]))
        numbers = {**update.numbers, "update": self.updates, "tokens_dropped": update.numbers.get("tokens_dropped", 0) + dropped}
        numbers["served_seconds"] = round(time.perf_counter() - started, 4)
        return replace(update, numbers=numbers, replies=() if dropped else update.replies)

    def residual(self, rewards: Sequence[float]) -> dict[str, float]:
        try:
            fields, _ = self._answered(rewards, updates.RESIDUAL)
        finally:
            self.discard()
        return {name: float(value) for name, value in fields["residual"].items()}

    def _answered(self, rewards: Sequence[float], what: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        if not self.pieces:
            raise AdaptationError("No tokens of this attempt were captured.", "Act before adapting.")
        fields, tensors = updates.attempt(self, rewards, what)
        for _ in range(2):
            try:
                return self._engine.update({**fields, "session": self._opened()}, tensors, self._adapter)
            except Unknown:
                self._session = ""
        raise InfrastructureError("The server keeps losing its sessions.", component=COMPONENT)

    def _opened(self) -> str:
        """The server's session of this learner, opened at its first update and again where it is lost."""
        if not self._session:
            self._session = self._engine.open()
            if self._closing is not None:
                self._closing.detach()
            self._closing = weakref.finalize(self, self._engine.close_session, self._session)
            self._closing.atexit = False
        return self._session

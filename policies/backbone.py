"""What policies ask of an engine, in this process (:mod:`policies.engine`) or before a server (:mod:`policies.served`)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from policies.adapters.base import HeadAdapter
from policies.base import Passes
from policies.families.messages import Message
from policies.generation import Generation, Prompt, Request, Score, Search
from policies.learner import HeadLearner
from policies.methods import WeightsConfig
from policies.prompts import ChatMessage


class Backbone(Protocol):
    """One frozen model, shared by all sessions; every method is safe to call from several threads."""

    stop_ids: frozenset[int]

    @property
    def device(self) -> torch.device:
        """Where H and adapters are."""

    @property
    def has_trees(self) -> bool:
        """Whether replies can be searched, and drawn as if some did not exist."""

    def submit(self, request: Request | Search) -> Generation:
        """The reply to ``request``; one that is searched, or has an exclusion, only where :attr:`has_trees`."""

    def score(self, prompt: Prompt, tokens: Tensor, adapter: HeadAdapter | None = None) -> Score:
        """H and log-probabilities of the reply ``tokens`` [T] to ``prompt``."""

    def tokens(self, text: str) -> Tensor:
        """A reply's tokens [T] as the tokenizer writes its text, the end of the turn included."""

    def known(self, ids: Sequence[int]) -> Tensor:
        """Recorded token ids of a reply as y [T]."""

    def pieces(self, tokens: Tensor) -> list[str]:
        """The text of every single token of a reply."""

    def said(self, tokens: Tensor) -> str:
        """The text of tokens together: a character may take several."""

    def learner(self, config: WeightsConfig, seed: int) -> HeadLearner:
        """The head adapter of a new session, and what it learns with."""

    def enter(self, session: Hashable) -> None:
        """``session`` is in an attempt."""

    def leave(self, session: Hashable) -> None:
        """``session`` is not acting any more.  May be called twice."""


class SeeingBackbone(Backbone, Protocol):
    """One that is shown pictures."""

    factor: int

    def prompt(self, messages: Sequence[Message], min_pixels: int, max_pixels: int) -> Prompt:
        """A conversation with pictures, ready for the model."""


class ReadingBackbone(Backbone, Protocol):
    """One that reads text only."""

    @property
    def thinks(self) -> bool:
        """Whether the chat template knows of thoughts."""

    @property
    def thought_switch(self) -> bool:
        """Whether it can switch them off."""

    def chat(self, messages: Sequence[ChatMessage], **template: Any) -> Prompt:
        """A conversation as the model's own chat template writes it."""

    def read(self, prompt: Prompt) -> Passes:
        """Read a prompt whose reply will be asked for soon, where its keys and values can be kept; returns what that took."""


def gpu_peak(device: torch.device) -> dict[str, float]:
    """Most memory that this process has had on its GPUs, in MB, of a model that may be spread over several; nothing on a CPU."""
    if device.type != "cuda":
        return {}
    return {"gpu_peak": sum(torch.cuda.max_memory_allocated(n) for n in range(torch.cuda.device_count())) / 2**20}

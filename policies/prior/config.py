"""How θ₁ is made of stored tokens.  None of this needs torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class PriorConfig(BaseModel):
    """``experience.weights``: the weights that a session starts from."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    scope: Literal["none", "near", "global", "both"] = Field(
        default="near",
        description="Which stored tokens θ₁ is made of. near: those of the sessions that are most like the task. global: the newest of "
        "all sessions. both: the near ones, and the newest of the others as far as there is room. none: sessions start frozen.",
    )
    rows: Literal["all", "corrected"] = Field(
        default="all",
        description="Sessions whose tokens count. corrected: only those that were solved after a failure: their answers are not what "
        "the frozen policy says anyway.",
    )
    neighbours: int = Field(default=32, ge=1, description="Sessions that count as near.")
    max_tokens: int = Field(
        default=256,
        ge=2,
        description="Most tokens that θ₁ is made of (a system of T×T is solved), shared by its sessions; and most that one leaves.",
    )
    beta: float = Field(
        default=1.0, gt=0, description="β of ROSA's Eq. 3 for a stored token: r/β in log-odds; smaller moves further."
    )
    damping: float = Field(
        default=0.3, ge=0, description="λ of Eq. 6, over the mean diagonal of J Jᵀ: how strongly θ₁ is held at the frozen policy."
    )
    centred: bool = Field(
        default=True,
        description="Leave out the direction that all stored hidden states share, so that θ₁ acts on what tells them apart.",
    )
    max_rank: int = Field(default=64, ge=1, description="Most directions of hidden states that θ₁ acts on.")
    max_kl: float = Field(
        default=2.0, gt=0, description="Largest mean KL(θ₁ ‖ frozen) over the stored tokens, in nats; a larger step is halved."
    )
    largest: float = Field(
        default=4.0, gt=0, description="Largest multiple of the damped step that is tried; the others are half, a quarter, … of it."
    )
    max_halvings: int = Field(
        default=3,
        ge=0,
        description="How often it is halved. Taken is the size that makes the answers of solved sessions, each as the others would "
        "have it, the most likely.",
    )
    evidence: float = Field(
        default=1.0,
        description="By how many nats answers of solved sessions must become likelier, over all their tokens; with less the session "
        "starts frozen. Negative: even if they become less likely.",
    )

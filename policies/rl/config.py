"""Settings of the policy-gradient baseline."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from policies.adapters.config import AdapterConfig
from policies.methods.config import MethodConfig, TokensConfig


class RLConfig(AdapterConfig, TokensConfig, MethodConfig):
    """One policy-gradient step on the paper's adapter (rank 1, alpha 8, random A) and all tokens."""

    method: Literal["rl"] = Field(default="rl", description="One sampled policy-gradient step (ROSA App. E.4.1).")
    lr: float = Field(default=0.1, gt=0, description="Step length: Δθ = lr · Σ_i r_i ∂log p_i/∂θ.")
    max_kl: float | None = Field(
        default=None,
        gt=0,
        description="Longest step, as mean KL(new || old) per token of the attempt: a longer one is shortened, so that it cannot diverge; "
        "null: as long as lr makes it.",
    )
    rank: int | None = Field(default=1, ge=1, description="Directions of A; null: one per token of the update. Of lora.")
    alpha: float | None = Field(default=8.0, gt=0, description="lora_alpha: s = alpha / rank; null: s = 1. Of lora.")
    a_init: Literal["random", "attempt"] = Field(
        default="random",
        description="Where A comes from. random: drawn once per session, A and B both move. attempt: the attempt's own H, only B moves.",
    )
    tokens: Literal["all", "undecided", "coordinates"] = Field(
        default="all",
        description="Tokens that are moved. undecided: those with p < p_max. coordinates: those that the policy marked as coordinates.",
    )

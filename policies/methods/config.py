"""Settings that methods share.  Every method has a config class of its own, built from these; none of this needs torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from envs.errors import UsageError
from policies import adapters


def _known(name: str) -> str:
    try:
        return adapters.check_name(name)
    except UsageError as error:
        raise ValueError(f"{error.message} {error.hint}".strip()) from error


class WeightsConfig(BaseModel):
    """``adapt.weights``: which method, and its settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: str = Field(
        default="none",
        description="How the weights learn between two attempts: rosa, rl, slot, none (they do not), or my.module:method.",
    )


class NoneConfig(WeightsConfig):
    """The weights stay as they are."""

    method: Literal["none"] = Field(default="none", description="The weights stay as they are.")


class MethodConfig(WeightsConfig):
    """What every method that moves the head has: its adapter, and how much of an attempt is kept, and where."""

    mode: Annotated[str, AfterValidator(_known)] = Field(
        default="lora",
        description="The adapter: lora (z = W h + s·B A h, on the head) or hidden (z = W (h + δ), one vector before it).",
    )
    max_tokens: int = Field(
        default=4096,
        ge=1,
        description="Most tokens in one update (ROSA's Gram matrix is T×T); of a longer attempt the least confident ones are taken.",
    )
    memory_mb: float | None = Field(
        default=None,
        gt=0,
        description="Working memory of an update in MB (T×T matrices come on top); null: 384 on a CPU, 160 on an accelerator.",
    )
    capture_mb: float = Field(
        default=256,
        ge=0,
        description="Captured H on the accelerator, in MB; beyond it H goes to host memory. 0: always host memory.",
    )
    host_mb: float = Field(
        default=4096, gt=0, description="Captured H in host memory, in MB; beyond it the oldest steps are dropped (and counted)."
    )

    @property
    def replays(self) -> bool:
        """Whether the rule sees the tokens of the session's earlier failed attempts again."""
        return False

    @property
    def guided(self) -> bool:
        """Whether the rule learns from what the model itself would have said under the new guidance."""
        return False

    @property
    def response(self) -> str | None:
        """What the rule is about as a whole, ``reply`` or ``episode``; None: about each token by itself."""
        return None

    @property
    def protects(self) -> bool:
        """Whether the rule has to be told which tokens end or frame a reply."""
        return False

    def as_in_the_theorem(self) -> MethodConfig:
        """These settings where ROSA2 Theorem 4.1 holds or fails: p linear in θ (ROSA Eq. 4), the step as it is solved for."""
        return self


class TokensConfig(BaseModel):
    """Settings of methods that choose among an attempt's tokens."""

    tokens: Literal["all", "undecided", "coordinates"] = Field(
        default="undecided",
        description="Tokens that are moved. undecided: those with p < p_max. coordinates: those that the policy marked as coordinates.",
    )
    p_max: float = Field(default=0.99, gt=0, le=1, description="Probability from which a token counts as decided.")
    fallback_tokens: int = Field(
        default=8,
        ge=0,
        description="An attempt without one undecided token (a confident mistake) moves this many of its least certain ones; "
        "0: no update then.",
    )

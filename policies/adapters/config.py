"""The size of an adapter, and where its directions come from."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class AdapterConfig(BaseModel):
    """Settings of methods that leave the size of the adapter to the user; of ``mode=lora``, a hidden-state shift has none."""

    rank: int | None = Field(
        default=None,
        ge=1,
        description="Directions of A per update; null: one per token of the update, the exact least-norm change of the whole head "
        "(see max_rank). Of lora.",
    )
    alpha: float | None = Field(default=None, gt=0, description="lora_alpha: s = alpha / rank; null: s = 1. Of lora.")
    a_init: Literal["random", "attempt"] = Field(
        default="attempt",
        description="Where A comes from. random: drawn once per session, A and B both move (paper). attempt: the leading directions of "
        "the attempt's own H; only B moves, and directions add up over updates. Of lora.",
    )
    max_rank: int = Field(
        default=256,
        ge=1,
        description="Largest rank of a session's adapter; beyond it the adapter is cut back to its leading singular directions. "
        "Memory per session: 4·max_rank·(d+V) bytes. Of lora.",
    )

    @property
    def scale(self) -> float:
        """s of the LoRA head."""
        return 1.0 if self.alpha is None or self.rank is None else self.alpha / self.rank

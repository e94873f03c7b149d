"""Settings of the control without reward."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from policies.methods.config import MethodConfig


class SlotConfig(MethodConfig):
    """AdamW on one vector before the head; the SLOT paper's own: 3-5 steps, learning rate 0.01."""

    method: Literal["slot"] = Field(
        default="slot", description="Likelihood steps on one vector before the head, no reward (control)."
    )
    mode: Literal["hidden"] = Field(default="hidden", description="The adapter: SLOT is a vector before the head.")
    slot_steps: int = Field(default=5, ge=1, description="AdamW steps per update.")
    slot_lr: float = Field(default=0.01, gt=0, description="AdamW's learning rate.")

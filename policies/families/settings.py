"""How a family's checkpoint is asked: what a user may change of it, and the size of the picture that it sees."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from envs.errors import UsageError
from policies.families.messages import PLATFORMS

Coordinates = Literal["relative-1000", "relative-999", "relative-1", "absolute-resized"]


class FamilySettings(BaseModel):
    """A family's defaults, a checkpoint's own (``agentlab.json``), or a user's (``model.<setting>``)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    coordinates: Coordinates = Field(
        default="relative-1000",
        description="What a point of a reply counts: thousandths (relative-1000, or 0-999: relative-999) or shares (relative-1) of "
        "the screen, or pixels of the resized picture (absolute-resized).",
    )
    variant: str = Field(default="", description="Which of the family's official prompts, where it has several.")
    language: str = Field(default="Chinese", description="Language of the thoughts, where the prompt names one.")
    history_images: int = Field(default=5, ge=1, description="Screenshots in the prompt, the current one included.")
    history_replies: int | None = Field(default=None, ge=0, description="Earlier replies kept as text; null keeps all.")
    reask: int = Field(
        default=0, ge=0, le=20, description="How often a reply that is not an action is asked for again before it counts as a step."
    )
    reask_temperature: float = Field(default=1.0, ge=0, le=2, description="Least temperature of a reply that is asked for again.")
    max_new_tokens: int = Field(default=1500, ge=1, description="Upper bound of a reply in tokens; a smaller sampling limit wins.")
    min_pixels: int = Field(default=3136, ge=1, description="Least pixels of a screenshot as the model sees it.")
    max_pixels: int = Field(default=2_116_800, ge=1, description="Most pixels of a screenshot as the model sees it.")
    password: str = Field(
        default="osworld-public-evaluation", description="The computer's password, where the prompt tells it (OpenCUA, EvoCUA S1)."
    )

    prompt_file: str = Field(default="", description="File with the prompt's text, of a family whose text is not in this package.")

    def units(self, seen: tuple[int, int]) -> tuple[float, float]:
        """What the model takes for (width, height) of the screen, when it sees a picture of the size ``seen``."""
        if self.coordinates == "absolute-resized":
            return float(seen[0]), float(seen[1])
        units = float(self.coordinates.removeprefix("relative-"))
        return units, units


MOST_ELONGATED = 200
"""A picture is at most so many times longer than wide (qwen-vl-utils)."""


def seen_size(screen: tuple[int, int], settings: FamilySettings, factor: int) -> tuple[int, int]:
    """(width, height) of a screenshot of the size ``screen`` as the model sees it: ``smart_resize`` of qwen-vl-utils.

    That module imports torch, for these few lines: reading a reply or asking an endpoint needs no torch.

    Raises:
        UsageError: no picture of that shape or with that many pixels can be shown.
    """
    least, most = settings.min_pixels, settings.max_pixels
    if least > most:
        raise UsageError(f"min_pixels is {least}, more than max_pixels, {most}.", "Set model.min_pixels and model.max_pixels.")
    if max(screen) > MOST_ELONGATED * min(screen):
        raise UsageError(f"A screenshot of {screen[0]} x {screen[1]} pixels cannot be shown to the model: it is too elongated.")

    rounded = max(factor, round(screen[0] / factor) * factor), max(factor, round(screen[1] / factor) * factor)
    pixels = screen[0] * screen[1]
    if rounded[0] * rounded[1] > most:
        beta = math.sqrt(pixels / most)
        return math.floor(screen[0] / beta / factor) * factor, math.floor(screen[1] / beta / factor) * factor
    if rounded[0] * rounded[1] < least:
        beta = math.sqrt(least / pixels)
        return math.ceil(screen[0] * beta / factor) * factor, math.ceil(screen[1] * beta / factor) * factor
    return rounded


CHOICES = ("family", "platform")
"""Options that are not settings of a family."""


def checked_platform(options: Mapping[str, Any]) -> Any:
    """``options["platform"]``.

    Raises:
        UsageError: there is no such device.
    """
    platform = options.get("platform")
    if platform not in (None, *PLATFORMS):
        raise UsageError(f"Unknown platform {platform!r}.", "Use computer or mobile, or leave it out.")
    return platform

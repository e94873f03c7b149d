"""Chat messages as transformers' processors take them, and text that is not ours made harmless in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

Message = dict[str, Any]
"""``{"role": ..., "content": [{"type": "text", "text": ...}, {"type": "image", "image": ...}]}``"""

Part = str | Any
"""A text, or a picture (a PIL image, an array or a data URL: it is passed through as it is)."""

Platform = Literal["computer", "mobile"]
PLATFORMS: tuple[Platform, ...] = ("computer", "mobile")


def message(role: str, *parts: Part) -> Message:
    """A message of texts and pictures, in order."""
    content = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part} for part in parts]
    return {"role": role, "content": content}


def images(messages: Sequence[Message]) -> list[Any]:
    """The pictures of a conversation, in order."""
    return [part["image"] for one in messages for part in one["content"] if part["type"] == "image"]


_CONTROL = re.compile(r"<\|(?!box_start\|>|box_end\|>)([A-Za-z0-9_]{0,40})\|>")


def neutralise(text: str) -> str:
    """Break chat-control tokens (``<|im_end|>``, ``<|image_pad|>``, ...) in text that is not ours: it must not end its own turn."""
    return _CONTROL.sub(r"<| \1 |>", text)


def fenced(guidance: str, label: str = "guidance") -> str:
    """Guidance in a fenced block of its own, which it cannot close: runs of three or more backticks become as many apostrophes."""
    inside = re.sub(r"`{3,}", lambda m: "'" * len(m[0]), neutralise(guidance.strip("\n")))
    return f"```{label}\n{inside}\n```"


def with_guidance(instruction: str, guidance: str) -> str:
    """The instruction verbatim, and after it what was learned in words, if anything was."""
    return f"{instruction}\n\n{fenced(guidance)}" if guidance.strip() else instruction

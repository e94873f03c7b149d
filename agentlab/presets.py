"""The presets of ``--adapt``: each names a pair (words, weights) and the settings that go with it.

``none``, ``best-of-k`` and ``no-repeat`` are frozen: nothing is learned between attempts.  They are the honest opponents.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """Settings merged over the defaults and under everything the user says."""

    summary: str
    settings: dict[str, Any] = field(default_factory=dict)


PRESETS: dict[str, Preset] = {
    "none": Preset("frozen prompt and weights, retries (the papers' baseline)"),
    "best-of-k": Preset("frozen, every attempt sampled anew", {"sampling": {"temperature": 1.0}}),
    "no-repeat": Preset(
        "frozen, sampled, but never again an action already tried on the same screen",
        {"sampling": {"temperature": 1.5, "no_repeat": True}},
    ),
}

"""The presets of ``--adapt``: each names a pair (words, weights) and the settings that go with it.

``none``, ``best-of-k`` and ``no-repeat`` are frozen: nothing is learned between attempts.  They are the honest opponents.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from policies.rosa.config import PAPER


@dataclass(frozen=True)
class Preset:
    """Settings merged over the defaults and under everything the user says."""

    summary: str
    settings: dict[str, Any] = field(default_factory=dict)


def _pair(words: str, weights: str, sampling: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Settings of a pair: a method of the words and one of the weights; ``switch_at`` is of the pair, all else of the weights."""
    pair = {"switch_at": more.pop("switch_at")} if "switch_at" in more else {}
    return {"adapt": {"words": {"method": words}, "weights": {"method": weights, **more}, **pair}, "sampling": sampling or {}}


def _sampled(temperature: float) -> dict[str, Any]:
    """How this project's own pairs draw: attempt 1 greedily, later ones sampled, no action twice on one screen.

    Temperatures (and ``rosa``'s β) are those that ``benchmarks/sweep.py`` found best, see ``docs/results.md``.
    """
    return {"temperature": temperature, "no_repeat": True, "first_greedy": True}


PRESETS: dict[str, Preset] = {
    "none": Preset("frozen prompt and weights, retries (the papers' baseline)"),
    "best-of-k": Preset("frozen, every attempt sampled anew", {"sampling": {"temperature": 0.7}}),
    "no-repeat": Preset(
        "frozen, sampled, but never again an action already tried on the same screen",
        {"sampling": {"temperature": 0.7, "no_repeat": True}},
    ),
    "textgrad": Preset("words: a textual gradient revises the guidance", _pair("textgrad", "none", _sampled(0.7))),
    "reflexion": Preset("words: a memory of the last three attempts", _pair("reflexion", "none")),
    "rosa": Preset("weights: ROSA on the LM head, this project's default setting", _pair("none", "rosa", _sampled(0.7), beta=2.0)),
    "rosa-paper": Preset("weights: ROSA with the paper's own settings", _pair("none", "rosa", **PAPER)),
    "rl": Preset("weights: one policy-gradient step (the paper's RL baseline)", _pair("none", "rl")),
    "slot": Preset("weights: likelihood steps on one vector before the head, no reward (control)", _pair("none", "slot")),
    "rosa2": Preset("words, then weights, after every failure (ROSA2)", _pair("textgrad", "rosa", _sampled(1.0), beta=1.0)),
    "switch": Preset(
        "one axis until attempt adapt.switch_at, then the other", _pair("textgrad", "rosa", _sampled(1.0), beta=1.0, switch_at=3)
    ),
}

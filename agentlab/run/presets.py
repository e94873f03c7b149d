"""The presets of ``--adapt``: each names a pair (words, weights) and the settings that go with it.

``none``, ``best-of-k``, ``no-repeat`` and ``next-best`` are frozen: nothing is learned between attempts.  They are the honest
opponents.  Any other pair is called by its two methods: ``--adapt reflexion+rosa``, ``--adapt none+my.module:method``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from envs.errors import UsageError, did_you_mean
from policies.rosa.config import PAPER

OFF = "none"
"""The method of an axis along which nothing is learned."""


@dataclass(frozen=True)
class Preset:
    """Settings merged over the defaults and under everything the user says; the methods of both axes are always among them."""

    summary: str
    settings: dict[str, Any]

    def method(self, axis: str) -> str:
        """The method of an axis, ``words`` or ``weights``."""
        return str(self.settings["adapt"][axis]["method"])


def _pair(words: str = OFF, weights: str = OFF, sampling: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Settings of a pair: a method of the words and one of the weights; ``switch_at`` is of the pair, all else of the weights."""
    pair = {"switch_at": more.pop("switch_at")} if "switch_at" in more else {}
    return {"adapt": {"words": {"method": words}, "weights": {"method": weights, **more}, **pair}, "sampling": sampling or {}}


def _sampled(temperature: float) -> dict[str, Any]:
    """How this project's own pairs draw: attempt 1 greedily, later ones sampled, no action twice on one screen.

    Temperatures (and ``rosa``'s β) were chosen by a sweep on seeds of its own, before ``benchmarks/comparison.py``; docs/results.md says
    what is known of them.
    """
    return {"temperature": temperature, "no_repeat": True, "first_greedy": True}


PRESETS: dict[str, Preset] = {
    "none": Preset("frozen prompt and weights, greedy retries", _pair()),
    "conversation": Preset(
        "frozen, greedy: every attempt goes on with the conversation, what the user said to the last one included (the papers' baseline)",
        {**_pair(), "history": "conversation"},
    ),
    "best-of-k": Preset("frozen, every attempt sampled afresh", _pair(sampling={"temperature": 0.7})),
    "no-repeat": Preset(
        "frozen, sampled, but never again an action already tried on the same screen",
        _pair(sampling={"temperature": 0.7, "no_repeat": True}),
    ),
    "next-best": Preset(
        "frozen, nothing drawn: at every attempt the most probable reply that was not tried yet",
        _pair(sampling={"next_best": True, "first_greedy": True}),
    ),
    "textgrad": Preset("words: a textual gradient revises the guidance", _pair("textgrad", sampling=_sampled(0.7))),
    "reflexion": Preset("words: a memory of the last three attempts", _pair("reflexion")),
    "rosa": Preset("weights: ROSA on the LM head, this project's default setting", _pair(OFF, "rosa", _sampled(0.7), beta=2.0)),
    "rosa-paper": Preset("weights: ROSA with the paper's own settings", _pair(OFF, "rosa", **PAPER)),
    "rl": Preset(
        "weights: one policy-gradient step (the paper's RL baseline), no longer than a KL of 0.1 per token",
        _pair(OFF, "rl", max_kl=0.1),
    ),
    "slot": Preset("weights: likelihood steps on one vector before the head, no reward (control)", _pair(OFF, "slot")),
    "rosa2": Preset("words, then weights, after every failure (ROSA2)", _pair("textgrad", "rosa", _sampled(1.0), beta=1.0)),
    "switch": Preset(
        "one axis until attempt adapt.switch_at, then the other", _pair("textgrad", "rosa", _sampled(1.0), beta=1.0, switch_at=3)
    ),
}


def preset_named(name: str) -> Preset:
    """The preset ``name``, or the pair ``WORDS+WEIGHTS``.

    Raises:
        UsageError: there is no such preset.
    """
    if name in PRESETS:
        return PRESETS[name]
    words, plus, weights = name.partition("+")
    if not (words and plus and weights):
        raise UsageError(f"Unknown adaptation {name!r}.", f"{did_you_mean(name, PRESETS, what='preset')} Or a pair: WORDS+WEIGHTS.")
    return Preset(f"words: {words}; weights: {weights}", {"adapt": {"words": {"method": words}, "weights": {"method": weights}}})


def presets_with(*axes: str) -> str:
    """Names of the presets that learn along all of ``axes`` (``words``, ``weights``), for a hint."""
    found = [name for name, preset in PRESETS.items() if all(preset.method(axis) != OFF for axis in axes)]
    return f"{', '.join(found[:-1])} or {found[-1]}"

"""How replies are drawn: the settings, by name too, and the seeds of the draws (the drawing itself, with torch, is in ``sampler.py``)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

MAX_REDRAWS = 12
"""Most redraws of one reply (``no_repeat``), where it is asked for again as a whole."""


@dataclass(frozen=True)
class SamplingConfig:
    """How replies are drawn."""

    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, description="0 is greedy.")] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1, description="Nucleus mass.")] = 1.0
    max_new_tokens: Annotated[int, Field(ge=1, le=1_000_000, description="Longest reply, in tokens.")] = 1500
    no_repeat: Annotated[
        bool,
        Field(
            description="A reply whose actions or answer were already tried (on the same screen, in an earlier attempt that was blamed "
            "for it, or earlier in this one) is never drawn again, nor one that is not an action: drawn exactly as if these did not exist, "
            "in one prefill; at temperature 0, greedily. Endpoints, and models without full attention, are asked again instead, at most "
            "12 times (docs/rosa.md)."
        ),
    ] = False
    next_best: Annotated[
        bool,
        Field(
            description="Nothing is drawn: a reply is the most probable one whose answer or actions the session has not tried, found by a "
            "beam search; what was tried counts as by no_repeat. Of a text, answers are told apart in the grader's own normal form. "
            "Needs a model that runs here."
        ),
    ] = False
    consistent: Annotated[
        bool,
        Field(
            description="To no_repeat and next_best, an answer counts as tried as well if the user, were it right, would have said "
            "something else to an earlier one: after “too large” every larger number. What is understood: of a number “too large” and "
            "“too small”, of a word or a list how long it is and how much of it is in its place (env.feedback=hint)."
        ),
    ] = False
    beams: Annotated[
        int,
        Field(
            ge=1, le=256, description="Beams of next_best: prefixes of one length that are followed; four times as many at need."
        ),
    ] = 10
    radius: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Clicks (and other points) nearer to each other than this share of the screen's shorter side are the same action "
            "to no_repeat and next_best.",
        ),
    ] = 0.02
    first_greedy: Annotated[
        bool,
        Field(
            description="Attempt 1 is greedy whatever the temperature (paired comparisons of adaptation start from the same failure)."
        ),
    ] = False
    frequency_penalty: Annotated[
        float,
        Field(
            ge=-100,
            le=100,
            allow_inf_nan=False,
            description="Subtracted from a token's logit per earlier occurrence in the reply (official UI-TARS runs: 1).",
        ),
    ] = 0.0
    repetition_penalty: Annotated[
        float,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Divides the logits above 0, and multiplies those below, of every token that the prompt or the reply already "
            "holds (official GUI-Owl and UI-Venus runs: 1.05).",
        ),
    ] = 1.0

    @property
    def remembers(self) -> bool:
        """Whether replies depend on what the session has tried."""
        return self.no_repeat or self.next_best


PRESETS: dict[str, SamplingConfig] = {
    # The official OSWorld runner's defaults; ZeroGUI's evaluation of UI-TARS-7B-DPO.
    "official": SamplingConfig(temperature=1.0, top_p=0.9, max_new_tokens=1500, frequency_penalty=1.0),
    "zerogui": SamplingConfig(temperature=0.0, top_p=0.9, max_new_tokens=1500, frequency_penalty=1.0),
    "greedy": SamplingConfig(),
}
"""Named sampling settings."""


def seed_of(*parts: object) -> int:
    """A 63-bit seed from anything that names a draw, e.g. (run seed, task id, attempt, step, redraw)."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1

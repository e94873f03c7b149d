"""A method of your own for the words: what a failed attempt has found out, said in one sentence for the next one.

In this folder: ``agentlab run own_benchmark:Guess --policy own_policy:Halving --set adapt.words.method=own_method:interval``
"""

from __future__ import annotations

import re

from retrospect.methods import Failure, Revision

SAID = re.compile(r"(\d+) is too (low|high)")
BETWEEN = re.compile(r"between (\d+) and (\d+)")


def interval(failure: Failure) -> Revision:
    """The interval that is left after all that the environment has said; it is remembered from attempt to attempt."""
    known = failure.memory[-1][1] if failure.memory else failure.trace.instruction
    low, high = map(int, BETWEEN.findall(known)[-1])
    for observation in failure.trace.observations:
        for number, said in SAID.findall(observation.get("text", "")):
            low, high = (max(low, int(number) + 1), high) if said == "low" else (low, min(high, int(number) - 1))
    guidance = f"The number is between {low} and {high}."
    return Revision(guidance, critique=f"{len(failure.trace.steps)} guesses were made.", remember=guidance)

"""What a user can say of a wrong answer without giving the right one away, and what that rules out.

Both sides are here: the grader says the hint (:func:`hint`), and a policy may draw the conclusion (:func:`could_be`): an answer, were it
right, to which the user would have said something else, is not the right one.  Nothing here knows a right answer.
"""

from __future__ import annotations

import re
from fractions import Fraction

from envs.answers import parse_number

_SAID = re.compile(r"^That is wrong: (?P<hint>.{1,200}?)\.(?:\s|$)")

_KNOWN = {
    "number": re.compile(r"too (?:large|small)"),
    "math": re.compile(r"too (?:large|small)"),
    "word": re.compile(r"that has \d+ letters, and the answer another number of them|\d+ of its letters are in their places"),
    "list": re.compile(r"that has \d+ members, and the answer another number of them|\d+ of its members are in their places"),
}


def objection(hint: str) -> str:
    """A user's sentence on a wrong answer."""
    return f"That is wrong: {hint}." if hint else "That is wrong."


def spoken(kind: str, feedback: str) -> str:
    """The hint in what a user said of an answer to a question of this kind; "" if there is none that :func:`hint` would give."""
    found = _SAID.match(feedback)
    known = _KNOWN.get(kind)
    return found["hint"] if found and known and known.fullmatch(found["hint"]) else ""


def hint(kind: str, said: str, right: str) -> str:
    """What is wrong with the answer ``said``, both in the normal form of their kind; "" where nothing honest can be said."""
    if kind in ("number", "math"):
        value, wanted = parse_number(said), parse_number(right)
        return "" if value is None or wanted is None or value == wanted else side(value, wanted)
    if kind == "word":
        return _letters(said, right)
    return _members(said.split(", "), right.split(", ")) if kind == "list" else ""


def side(value: Fraction, right: Fraction) -> str:
    """On which side of the right number a wrong one is."""
    return "too large" if value > right else "too small"


def could_be(kind: str, form: str, said: str, hint_: str) -> bool:
    """Whether an answer could be the right one after ``said`` got this hint: whether, were it right, the hint would be the same."""
    if not hint_ or form == said:
        return form != said
    told = hint(kind, said, form)
    return told == hint_ or (not told and kind in ("number", "math"))  # an expression has no side that is known here


def _letters(said: str, right: str) -> str:
    if " " in said or " " in right or not said.isalpha() or not right.isalpha():
        return ""
    if len(said) != len(right):
        return f"that has {len(said)} letters, and the answer another number of them"
    return f"{sum(a == b for a, b in zip(said, right, strict=True))} of its letters are in their places"


def _members(said: list[str], right: list[str]) -> str:
    if len(said) != len(right):
        return f"that has {len(said)} members, and the answer another number of them"
    return f"{sum(a == b for a, b in zip(said, right, strict=True))} of its members are in their places"

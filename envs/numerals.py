"""Whole numbers in texts of other people."""

from __future__ import annotations

DIGITS = 18
"""Most digits that are read: no count, port or version has more, and of some thousands Python makes an error."""


def whole(text: str) -> int | None:
    """The whole number that ``text`` is, digit by digit; None where it is none, or has more than :data:`DIGITS`."""
    return int(text) if text.isdecimal() and len(text) <= DIGITS else None

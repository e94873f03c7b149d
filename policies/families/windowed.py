"""A conversation of the last few screenshots and replies, the instruction with the first of them, what lies before as a list.

As Qwen3-VL's, EvoCUA's (S2) and GUI-Owl-1.5's agents lay it out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from policies.families.base import Turn
from policies.families.messages import Message, message, neutralise


def windowed(turn: Turn, system: str, text: Callable[[Sequence[str]], str], *, text_first: bool) -> list[Message]:
    """System, then (screenshot, reply) pairs of the window, then the current screenshot; the text stands with the first picture.

    Args:
        turn: What is asked.
        system: The system message.
        text: The user's text, given the replies before the window.
        text_first: Whether it stands before the picture.
    """
    first = turn.first_image
    said = text([neutralise(reply) for _, reply in turn.history[:first]])
    messages = [message("system", system)]
    for number, (screen, reply) in enumerate([*turn.history[first:], (turn.screen, None)]):
        parts = [screen] if screen is not None else []
        if number == 0:
            parts = [said, *parts] if text_first else [*parts, said]
        if parts:
            messages.append(message("user", *parts))
        if reply is not None:
            messages.append(message("assistant", neutralise(reply)))
    return messages


def low_level(reply: str) -> str:
    """What a reply says it does: its first ``Action:`` line; the name of the called action where it has none."""
    for line in reply.split("\n", 400)[:400]:
        if line.strip().lower().startswith("action:"):
            return line.split("Action:")[-1].strip()
    called = reply.partition('"action":')[2][:80].replace("}", ",").split(",")[0].strip(" \"'")
    return f"Performing {called} action" if called else ""

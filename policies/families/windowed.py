"""A conversation of the last few screenshots and replies, the instruction with the first of them, what lies before as a list.

As Qwen3-VL's, EvoCUA's (S2) and GUI-Owl-1.5's agents lay it out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from envs.errors import InvalidActionError
from policies.families.base import Turn
from policies.families.call_text import calls_in, split
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


PYAUTOGUI = {
    **dict.fromkeys(("click", "left_click"), "click"),
    "right_click": "rightClick", "middle_click": "middleClick", "double_click": "doubleClick", "triple_click": "tripleClick",
    "mouse_move": "moveTo", "left_click_drag": "dragTo", "key_down": "keyDown", "key_up": "keyUp",
}  # fmt: skip
"""What the agents call an action: they name it by the function of PyAutoGUI that they do it with."""


def low_level(reply: str, typed: str = "typewrite") -> str:
    """What a reply says it does: its first ``Action:`` line; where it has none, the function that its first call is done with.

    Args:
        reply: An earlier one.
        typed: The function that a text is typed with.
    """
    for line in reply.split("\n", 400)[:400]:
        if line.strip().lower().startswith("action:"):
            return line.split("Action:")[-1].strip()
    try:
        called = calls_in(split(reply)[1])
    except InvalidActionError:
        return ""
    action = str(called[0].get("action", ""))[:60] if called else ""
    keys = called[0].get("keys") if called else None
    pressed = "hotkey" if isinstance(keys, list) and len(keys) > 1 else "press"
    name = {**PYAUTOGUI, "key": pressed, "type": typed}.get(action, action)
    return f"Performing {name} action" if name else ""

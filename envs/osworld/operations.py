"""Actions as pointer and keyboard operations: plain data that a guest performs one after the other.

There is one translation and two ways to carry it out: our own guest takes the operations as they are (``xinput.py``: XTEST, every
character); any other guest runs a fixed program (``foreign_input.py``) that gets them, and the same ``xinput.py``, in arguments.
What a model wrote is only ever data in them, never part of a program or of a shell's command line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from envs import actions as act
from envs.errors import InvalidActionError, did_you_mean

Operation = dict[str, Any]

LEFT, MIDDLE, RIGHT = 1, 2, 3
CLICKS: dict[type[act.Action], tuple[int, int]] = {
    act.Click: (LEFT, 1), act.DoubleClick: (LEFT, 2), act.TripleClick: (LEFT, 3), act.RightClick: (RIGHT, 1), act.MiddleClick: (MIDDLE, 1),
}  # fmt: skip
"""Button and number of clicks."""
SCROLL_BUTTONS: dict[act.Direction, int] = {"up": 4, "down": 5, "left": 6, "right": 7}
SCROLL_CLICKS = 5
"""As the official UI-TARS runner scrolls, whose model gives no number: ``scroll(±5)``."""
DRAG_SECONDS = 0.5
LONG_PRESS_SECONDS = 1.0
GRIP_SECONDS = 0.1
"""Between pressing and moving: toolkits decide by time and distance whether a press becomes a drag."""

KEYS = {
    "ctrl": "Control_L", "control": "Control_L", "shift": "Shift_L", "alt": "Alt_L", "option": "Alt_L", "altgr": "ISO_Level3_Shift",
    "win": "Super_L", "super": "Super_L", "meta": "Super_L", "cmd": "Super_L", "command": "Super_L",
    "enter": "Return", "return": "Return", "esc": "Escape", "escape": "Escape", "tab": "Tab", "space": "space",
    "backspace": "BackSpace", "delete": "Delete", "del": "Delete", "insert": "Insert", "home": "Home", "end": "End",
    "pageup": "Page_Up", "pgup": "Page_Up", "page_up": "Page_Up", "pagedown": "Page_Down", "pgdn": "Page_Down",
    "page_down": "Page_Down", "up": "Up", "down": "Down", "left": "Left", "right": "Right", "arrowup": "Up", "arrowdown": "Down",
    "arrowleft": "Left", "arrowright": "Right", "capslock": "Caps_Lock", "numlock": "Num_Lock", "menu": "Menu", "apps": "Menu",
    "printscreen": "Print", "prtsc": "Print", "pause": "Pause", "plus": "plus", "minus": "minus",
    **{f"f{number}": f"F{number}" for number in range(1, 25)},
}  # fmt: skip
"""Key names that agents use -> X keysym names.  Single characters are keys of their own."""

FOREIGN_PROGRAM = Path(__file__).with_name("foreign_input.py")
XINPUT = Path(__file__).with_name("xinput.py")
"""The guest's own file, by a link: what is in the light desktop's image is what is sent to other guests."""


def foreign_command(operations: list[Operation]) -> list[str]:
    """What a guest runs that is not ours."""
    program, xinput = (path.read_text(encoding="utf-8") for path in (FOREIGN_PROGRAM, XINPUT))
    return ["python", "-c", program, json.dumps(operations), xinput]


def compile_action(action: act.Action) -> list[Operation]:
    """The operations of one action; ``Wait`` is not an operation: the environment itself waits.

    Raises:
        InvalidActionError: a desktop has no such action, or there is no such key.
    """
    match action:
        case act.Click(x, y) | act.DoubleClick(x, y) | act.TripleClick(x, y) | act.RightClick(x, y) | act.MiddleClick(x, y):
            return [_move(x, y), _click(*CLICKS[type(action)])]
        case act.MouseDown(x, y):
            return [_move(x, y), _press(LEFT), _wait(GRIP_SECONDS)]
        case act.MouseUp(x, y):
            return [_move(x, y) | {"op": "glide", "seconds": DRAG_SECONDS}, _wait(GRIP_SECONDS), _release(LEFT)]
        case act.Hover(x, y):
            return [_move(x, y)]
        case act.LongPress(x, y, seconds):
            return [_move(x, y), _press(LEFT), _wait(LONG_PRESS_SECONDS if seconds is None else seconds), _release(LEFT)]
        case act.Drag(x, y, end_x, end_y):
            glide = _move(end_x, end_y) | {"op": "glide", "seconds": DRAG_SECONDS}
            return [_move(x, y), _press(LEFT), _wait(GRIP_SECONDS), glide, _wait(GRIP_SECONDS), _release(LEFT)]
        case act.Scroll(x, y, direction):
            return [_move(x, y), _click(SCROLL_BUTTONS[direction], action.clicks or SCROLL_CLICKS)]
        case act.Type(text, submit):
            return [{"op": "type", "text": _typeable(text) + ("\n" if submit else "")}]
        case act.Hotkey(keys):
            return [{"op": "keys", "keysyms": [keysym(key) for key in keys]}]
        case act.KeyDown(keys) | act.KeyUp(keys):
            name = "hold" if isinstance(action, act.KeyDown) else "free"
            return [{"op": name, "keysyms": [keysym(key) for key in keys]}]
    raise InvalidActionError(f"A desktop has no action {action.kind!r}.")


class Held:
    """What operations have left down in a guest: keys by their keysyms, and buttons."""

    def __init__(self) -> None:
        self._keys: dict[str, None] = {}
        self._buttons: dict[int, None] = {}

    def note(self, operation: Operation) -> None:
        """One operation is done, or begun: what failed may have pressed and not released."""
        match operation:
            case {"op": "hold", "keysyms": names}:
                self._keys |= dict.fromkeys(names)
            case {"op": "free", "keysyms": names}:
                for name in names:
                    self._keys.pop(name, None)
            case {"op": "press", "button": button}:
                self._buttons[button] = None
            case {"op": "release", "button": button}:
                self._buttons.pop(button, None)

    def release(self) -> list[Operation]:
        """The operations that let go of it all; it is not held any more then."""
        keys, buttons = list(self._keys), list(self._buttons)
        self._keys, self._buttons = {}, {}
        return [_release(button) for button in buttons] + ([{"op": "free", "keysyms": keys}] if keys else [])


def keysym(key: str) -> str:
    """The X keysym name of a key as agents write it; a single character stands for itself.

    Raises:
        InvalidActionError: no such key.
    """
    name = key.strip().lower() if len(key) > 1 else key
    if name in KEYS:
        return KEYS[name]
    if len(name) == 1 and name.isprintable():
        return "space" if name == " " else f"U{ord(name):04X}"
    raise InvalidActionError(f"There is no key {key!r}.", did_you_mean(name, KEYS, what="key"))


def _typeable(text: str) -> str:
    text = act.lines(text)
    bad = sorted({c for c in text if (c < " " and c not in "\n\t") or "\x7f" <= c < "\xa0" or "\ud800" <= c <= "\udfff"})
    if bad:
        raise InvalidActionError(f"The text has characters that no key types: {', '.join(f'U+{ord(c):04X}' for c in bad)}.")
    return text


def _move(x: float, y: float) -> Operation:
    return {"op": "move", "x": int(x), "y": int(y)}


def _click(button: int, count: int = 1) -> Operation:
    return {"op": "click", "button": button, "count": count}


def _press(button: int) -> Operation:
    return {"op": "press", "button": button}


def _release(button: int) -> Operation:
    return {"op": "release", "button": button}


def _wait(seconds: float) -> Operation:
    return {"op": "wait", "seconds": seconds}

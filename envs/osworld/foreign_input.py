"""Performs operations inside a guest that is not ours.  Sent as it is, for ``python -c``; the operations come as JSON in argv[1].

Uses what OSWorld's virtual machine has: pyautogui and pyperclip.  Must not import anything of this project.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyautogui
import pyperclip

pyautogui.FAILSAFE = False
pyautogui.PAUSE = 0.02

BUTTONS = {1: "left", 2: "middle", 3: "right"}
KEYS = {
    "Control_L": "ctrl", "Shift_L": "shift", "Alt_L": "alt", "Super_L": "win", "Return": "enter", "Escape": "esc", "Tab": "tab",
    "space": "space", "BackSpace": "backspace", "Delete": "delete", "Insert": "insert", "Home": "home", "End": "end",
    "Page_Up": "pageup", "Page_Down": "pagedown", "Up": "up", "Down": "down", "Left": "left", "Right": "right",
    "Caps_Lock": "capslock", "Num_Lock": "numlock", "Menu": "apps", "Print": "printscreen", "Pause": "pause", "plus": "+",
    "minus": "-", "ISO_Level3_Shift": "altright",
}  # fmt: skip


def click(button: int, count: int) -> None:
    if button in BUTTONS:
        pyautogui.click(button=BUTTONS[button], clicks=count, interval=0.06)
    elif button in (4, 5):
        pyautogui.scroll(count if button == 4 else -count)
    else:
        pyautogui.hscroll(count if button == 7 else -count)


def key(keysym: str) -> str:
    if keysym.startswith("U") and len(keysym) > 4:
        return chr(int(keysym[1:], 16))
    return KEYS.get(keysym, keysym.lower())


@contextmanager
def silenced() -> Iterator[None]:
    """Standard output and error to nowhere: the process that keeps the clipboard outlives us, and who reads our output would wait
    for it to close them.
    """
    kept = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)


def write(text: str) -> None:
    """ASCII by keys, anything else through the clipboard; pyautogui would type ``>`` for ``<`` and drop what is not ASCII."""
    if any(character > "~" for character in text):
        with silenced():
            pyperclip.copy(text)
        pyautogui.hotkey("ctrl", "v")
        time.sleep(0.2)
        return
    for piece in text.replace("\r\n", "\n").replace("<", "\0<\0").split("\0"):
        if piece == "<":
            pyautogui.hotkey("shift", ",")
        elif piece:
            pyautogui.write(piece, interval=0.005)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "move": lambda x, y: pyautogui.moveTo(x, y),
    "glide": lambda x, y, seconds: pyautogui.moveTo(x, y, duration=seconds),
    "press": lambda button: pyautogui.mouseDown(button=BUTTONS[button]),
    "release": lambda button: pyautogui.mouseUp(button=BUTTONS[button]),
    "click": click,
    "keys": lambda keysyms: pyautogui.hotkey(*map(key, keysyms)),
    "hold": lambda keysyms: [pyautogui.keyDown(key(keysym)) for keysym in keysyms],
    "free": lambda keysyms: [pyautogui.keyUp(key(keysym)) for keysym in reversed(keysyms)],
    "type": lambda text: write(text),
    "wait": lambda seconds: time.sleep(seconds),
}
for operation in json.loads(sys.argv[1]):
    name = operation.pop("op")
    OPERATIONS[name](**operation)

"""Names of keys: whatever a model calls a key, one canonical name (pyautogui's, lower case) comes out."""

from __future__ import annotations

import re

from envs.errors import InvalidActionError

ALIASES: dict[str, str] = {
    "control": "ctrl", "ctl": "ctrl", "controlleft": "ctrl", "ctrlleft": "ctrl",
    "option": "alt", "opt": "alt", "altleft": "alt",
    "cmd": "win", "command": "win", "meta": "win", "super": "win", "windows": "win", "winleft": "win",
    "shiftleft": "shift",
    "return": "enter",
    "escape": "esc", "spacebar": "space", "del": "delete", "ins": "insert", "bksp": "backspace", "back_space": "backspace",
    "arrowup": "up", "arrowdown": "down", "arrowleft": "left", "arrowright": "right",
    "uparrow": "up", "downarrow": "down", "leftarrow": "left", "rightarrow": "right",
    "page_up": "pageup", "page_down": "pagedown", "pgup": "pageup", "pgdn": "pagedown", "pgdown": "pagedown",
    "caps_lock": "capslock", "caps": "capslock", "print_screen": "printscreen", "prtsc": "printscreen", "prtscr": "printscreen",
    "plus": "+", "minus": "-", "comma": ",", "period": ".", "dot": ".", "slash": "/",
}  # fmt: skip

NAMED = frozenset({
    "ctrl", "alt", "shift", "win", "enter", "esc", "tab", "space", "backspace", "delete", "insert", "up", "down", "left", "right",
    "home", "end", "pageup", "pagedown", "capslock", "numlock", "scrolllock", "printscreen", "pause", "menu",
    *(f"f{n}" for n in range(1, 25)),
})  # fmt: skip

MAX_KEYS = 5

_TWO_WORDS = re.compile(
    r"\b(page)[ _-](up|down)\b|\b(arrow)[ _-](up|down|left|right)\b|\b(caps|num|scroll)[ _-](lock)\b|\b(print)[ _-](screen)\b"
)


def parse_keys(text: str) -> tuple[str, ...]:
    """``"ctrl c"``, ``"Ctrl+C"``, ``"ctrl-c"``, ``"page down"`` -> canonical key names in pressing order.

    Raises:
        InvalidActionError: no key, too many keys, or a name that is no key.
    """
    spelled = text.strip().lower() or ("enter" if "\n" in text else "")
    joined = _TWO_WORDS.sub(lambda m: "".join(g for g in m.groups() if g), spelled)
    joined = re.sub(r"(?<=\S)\s+([+,-])\s+(?=\S)", r"\1", joined)
    keys = tuple(_canonical(part) for chunk in joined.split() for part in _split(chunk))
    if not keys:
        raise InvalidActionError("hotkey without a key.")
    if len(keys) > MAX_KEYS:
        raise InvalidActionError(f"hotkey with {len(keys)} keys; at most {MAX_KEYS} can be pressed together.")
    return keys


def _split(chunk: str) -> list[str]:
    """Split a chunk without blanks at + - and ,; a separator that stands where a key should be is that key (``ctrl++``)."""
    if _known(chunk):
        return [chunk]
    parts = re.split(r"([+,]|-)", chunk)
    keys: list[str] = []
    expect_key = True
    for part in parts:
        if part in ("+", "-", ","):
            if expect_key and keys:
                keys.append(part)
            expect_key = not expect_key
        elif part:
            keys.append(part)
            expect_key = False
    return keys


def _known(name: str) -> bool:
    return name in ALIASES or name in NAMED or (len(name) == 1 and name.isprintable())


def _canonical(name: str) -> str:
    if not _known(name):
        raise InvalidActionError(f"Unknown key {name[:20]!r} in hotkey.")
    return ALIASES.get(name, name)

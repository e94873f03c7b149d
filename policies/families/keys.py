"""Names of keys: whatever a model calls a key, one canonical name (pyautogui's, lower case) comes out."""

from __future__ import annotations

import re
from collections.abc import Iterable

from envs.errors import InvalidActionError

ALIASES: dict[str, str] = {
    "control": "ctrl", "ctl": "ctrl", "controlleft": "ctrl", "ctrlleft": "ctrl", "ctrlright": "ctrl", "controlright": "ctrl",
    "leftctrl": "ctrl", "rightctrl": "ctrl", "ctrl_l": "ctrl", "ctrl_r": "ctrl", "control_l": "ctrl", "control_r": "ctrl",
    "controlormeta": "ctrl",
    "option": "alt", "opt": "alt", "altleft": "alt", "altright": "alt", "leftalt": "alt", "rightalt": "alt", "alt_l": "alt",
    "alt_r": "alt", "altgr": "alt", "alt_gr": "alt", "optionleft": "alt", "optionright": "alt",
    "cmd": "win", "command": "win", "meta": "win", "super": "win", "windows": "win", "winleft": "win", "winright": "win",
    "super_l": "win", "super_r": "win", "os": "win", "metaleft": "win", "metaright": "win", "meta_l": "win",
    "meta_r": "win", "windowskey": "win",
    "shiftleft": "shift", "shiftright": "shift", "leftshift": "shift", "rightshift": "shift", "shift_l": "shift", "shift_r": "shift",
    "return": "enter", "ret": "enter", "numpadenter": "enter", "kp_enter": "enter",
    "apps": "menu", "contextmenu": "menu", "app": "menu",
    "escape": "esc", "spacebar": "space", "del": "delete", "ins": "insert", "bksp": "backspace", "back_space": "backspace",
    "arrowup": "up", "arrowdown": "down", "arrowleft": "left", "arrowright": "right",
    "uparrow": "up", "downarrow": "down", "leftarrow": "left", "rightarrow": "right",
    "page_up": "pageup", "page_down": "pagedown", "pgup": "pageup", "pgdn": "pagedown", "pgdown": "pagedown",
    "caps_lock": "capslock", "caps": "capslock", "print_screen": "printscreen", "prtsc": "printscreen", "prtscr": "printscreen",
    "print": "printscreen", "prntscrn": "printscreen", "prtscn": "printscreen", "num_lock": "numlock", "scroll_lock": "scrolllock",
    "break": "pause", "prior": "pageup", "next": "pagedown",
    "volume_up": "volumeup", "vol_up": "volumeup", "volup": "volumeup", "audiovolumeup": "volumeup",
    "volume_down": "volumedown", "vol_down": "volumedown", "voldown": "volumedown", "audiovolumedown": "volumedown",
    "volume_mute": "volumemute",
    "mute": "volumemute", "audiovolumemute": "volumemute",
    "recent": "recents", "app_switch": "recents", "recent_apps": "recents", "play_pause": "playpause",
    "playpausemedia": "playpause", "mediaplaypause": "playpause",
    "equal": "=", "equals": "=", "backslash": "\\", "quote": "'", "apostrophe": "'", "semicolon": ";", "grave": "`", "backtick": "`",
    "tilde": "~", "bracketleft": "[", "bracketright": "]", "underscore": "_", "asterisk": "*", "at": "@", "hash": "#", "ampersand": "&",
    "percent": "%", "dollar": "$", "exclam": "!", "colon": ":", "question": "?", "less": "<", "greater": ">", "pipe": "|",
    **{f"{pad}{n}": str(n) for pad in ("num", "numpad", "numpad_", "kp", "kp_") for n in range(10)},
    **{f"{pad}{name}": sign for pad in ("", "numpad", "kp_") for name, sign in
       {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "decimal": "."}.items()},
    "plus": "+", "minus": "-", "comma": ",", "period": ".", "dot": ".", "slash": "/",
}  # fmt: skip

NAMED = frozenset({
    "ctrl", "alt", "shift", "win", "enter", "esc", "tab", "space", "backspace", "delete", "insert", "up", "down", "left", "right",
    "home", "end", "pageup", "pagedown", "capslock", "numlock", "scrolllock", "printscreen", "pause", "menu",
    "volumeup", "volumedown", "volumemute", "playpause",
    "back", "recents", "power", "camera", "clear",
    *(f"f{n}" for n in range(1, 25)),
})  # fmt: skip

MAX_KEYS = 5
MAX_CHARACTERS = 200

_CONTROL_CHARACTERS = {" ": "space", "\n": "enter", "\r": "enter", "\t": "tab", "\b": "backspace", "\x1b": "esc"}

_TWO_WORDS = re.compile(
    r"\b(page)[ _-](up|down)\b|\b(arrow)[ _-](up|down|left|right)\b|\b(caps|num|scroll)[ _-](lock)\b|\b(print)[ _-](screen)\b"
    r"|\b(up|down|left|right)[ _-](?:arrow|key)\b|\b(volume)[ _-](up|down|mute)\b|\b(context)[ _-](menu)\b"
)


def parse_keys(text: str) -> tuple[str, ...]:
    """``"ctrl c"``, ``"Ctrl+C"``, ``"ctrl-c"``, ``"page down"`` -> canonical key names in pressing order.

    Raises:
        InvalidActionError: no key, too many keys, or a name that is not a key.
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidActionError(f"{len(text)} characters are no keys.")
    spelled = _unlisted(text).strip().lower() or ("enter" if "\n" in text else "")
    joined = _TWO_WORDS.sub(lambda m: "".join(g for g in m.groups() if g), spelled)
    joined = re.sub(r"(?<=\S)\s+([+,-])\s+(?=\S)", r"\1", joined)
    keys = tuple(_canonical(part) for chunk in joined.split() for whole in _split(chunk) for part in _underscored(whole))
    if not keys:
        raise InvalidActionError("hotkey without a key.")
    if len(keys) > MAX_KEYS:
        raise InvalidActionError(f"hotkey with {len(keys)} keys; at most {MAX_KEYS} can be pressed together.")
    return keys


def key_list(keys: Iterable[object]) -> tuple[str, ...]:
    """Keys that come one by one, as tool calls give them: ``["ctrl", "c"]``, ``["ctrl+c"]``, ``["keys=['ctrl'"]`` -> canonical names.

    Raises:
        InvalidActionError: as :func:`parse_keys`.
    """
    given = list(keys)
    if len(given) > MAX_KEYS or not all(isinstance(key, str) for key in given):
        raise InvalidActionError(f"{len(given)} keys: at most {MAX_KEYS} names can be pressed together.")
    found: list[str] = []
    for key in map(str, given):
        plain = _CONTROL_CHARACTERS.get(key) or (key if len(key) == 1 else key.removeprefix("keys=").strip("[]'\" ") or key)
        found.extend((plain,) if len(plain) == 1 and plain.isprintable() else parse_keys(plain))
    if not found:
        raise InvalidActionError("hotkey without a key.")
    return tuple(key.lower() for key in found)


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


_LISTED = re.compile(r"\s*\[.*\]\s*|.*['\"]\s*,\s*['\"].*", re.DOTALL)
_ANGLED = re.compile(r"<(\w+)>")


def _unlisted(text: str) -> str:
    """Keys of a list as text (``['ctrl', 'c']``, ``ctrl', 'c``, ``<ctrl>+<c>``) as ``parse_keys`` takes them."""
    if len(text.strip()) > 2 and _LISTED.fullmatch(text):
        text = re.sub(r"['\"\[\]]", " ", text)
    return _ANGLED.sub(r"\1", text)


def _underscored(name: str) -> list[str]:
    """``ctrl_c`` is two keys, ``volume_up`` one."""
    parts = name.split("_")
    return parts if not _known(name) and len(parts) <= MAX_KEYS and all(map(_known, parts)) else [name]


def _known(name: str) -> bool:
    return name in ALIASES or name in NAMED or (len(name) == 1 and name.isprintable())


def _canonical(name: str) -> str:
    if not _known(name):
        raise InvalidActionError(f"Unknown key {name[:20]!r} in hotkey.")
    return ALIASES.get(name, name)

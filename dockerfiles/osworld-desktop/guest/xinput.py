"""Input by XTEST: what a person's mouse and keyboard would send, for every character there is.

The usual tools fail here: pyautogui types ``>`` for ``<`` and drops everything beyond ASCII, xdotool loses newlines and characters.
A character that the keyboard layout has is typed with its own key; any other is bound to a spare key first.  A spare key is rebound
only when all of them are taken, the longest unused first: an application that lags behind reads old events with the new binding.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from Xlib import XK, X, display
from Xlib.ext import xtest

from guest.screen import x_display

KEY_SECONDS = 0.0006
"""Between key events.  Faster loses characters in slow applications."""
BIND_SECONDS = 0.02
"""After new bindings, for applications to fetch the keyboard map."""
REBIND_SECONDS = 0.3
"""Before a spare key changes its meaning: what was typed with it must have been read."""
CLICK_SECONDS = 0.02
DOUBLE_CLICK_SECONDS = 0.06
GLIDE_STEP_SECONDS = 0.01
MAX_WAIT_SECONDS = 60.0

ACTING_KEYS = frozenset(
    {124, *range(136, 147), 150, 151, 158, 160, 163, 164, 166, 167, *range(171, 175), 180, 181, 182, 185, 186, 189, 190, 214, 218, 225,
     *range(239, 243)}
)  # fmt: skip
"""Keycodes of keys that browsers and toolkits act on by their place and whatever they are bound to: copy, paste, back, reload, sleep ..."""

XK.load_keysym_group("xkb")  # has the third-level shift (AltGr)
CONTROL_KEYS = {"\n": XK.XK_Return, "\r": XK.XK_Return, "\t": XK.XK_Tab, "\b": XK.XK_BackSpace, "\x1b": XK.XK_Escape}

_bound: OrderedDict[int, int] = OrderedDict()  # keysym -> spare keycode, least recently used first
_spare: list[int] | None = None


class BadInput(ValueError):
    """An operation that does not exist or has bad fields; nothing of the request was done from there on."""


def perform(operations: list[dict[str, Any]]) -> int:
    """Do the operations in order and return how many were done.

    Operations: ``move x y`` · ``glide x y seconds`` · ``click button count`` · ``press button`` · ``release button`` ·
    ``keys keysyms`` (X11 names or ``U20AC``, pressed together) · ``hold keysyms`` · ``free keysyms`` · ``type text`` · ``wait seconds``.
    """
    for number, fields in enumerate(operations):
        name = str(fields.get("op"))
        if name not in OPERATIONS:
            raise BadInput(f"operation {number}: unknown op {name!r}")
        arguments = {key: value for key, value in fields.items() if key != "op"}
        try:
            OPERATIONS[name](**arguments)
        except (TypeError, ValueError) as error:
            raise BadInput(f"operation {number} ({name}): {error}") from error
    return len(operations)


# -- pointer --------------------------------------------------------------------------------------------------------------------
def move(x: int, y: int) -> None:
    with x_display() as d:
        xtest.fake_input(d, X.MotionNotify, x=int(x), y=int(y))
        d.sync()


def glide(x: int, y: int, seconds: float) -> None:
    """Move in small steps, so that an application sees a drag and not a jump."""
    steps = max(int(min(float(seconds), MAX_WAIT_SECONDS) / GLIDE_STEP_SECONDS), 1)
    with x_display() as d:
        at = d.screen().root.query_pointer()
    for step in range(1, steps + 1):
        move(round(at.root_x + (x - at.root_x) * step / steps), round(at.root_y + (y - at.root_y) * step / steps))
        time.sleep(GLIDE_STEP_SECONDS)


def press(button: int) -> None:
    _fake(X.ButtonPress, _button(button))


def release(button: int) -> None:
    _fake(X.ButtonRelease, _button(button))


def click(button: int = 1, count: int = 1) -> None:
    for number in range(int(count)):
        if number:
            time.sleep(DOUBLE_CLICK_SECONDS)
        press(button)
        time.sleep(CLICK_SECONDS)
        release(button)


def _button(button: int) -> int:
    if int(button) not in range(1, 10):
        raise ValueError(f"there is no button {button}")
    return int(button)


def _fake(event: int, detail: int) -> None:
    with x_display() as d:
        xtest.fake_input(d, event, detail)
        d.sync()


# -- keyboard -------------------------------------------------------------------------------------------------------------------
def keys(keysyms: list[str]) -> None:
    """Press the keys together, in order, and let them go in the opposite order."""
    hold(keysyms)
    free(keysyms)


def hold(keysyms: list[str]) -> None:
    """Press the keys in order and keep them down."""
    with x_display() as d:
        for code in _held_codes(d, keysyms):
            _key(d, X.KeyPress, code)


def free(keysyms: list[str]) -> None:
    """Let the keys go, in the opposite order of pressing."""
    with x_display() as d:
        for code in reversed(_held_codes(d, keysyms)):
            _key(d, X.KeyRelease, code)


def _held_codes(d: display.Display, keysyms: list[str]) -> list[int]:
    symbols = [_named(name) for name in keysyms]
    unknown = [name for name, symbol in zip(keysyms, symbols, strict=True) if symbol == 0]
    if unknown:
        raise ValueError(f"no such keysym: {', '.join(unknown)}")
    _bind(d, symbols)
    return list(dict.fromkeys(code for symbol in symbols for code in _codes(d, symbol)))


def type_text(text: str) -> None:
    """Type ``text``; newline is Return and tab is Tab."""
    symbols = [_keysym(character) for character in text.replace("\r\n", "\n")]
    with x_display() as d:
        spare_keys = len(_spares(d))
        for piece in _pieces(symbols, spare_keys):
            _bind(d, piece)
            for symbol in piece:
                codes = _codes(d, symbol)
                for code in codes:
                    _key(d, X.KeyPress, code)
                for code in reversed(codes):
                    _key(d, X.KeyRelease, code)


def wait(seconds: float) -> None:
    time.sleep(min(max(float(seconds), 0.0), MAX_WAIT_SECONDS))


def _named(name: str) -> int:
    """The keysym called ``name``; ``U20AC`` is the one of that character.  0 when there is none."""
    character = re.fullmatch(r"U([0-9A-F]{4,6})", name)
    return _keysym(chr(int(character[1], 16))) if character else XK.string_to_keysym(name)


def _keysym(character: str) -> int:
    """Latin-1 characters are their own keysyms, all others are Unicode keysyms (X11 protocol, appendix A)."""
    if character in CONTROL_KEYS:
        return CONTROL_KEYS[character]
    point = ord(character)
    if point < 0x20 or 0x7F <= point < 0xA0:
        raise ValueError(f"there is no key for the control character U+{point:04X}")
    return point if point < 0x100 else 0x01000000 | point


def _pieces(symbols: list[int], spare_keys: int) -> list[list[int]]:
    """Cut the text so that no piece needs more spare keys than there are."""
    pieces: list[list[int]] = [[]]
    distinct: set[int] = set()
    for symbol in symbols:
        if symbol not in distinct and len(distinct) >= spare_keys:
            pieces.append([])
            distinct = set()
        distinct.add(symbol)
        pieces[-1].append(symbol)
    return pieces


def _codes(d: display.Display, symbol: int) -> list[int]:
    """Keycodes to hold together for a keysym: the key, after Shift when it is on the upper level."""
    if symbol in _bound:
        _bound.move_to_end(symbol)
        return [_bound[symbol]]
    code, level = _on_layout(d, symbol) or (0, 0)
    return [d.keysym_to_keycode(XK.XK_Shift_L), code] if level == 1 else [code]


def _on_layout(d: display.Display, symbol: int) -> tuple[int, int] | None:
    """(keycode, level 0 or 1) where the layout has the keysym; deeper levels need modifiers that layouts place differently."""
    found = [(index, code) for code, index in d.keysym_to_keycodes(symbol) if index in (0, 1)]
    return (min(found)[1], min(found)[0]) if found else None


def _bind(d: display.Display, symbols: list[int]) -> None:
    """Give every keysym that the layout lacks a spare key."""
    wanted = [s for s in dict.fromkeys(symbols) if s not in _bound and _on_layout(d, s) is None]
    if not wanted:
        return
    free = [code for code in _spares(d) if code not in _bound.values()]
    if len(free) < len(wanted):
        time.sleep(REBIND_SECONDS)
        unused = [symbol for symbol in _bound if symbol not in symbols]
        free += [_bound.pop(symbol) for symbol in unused[: len(wanted) - len(free)]]
    chosen = dict(sorted(zip(free, wanted, strict=False)))
    _bound.update({symbol: code for code, symbol in chosen.items()})
    for first, row in _runs(chosen):  # every request makes all applications read the whole map again
        d.change_keyboard_mapping(first, [[symbol] * 2 for symbol in row])
    d.sync()
    time.sleep(BIND_SECONDS)
    while d.pending_events():  # the server tells every client of the new map, us too
        d.next_event()


def _runs(chosen: dict[int, int]) -> list[tuple[int, list[int]]]:
    """Keysyms by keycode (ascending) as (first keycode, keysyms of it and its successors)."""
    runs: list[tuple[int, list[int]]] = []
    for code, symbol in chosen.items():
        if runs and code == runs[-1][0] + len(runs[-1][1]):
            runs[-1][1].append(symbol)
        else:
            runs.append((code, [symbol]))
    return runs


def _spares(d: display.Display) -> list[int]:
    """Keycodes that the layout leaves empty or gives to media keys (XF86...), or that an earlier server bound; found once."""
    global _spare
    if _spare is None:
        first, last = d.display.info.min_keycode, d.display.info.max_keycode
        rows = d.get_keyboard_mapping(first, last - first + 1)
        empty = {first + offset: row for offset, row in enumerate(rows) if all(map(_is_spare, row)) or _is_bound(row)}
        usable = [code for code in empty if code not in ACTING_KEYS]
        # Keys of no meaning first: desktops act on media keys until they have heard that they mean something else.
        _spare = sorted(usable, key=lambda code: any(_is_media(symbol) for symbol in empty[code]))
        if len(_spare) < 2:
            raise RuntimeError("the keyboard map has no spare keys to bind characters to")
    return _spare


def _is_spare(symbol: int) -> bool:
    return symbol == 0 or _is_media(symbol) or symbol >> 24 == 0x01


def _is_media(symbol: int) -> bool:
    return symbol >> 16 == 0x1008


def _is_bound(row: list[int]) -> bool:
    """Whether an earlier program of ours bound the key: no layout has the same character beyond ASCII with Shift and without."""
    return len(row) > 1 and row[0] == row[1] and 0xA0 <= row[0] <= 0xFF


def _key(d: display.Display, event: int, code: int) -> None:
    xtest.fake_input(d, event, code)
    d.sync()
    time.sleep(KEY_SECONDS)


OPERATIONS: dict[str, Callable[..., None]] = {
    "move": move, "glide": glide, "press": press, "release": release, "click": click, "keys": keys,
    "hold": hold, "free": free, "type": type_text, "wait": wait,
}  # fmt: skip

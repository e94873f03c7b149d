"""Actions as what a finger and a keyboard do: plain data, in the vocabulary of our guest server.

Where papers and harnesses disagree about UI-TARS on AndroidWorld, the choice is a field of :class:`Conventions`; the reasons are
in ``docs/androidworld.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from envs import actions as act
from envs.androidworld import apps
from envs.androidworld.names import nearest
from envs.errors import InvalidActionError, UsageError

Operation = dict[str, Any]
"""``{"type": ..., field: value}``: an ACTION of our guest's protocol."""

SCROLL_MS = 300
"""Android's own duration of ``input swipe``, which upstream's scroll uses."""
DRAWN_MS = 500
DRAG_MS = 800
PICK_UP_MS = 2000
LONG_PRESS_MS = 1000
LEAST_PRESS, MOST_PRESS, MOST_WAIT = 0.6, 10.0, 30.0
"""Seconds: a shorter press is a tap to Android; the guest's own limits of a press and of a wait."""
EDGE = 0.04
"""Share of the screen at its edges where Android takes a swipe for one of its own gestures."""
LEAST_STROKE = 0.15
"""A scroll is at least this share of the screen's side long, wherever it begins."""

OPPOSITE: dict[act.Direction, act.Direction] = {"up": "down", "down": "up", "left": "right", "right": "left"}
FINGER: dict[act.Direction, tuple[int, int]] = {"up": (0, 1), "down": (0, -1), "left": (1, 0), "right": (-1, 0)}
"""Where the finger goes to show what lies in a direction."""

KEYS = {
    "enter": "ENTER", "tab": "TAB", "space": "SPACE", "backspace": "DEL", "delete": "FORWARD_DEL", "esc": "ESCAPE", "escape": "ESCAPE",
    "back": "BACK", "end": "MOVE_END", "pageup": "PAGE_UP", "pagedown": "PAGE_DOWN", "up": "DPAD_UP",
    "down": "DPAD_DOWN", "left": "DPAD_LEFT", "right": "DPAD_RIGHT", "ctrl": "CTRL_LEFT", "shift": "SHIFT_LEFT", "alt": "ALT_LEFT",
    "win": "META_LEFT", "insert": "INSERT", "menu": "MENU", "apps": "MENU", "capslock": "CAPS_LOCK", "return": "ENTER",
    "ctrlright": "CTRL_RIGHT", "shiftright": "SHIFT_RIGHT", "altright": "ALT_RIGHT", "search": "SEARCH", "copy": "COPY", "cut": "CUT",
    "paste": "PASTE", "recents": "APP_SWITCH", "recent": "APP_SWITCH", "app_switch": "APP_SWITCH", "overview": "APP_SWITCH",
    "volume_up": "VOLUME_UP", "volumeup": "VOLUME_UP", "volume_down": "VOLUME_DOWN", "volumedown": "VOLUME_DOWN",
    "volumemute": "VOLUME_MUTE", "camera": "CAMERA", "clear": "CLEAR", "playpause": "MEDIA_PLAY_PAUSE",
    **{letter: letter.upper() for letter in "abcdefghijklmnopqrstuvwxyz"}, **{digit: digit for digit in "0123456789"},
    **{f"f{number}": f"F{number}" for number in range(1, 13)},
}  # fmt: skip
"""Names of keys as agents write them -> Android's, without ``KEYCODE_``."""
BUTTONS = {"home": "HOME", "back": "BACK"}
"""Alone, these are the phone's buttons; together with others, keys of a keyboard (ctrl+home moves the cursor)."""
TOGETHER = {"home": "MOVE_HOME"}
MOST_KEYS = 4


@dataclass(frozen=True)
class Conventions:
    """What the actions of a mobile agent mean on the device.

    Attributes:
        scroll: ``content``: ``scroll(direction='down')`` shows what is below; ``finger``: the direction is the finger's.
        enter: ``asked``: Enter only where the agent asks for it; ``always``: after every text, as upstream's ``input_text``.
        drag: ``swipe``: the finger goes from start to end slowly; ``pick_up``: it holds the start until that can be carried.
        scroll_share: How far a scroll without end goes, as a share of the screen's side.
        wait_seconds: What ``wait`` waits.
    """

    scroll: Literal["content", "finger"] = "content"
    enter: Literal["asked", "always"] = "asked"
    drag: Literal["swipe", "pick_up"] = "swipe"
    scroll_share: float = 0.5
    wait_seconds: float = 1.0

    def __post_init__(self) -> None:
        for name, kind in (("scroll", ("content", "finger")), ("enter", ("asked", "always")), ("drag", ("swipe", "pick_up"))):
            if getattr(self, name) not in kind:
                raise UsageError(f"androidworld.{name} is {getattr(self, name)!r}.", f"Known: {', '.join(kind)}.")
        for name in ("scroll_share", "wait_seconds"):
            if isinstance(getattr(self, name), bool) or not isinstance(getattr(self, name), int | float):
                raise UsageError(f"androidworld.{name} is {getattr(self, name)!r}.", "Give a number.")
        if not 0 < self.scroll_share <= 1:
            raise UsageError(
                f"androidworld.scroll_share is {self.scroll_share}.", "Give a share of the screen, above 0 and at most 1."
            )
        if not 0 <= self.wait_seconds <= 30:
            raise UsageError(f"androidworld.wait_seconds is {self.wait_seconds}.", "Give seconds from 0 to 30.")


def compile_action(action: act.Action, conventions: Conventions, screen: tuple[int, int]) -> Operation:
    """The operation of one action on a screen of (width, height) pixels.

    Raises:
        InvalidActionError: a phone has no such action or key, or the text cannot be sent.
    """
    match action:
        case act.Click(x, y):
            return {"type": "tap", "x": int(x), "y": int(y)}
        case act.DoubleClick(x, y):
            return {"type": "double_tap", "x": int(x), "y": int(y)}
        case act.LongPress(x, y, seconds):
            return {"type": "long_press", "x": int(x), "y": int(y), "duration_ms": _milliseconds(seconds, LONG_PRESS_MS)}
        case act.Drag(x, y, end_x, end_y):
            kind, duration = ("swipe", DRAG_MS) if conventions.drag == "swipe" else ("drag", PICK_UP_MS)
            return _stroke(kind, x, y, end_x, end_y, duration)
        case act.Scroll():
            return _scroll(action, conventions, screen)
        case act.Type():
            return _type(action, conventions)
        case act.Hotkey(keys):
            return _keys(keys)
        case act.Wait(seconds):
            asked = conventions.wait_seconds if seconds is None or not seconds >= 0 else seconds
            return {"type": "wait", "seconds": float(min(asked, MOST_WAIT))}
        case act.PressHome() | act.PressBack():
            return {"type": "key", "key": "KEYCODE_HOME" if isinstance(action, act.PressHome) else "KEYCODE_BACK"}
        case act.OpenApp(name):
            return {"type": "open_app", "name": apps.resolve(sendable(name))}
    raise InvalidActionError(f"A phone has no action {action.kind!r}.")


def _stroke(kind: str, x: float, y: float, end_x: float, end_y: float, duration_ms: int) -> Operation:
    ends = {"x": int(x), "y": int(y), "end_x": int(end_x), "end_y": int(end_y)}
    return {"type": kind, **ends, "duration_ms": duration_ms}


def _scroll(action: act.Scroll, conventions: Conventions, screen: tuple[int, int]) -> Operation:
    if action.end_x is not None and action.end_y is not None:
        return _stroke("swipe", action.x, action.y, action.end_x, action.end_y, DRAWN_MS)
    direction = action.direction if conventions.scroll == "content" else OPPOSITE[action.direction]
    (x, y), (dx, dy) = (action.x, action.y), FINGER[direction]
    if dx:
        x, end = _run(x, dx, screen[0], conventions.scroll_share)
        return _stroke("swipe", x, y, end, y, SCROLL_MS)
    y, end = _run(y, dy, screen[1], conventions.scroll_share)
    return _stroke("swipe", x, y, x, end, SCROLL_MS)


def _run(start: float, sign: int, side: int, share: float) -> tuple[float, float]:
    """(start, end) of a finger's way along one axis: from ``start`` if possible, as far as the screen goes, off its edges."""
    low, high = EDGE * side, (1 - EDGE) * side
    start = min(max(start, low), high)
    end = min(max(start + sign * share * side, low), high)
    if abs(end - start) < min(LEAST_STROKE, share) * side:
        start = end - sign * min(LEAST_STROKE, share) * side
    return start, end


def _type(action: act.Type, conventions: Conventions) -> Operation:
    if not action.text and not action.submit:
        raise InvalidActionError("There is nothing to type.")
    return {"type": "text", "text": sendable(action.text), "submit": action.submit or conventions.enter == "always"}


def _keys(keys: tuple[str, ...]) -> Operation:
    names = [key.strip().lower() for key in keys]
    known = KEYS | (BUTTONS if len(names) == 1 else TOGETHER)
    for key, name in zip(keys, names, strict=True):
        if name not in known:
            raise InvalidActionError(f"A phone has no key {key[:20]!r}.{nearest(name, known)}")
    codes = [f"KEYCODE_{known[name]}" for name in names]
    if not 1 <= len(codes) <= MOST_KEYS:
        raise InvalidActionError(f"{len(codes)} keys cannot be pressed together.")
    return {"type": "key", "key": codes[0]} if len(codes) == 1 else {"type": "keys", "keys": codes}


def _milliseconds(seconds: float | None, default: int) -> int:
    """How long a finger stays, within what the guest takes; ``default`` where the agent does not say."""
    return default if seconds is None or not seconds > 0 else round(min(max(seconds, LEAST_PRESS), MOST_PRESS) * 1000)


def sendable(text: str) -> str:
    """The text, with line ends as a keyboard has them.

    Raises:
        InvalidActionError: it has half characters (lone surrogates) or control characters, which no keyboard types.
    """
    text = act.lines(text)
    bad = sorted({c for c in text if (c < " " and c not in "\n\t") or c == "\x7f" or "\ud800" <= c <= "\udfff"})
    if bad:
        raise InvalidActionError(f"The text has characters that no key types: {', '.join(f'U+{ord(c):04X}' for c in bad)}.")
    return text

"""Actions as OSWorld's agents write them down, read as the product's vocabulary.  Python text is parsed, never run.

Three forms: ``WAIT``, ``DONE`` and ``FAIL``; Python that calls pyautogui (the action space "pyautogui"); and objects with an
``action_type`` (the action space "computer_13").
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from envs import actions as act

Clicking = type[act.Click] | type[act.DoubleClick] | type[act.RightClick]
SPECIAL: dict[str, act.Action] = {"WAIT": act.Wait(), "DONE": act.Finished(), "FAIL": act.Fail()}
SOURCE_KEYS = ("command", "code", "action")
"""Where agents that write objects of their own keep the Python text."""


def read_actions(recorded: Iterable[Any]) -> list[act.Action]:
    """What of the recorded actions of one reply this vocabulary has; the rest is left out.

    A pointer that only moves is a hover if nothing else happens; ``pyperclip.copy`` and a paste after it are typing.
    """
    reader = _Reader()
    for one in recorded:
        reader.read(one)
    return reader.finish()


class _Reader:
    """Goes through the calls of one action; keeps where the pointer is and what was copied."""

    def __init__(self) -> None:
        self.found: list[act.Action] = []
        self._at: tuple[float, float] | None = None
        self._moved = False
        self._copied: str | None = None

    def read(self, recorded: Any) -> None:
        """One recorded action, of whatever form."""
        if isinstance(recorded, Mapping):
            self._object(recorded)
        elif isinstance(recorded, str) and recorded.strip() in SPECIAL:
            self.found.append(SPECIAL[recorded.strip()])
        elif isinstance(recorded, str):
            try:
                tree = ast.parse(recorded)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                return
            for node in tree.body:
                if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                    self.call(node.value)

    def _object(self, recorded: Mapping[str, Any]) -> None:
        """An action of computer_13, or an object that holds one of the other forms."""
        kind = recorded.get("action_type")
        if not isinstance(kind, str):
            self.read(next((recorded[key] for key in SOURCE_KEYS if isinstance(recorded.get(key), str)), None))
            return
        parameters = recorded.get("parameters")
        k = parameters if isinstance(parameters, Mapping) else {n: v for n, v in recorded.items() if n != "action_type"}
        if kind in SPECIAL:
            self.found.append(SPECIAL[kind])
        elif kind in COMPUTER_13:
            COMPUTER_13[kind](self, k)

    def call(self, call: ast.Call) -> None:
        """One call; calls of other modules and other functions change nothing."""
        if not isinstance(call.func, ast.Attribute) or not isinstance(call.func.value, ast.Name):
            return
        name = f"{call.func.value.id}.{call.func.attr}"
        arguments = [_literal(a) for a in call.args]
        named = {k.arg: _literal(k.value) for k in call.keywords if k.arg}
        if name in CALLS:
            CALLS[name](self, arguments, named)

    def finish(self) -> list[act.Action]:
        if self._moved and self._at is not None:
            self.found.append(act.Hover(*self._at))
        return self.found

    # -- what calls mean -----------------------------------------------------------------------------------------------------------
    def point(self, a: Sequence[Any], k: Mapping[str, Any]) -> tuple[float, float] | None:
        """Where a call points, or where the pointer is."""
        first = a[0] if a else None
        if isinstance(first, list | tuple) and len(first) == 2:
            a = first
        x, y = k.get("x", a[0] if a else None), k.get("y", a[1] if len(a) > 1 else None)
        return (float(x), float(y)) if _is_number(x) and _is_number(y) else self._at

    def move(self, a: Sequence[Any], k: Mapping[str, Any]) -> None:
        self._at = self.point(a, k)
        self._moved = self._at is not None

    def click(self, a: Sequence[Any], k: Mapping[str, Any], kind: Clicking = act.Click) -> None:
        at = self.point(a, k)
        if at is None:
            return
        clicks = k.get("clicks", a[2] if len(a) > 2 else 1)
        if k.get("button") == "right":
            kind = act.RightClick
        elif kind is act.Click and clicks in (2, 3):
            kind = act.DoubleClick
        self._at, self._moved = at, False
        self.found.append(kind(*at))

    def drag(self, a: Sequence[Any], k: Mapping[str, Any]) -> None:
        start, end = self._at, self.point(a, k)
        if start is not None and end is not None:
            self.found.append(act.Drag(*start, *end))
        self._at, self._moved = end, False

    def copy(self, a: Sequence[Any], k: Mapping[str, Any]) -> None:
        text = k.get("text", a[0] if a else None)
        self._copied = text if isinstance(text, str) else None

    def write(self, a: Sequence[Any], k: Mapping[str, Any]) -> None:
        text = k.get("message", k.get("text", a[0] if a else None))
        if isinstance(text, list | tuple) and all(isinstance(key, str) for key in text):
            text = "".join(text)
        if isinstance(text, str):
            self.found.append(act.Type(text))

    def hotkey(self, a: Sequence[Any], k: Mapping[str, Any]) -> None:
        given = a[0] if len(a) == 1 and isinstance(a[0], list | tuple) else a
        keys = tuple(key.lower() for key in given if isinstance(key, str))
        if keys == ("ctrl", "v") and self._copied is not None:
            self.found.append(act.Type(self._copied))
        elif keys:
            self.found.append(act.Hotkey(keys))

    def press(self, a: Sequence[Any], k: Mapping[str, Any]) -> None:
        keys = k.get("keys", a[0] if a else None)
        for key in keys if isinstance(keys, list | tuple) else [keys]:
            if isinstance(key, str):
                self.found.append(act.Hotkey((key.lower(),)))

    def scroll(self, a: Sequence[Any], k: Mapping[str, Any], *, sideways: bool = False) -> None:
        amount = k.get("clicks", a[0] if a else None)
        at = self.point(a[1:], k)
        if at is not None and _is_number(amount) and amount:
            forward: act.Direction = "right" if sideways else "up"
            back: act.Direction = "left" if sideways else "down"
            self.found.append(act.Scroll(*at, forward if amount > 0 else back, clicks=act.wheel(amount)))
            self._moved = False


Meaning = Callable[[_Reader, Sequence[Any], Mapping[str, Any]], None]
CALLS: dict[str, Meaning] = {
    "pyautogui.moveTo": _Reader.move,
    "pyautogui.click": _Reader.click,
    "pyautogui.leftClick": _Reader.click,
    "pyautogui.doubleClick": lambda r, a, k: r.click(a, k, act.DoubleClick),
    "pyautogui.tripleClick": lambda r, a, k: r.click(a, k, act.DoubleClick),
    "pyautogui.rightClick": lambda r, a, k: r.click(a, k, act.RightClick),
    "pyautogui.dragTo": _Reader.drag,
    "pyautogui.write": _Reader.write,
    "pyautogui.typewrite": _Reader.write,
    "pyautogui.hotkey": _Reader.hotkey,
    "pyautogui.press": _Reader.press,
    "pyautogui.scroll": _Reader.scroll,
    "pyautogui.vscroll": _Reader.scroll,
    "pyautogui.hscroll": lambda r, a, k: r.scroll(a, k, sideways=True),
    "pyperclip.copy": _Reader.copy,
}


COMPUTER_13: dict[str, Callable[[_Reader, Mapping[str, Any]], None]] = {
    "MOVE_TO": lambda r, k: r.move([], k),
    "CLICK": lambda r, k: r.click([], {**k, "clicks": k.get("num_clicks", 1)}),
    "RIGHT_CLICK": lambda r, k: r.click([], k, act.RightClick),
    "DOUBLE_CLICK": lambda r, k: r.click([], k, act.DoubleClick),
    "DRAG_TO": lambda r, k: r.drag([], k),
    "TYPING": lambda r, k: r.write([], k),
    "PRESS": lambda r, k: r.press([k.get("key")], {}),
    "HOTKEY": lambda r, k: r.hotkey([k.get("keys")], {}),
}


def _literal(node: ast.expr) -> Any:
    """The value of a literal, else None."""
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6

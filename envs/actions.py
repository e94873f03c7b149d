"""The one action vocabulary: every policy parses its text into it, every environment executes it in its own way.

Coordinates are pixels of the observation's screenshot (where there is one), origin at the top left, ``0 <= x < width`` and
``0 <= y < height``.
An action is plain data (frozen, hashable, JSON round trip through :func:`to_json` / :func:`from_json`); nothing in it is ever
executed as code on the host.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

from envs.errors import InvalidActionError

Direction = Literal["up", "down", "left", "right"]
DIRECTIONS: tuple[Direction, ...] = ("up", "down", "left", "right")


@dataclass(frozen=True, slots=True)
class Action:
    """Base of the vocabulary; ``kind`` is the name used in JSON and in every record."""

    kind: ClassVar[str] = ""


@dataclass(frozen=True, slots=True)
class Click(Action):
    """Left click, or tap, at a point."""

    kind: ClassVar[str] = "click"
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class DoubleClick(Action):
    kind: ClassVar[str] = "double_click"
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class TripleClick(Action):
    kind: ClassVar[str] = "triple_click"
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class RightClick(Action):
    kind: ClassVar[str] = "right_click"
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class MiddleClick(Action):
    kind: ClassVar[str] = "middle_click"
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Hover(Action):
    """Move the pointer without pressing (menus that open on hover)."""

    kind: ClassVar[str] = "hover"
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class LongPress(Action):
    """Press at a point and hold, for ``seconds`` or as long as the environment takes for long."""

    kind: ClassVar[str] = "long_press"
    x: float
    y: float
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Drag(Action):
    """Press at (x, y), move, release at (end_x, end_y)."""

    kind: ClassVar[str] = "drag"
    x: float
    y: float
    end_x: float
    end_y: float


@dataclass(frozen=True, slots=True)
class MouseDown(Action):
    """Press the left button at a point and keep it down."""

    kind: ClassVar[str] = "mouse_down"
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class MouseUp(Action):
    """Move to a point and let the left button go."""

    kind: ClassVar[str] = "mouse_up"
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Type(Action):
    """Type ``text`` into whatever has the focus.  ``submit`` presses Enter afterwards; newlines inside are typed as such."""

    kind: ClassVar[str] = "type"
    text: str
    submit: bool = False


@dataclass(frozen=True, slots=True)
class Hotkey(Action):
    """Press ``keys`` together, lower-case names in pressing order, e.g. ``("ctrl", "shift", "t")``."""

    kind: ClassVar[str] = "hotkey"
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyDown(Action):
    """Press ``keys`` in order and keep them down, until a KeyUp lets them go or the episode ends."""

    kind: ClassVar[str] = "key_down"
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyUp(Action):
    """Let ``keys`` go."""

    kind: ClassVar[str] = "key_up"
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scroll(Action):
    """Scroll at (x, y) so that content lying in ``direction`` comes into view (down = show what is below).

    Where the agent drew the finger's way itself, it goes from (x, y) to (end_x, end_y); both are None otherwise.  ``clicks`` of the wheel,
    where the agent gave a number; a scroll goes as far as the environment's scrolls go otherwise, and on a phone.
    """

    kind: ClassVar[str] = "scroll"
    x: float
    y: float
    direction: Direction
    end_x: float | None = None
    end_y: float | None = None
    clicks: int | None = None


@dataclass(frozen=True, slots=True)
class Wait(Action):
    """Do nothing, for ``seconds`` or as long as the environment waits."""

    kind: ClassVar[str] = "wait"
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class PressHome(Action):
    kind: ClassVar[str] = "press_home"


@dataclass(frozen=True, slots=True)
class PressBack(Action):
    kind: ClassVar[str] = "press_back"


@dataclass(frozen=True, slots=True)
class OpenApp(Action):
    kind: ClassVar[str] = "open_app"
    name: str


@dataclass(frozen=True, slots=True)
class Answer(Action):
    """Say ``text``: the answer to an information-retrieval task, or a turn where there is no screen.

    It does not end the episode by itself: whether an answer does is the environment's to say.
    """

    kind: ClassVar[str] = "answer"
    text: str


@dataclass(frozen=True, slots=True)
class Finished(Action):
    """The agent declares the task done, with an optional closing answer; ends the episode."""

    kind: ClassVar[str] = "finished"
    text: str = ""


@dataclass(frozen=True, slots=True)
class Fail(Action):
    """The agent declares the task infeasible (UI-TARS ``call_user``, OSWorld ``FAIL``); ends the episode."""

    kind: ClassVar[str] = "fail"
    text: str = ""


@dataclass(frozen=True, slots=True)
class Invalid(Action):
    """What the policy wrote is not an action; executes nothing, costs a step; the reason is recorded and read by the critics."""

    kind: ClassVar[str] = "invalid"
    reason: str


VOCABULARY: dict[str, type[Action]] = {
    cls.kind: cls
    for cls in (
        Click, DoubleClick, TripleClick, RightClick, MiddleClick, Hover, LongPress, Drag, MouseDown, MouseUp, Type, Hotkey,
        KeyDown, KeyUp, Scroll, Wait, PressHome, PressBack, OpenApp, Answer, Finished, Fail, Invalid,
    )
}  # fmt: skip

Pointed = Click | DoubleClick | TripleClick | RightClick | MiddleClick | Hover | LongPress | Scroll | Drag | MouseDown | MouseUp
POINTED = (Click, DoubleClick, TripleClick, RightClick, MiddleClick, Hover, LongPress, Scroll, Drag, MouseDown, MouseUp)
"""Actions that have a place on the screen (``x``, ``y``)."""

TERMINAL = (Finished, Fail)
"""Actions that end the episode whatever the screen shows."""


MOST_CLICKS = 100
"""Clicks of the wheel of one scroll: further than any page of a task is long."""


def wheel(amount: float) -> int:
    """Clicks of the wheel for the number that an agent gave, whatever its sign."""
    return max(1, min(MOST_CLICKS, round(abs(amount))))


def lines(text: str) -> str:
    """``text`` with one character for the end of a line, as every keyboard has one key for it."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def problem(action: Action) -> str:
    """What is wrong with a field of ``action``, or "" for nothing; whether it is on the screen depends on the screen.

    What is read from JSON is right.  What a policy makes itself may be anything: a NaN, a list for a text.
    """
    for field in dataclasses.fields(action):
        value = getattr(action, field.name)
        if value is None and field.default is None:
            continue
        try:
            _coerce(field.name, value)
        except ValueError as error:
            return str(error)
    return ""


def to_json(action: Action) -> dict[str, Any]:
    """``{"kind": ..., field: value}``, JSON-serialisable; optional fields only where they are given.

    An action that has a :func:`problem` could not be read again, and was not executed: it is written as the invalid one that it was.
    """
    if wrong := problem(action):
        return {"kind": Invalid.kind, "reason": f"{action.kind}: {wrong}"}
    fields = {f.name: value for f in dataclasses.fields(action) if (value := getattr(action, f.name)) is not None}
    if isinstance(action, Hotkey | KeyDown | KeyUp):
        fields["keys"] = list(action.keys)
    return {"kind": action.kind, **fields}


def from_json(data: Mapping[str, Any]) -> Action:
    """Inverse of :func:`to_json`.

    Raises:
        InvalidActionError: unknown kind, missing or extra field, or a value that such a field cannot have.
    """
    fields = dict(data)
    kind = fields.pop("kind", None)
    cls = VOCABULARY.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise InvalidActionError(f"Unknown action kind {kind!r}.", f"Known kinds: {', '.join(VOCABULARY)}.")
    try:
        return cls(**{name: _coerce(name, value) for name, value in fields.items()})
    except (TypeError, ValueError) as error:
        raise InvalidActionError(f"Bad fields for action {kind!r}: {error}.") from error


def _coerce(name: str, value: Any) -> Any:
    if name in {"x", "y", "end_x", "end_y", "seconds"}:
        return _number(name, value)
    if name == "clicks":
        if isinstance(value, bool) or not isinstance(value, Integral) or not 1 <= int(value) <= MOST_CLICKS:
            raise ValueError(f"clicks must be a whole number from 1 to {MOST_CLICKS}, got {value!r}")
        return int(value)
    if name == "keys":
        if not isinstance(value, list | tuple) or not all(isinstance(k, str) for k in value):
            raise ValueError(f"keys must be a list of key names, got {value!r}")
        return tuple(value)
    if name == "submit":
        if not isinstance(value, bool):
            raise ValueError(f"submit must be true or false, got {value!r}")
        return value
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, got {value!r}")
    if name == "direction" and value not in DIRECTIONS:
        raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, got {value!r}")
    return value


def _number(name: str, value: Any) -> float:
    try:
        number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a number, got {value!r:.40}")
    if name == "seconds" and number < 0:
        raise ValueError(f"seconds cannot be less than 0, got {value!r}")
    return number


def describe(action: Action) -> str:
    """One short line for people: ``click(80, 105)``, ``type('abc')``."""
    parts = []
    for field in dataclasses.fields(action):
        value = getattr(action, field.name)
        if value is None:
            continue
        parts.append(f"{value:.0f}" if isinstance(value, float) else repr(value) if isinstance(value, str) else str(value))
    return f"{action.kind}({', '.join(parts)})"

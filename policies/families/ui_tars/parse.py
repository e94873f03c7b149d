"""From what UI-TARS writes to the action vocabulary, in pixels.  Nothing is ever evaluated: ``calls.py`` scans the text.

A reply is ``Thought: ...`` and ``Action: ...``; the action part is one or more calls ``name(argument='value', ...)``.  The scanner
accepts what the models are known to write besides the protocol: leftover box tokens, ``<point>`` and ``<bbox>`` tags, boxes of four
numbers, floats, ranges, full-width punctuation, unescaped quotes and real line breaks inside ``content``, key names joined by
blanks, ``+`` or ``-``, and a missing ``Action:``.  Everything else is an :class:`~envs.errors.InvalidActionError`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from envs import actions as act
from envs.actions import Action
from envs.errors import InvalidActionError
from policies.families.ui_tars.calls import Call, calls, shorten, split_reply
from policies.families.ui_tars.keys import parse_keys

MAX_ACTIONS = 16
"""Calls per reply: more is a model in a loop."""

TOLERANCE = 0.02
"""Share of the coordinate range by which a point may lie outside and still be meant for the edge."""


@dataclass(frozen=True)
class Frame:
    """The model's coordinate frame: its point (x, y) lies at pixel (x · width / units_x, y · height / units_y).

    Attributes:
        width, height: Size of the observation's screenshot in pixels.
        units_x, units_y: What the model takes for the size: 1000 each (v1), or the resized image (1.5).
    """

    width: int
    height: int
    units_x: float = 1000.0
    units_y: float = 1000.0

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """The pixel meant, clamped to the screen.

        Raises:
            InvalidActionError: the point lies off the screen by more than ``TOLERANCE``.
        """
        for value, units in ((x, self.units_x), (y, self.units_y)):
            if not -TOLERANCE * units <= value <= (1 + TOLERANCE) * units:
                raise InvalidActionError(f"Point ({x:g}, {y:g}) is off the screen (0-{self.units_x:g}, 0-{self.units_y:g}).")
        column, row = x * self.width / self.units_x, y * self.height / self.units_y
        return min(max(column, 0.0), self.width - 1.0), min(max(row, 0.0), self.height - 1.0)


class Reply(NamedTuple):
    """A parsed reply; ``action_text`` is the action part in the model's own frame, without box tokens."""

    thought: str
    action_text: str
    actions: tuple[Action, ...]

    @property
    def parsable(self) -> bool:
        return not any(isinstance(action, act.Invalid) for action in self.actions)


def parse_reply(text: str, frame: Frame) -> Reply:
    """Thought, action part and actions of a reply; actions after one that ends the episode are dropped.

    Raises:
        InvalidActionError: the reply is no action; the message is short and made to be shown to the model.
    """
    thought, action_text = split_reply(text)
    actions: list[Action] = []
    end = 0
    for call in calls(action_text):
        if len(actions) == MAX_ACTIONS:
            raise InvalidActionError(f"More than {MAX_ACTIONS} actions in one reply.")
        actions.append(_action(call, frame))
        end = call.end
        if isinstance(actions[-1], act.TERMINAL):
            break
    if not actions:
        raise InvalidActionError(
            f"No action in the reply: {shorten(action_text)!r}." if action_text else "The reply has no action."
        )
    return Reply(thought, action_text[:end], tuple(actions))


# -- points --------------------------------------------------------------------------------------------------------------------

_FULL_WIDTH = str.maketrans("（），．－～［］｛｝：０１２３４５６７８９、", "(),.-~[]{}:0123456789,")
_TAG = re.compile(r"</?\s*(?:point|bbox|box|start|end)\s*/?>|<\|?[A-Za-z_]*\|?>", re.IGNORECASE)
_NUMBER = r"-?\d+(?:\.\d*)?|-?\.\d+"
_RANGE = re.compile(rf"({_NUMBER})\s*(?:-|~|–|—|\bto\b)\s*(\d+(?:\.\d*)?)")
_FILLER = re.compile(r"[\s,;:=()\[\]{}'\"]|\b[xy][12]?\b", re.IGNORECASE)


def parse_point(text: str) -> tuple[float, float]:
    """(x, y) in the model's frame from ``(x,y)``, ``[x1, y1, x2, y2]`` (its centre), tags, floats or ranges (their middle).

    Raises:
        InvalidActionError: not one point.
    """
    plain = _TAG.sub(" ", text.translate(_FULL_WIDTH))
    plain = _RANGE.sub(lambda m: f" {(float(m[1]) + float(m[2])) / 2} ", plain)
    plain = re.sub(r"\b[xy][12]?\b", " ", plain, flags=re.IGNORECASE)
    numbers = [float(n) for n in re.findall(_NUMBER, plain)]
    if _FILLER.sub("", re.sub(_NUMBER, " ", plain)) or len(numbers) not in (2, 4):
        raise InvalidActionError(f"{shorten(text)!r} is no point: (x,y) expected.")
    if len(numbers) == 4:
        return (numbers[0] + numbers[2]) / 2, (numbers[1] + numbers[3]) / 2
    return numbers[0], numbers[1]


# -- actions -------------------------------------------------------------------------------------------------------------------

_START_KEYS = ("startbox", "startpoint", "point", "box", "bbox", "coordinate", "coordinates", "position", "start")
_END_KEYS = ("endbox", "endpoint", "end", "endcoordinate")
_TEXT_KEYS = ("content", "text", "value", "")


def _argument(call: Call, keys: tuple[str, ...]) -> str | None:
    return next((value for wanted in keys for key, value in call.arguments if key == wanted), None)


def _start(call: Call, frame: Frame) -> tuple[float, float] | None:
    value = _argument(call, _START_KEYS)
    if value is None:  # click(100, 200) and click(x=100, y=200)
        value = ",".join(v for k, v in call.arguments if k in ("", "x", "y")) or None
    return None if value is None or not value.strip() else frame.pixel(*parse_point(value))


def _end(call: Call, frame: Frame) -> tuple[float, float] | None:
    value = _argument(call, _END_KEYS)
    return None if value is None or not value.strip() else frame.pixel(*parse_point(value))


def _pointed(cls: Callable[[float, float], Action]) -> Callable[[Call, Frame], Action]:
    def build(call: Call, frame: Frame) -> Action:
        point = _start(call, frame)
        if point is None:
            raise InvalidActionError(f"{call.name} without a point.")
        return cls(*point)

    return build


def _drag(call: Call, frame: Frame) -> Action:
    positional = [value for key, value in call.arguments if not key]
    if len(positional) == 2:
        return act.Drag(*frame.pixel(*parse_point(positional[0])), *frame.pixel(*parse_point(positional[1])))
    start, end = _start(call, frame), _end(call, frame)
    if start is None or end is None:
        raise InvalidActionError(f"{call.name} needs start_box and end_box.")
    return act.Drag(*start, *end)


_ESCAPES = {"n": "\n", "t": "\t", "r": "\n", "'": "'", '"': '"', "\\": "\\"}


def unescape(content: str) -> str:
    r"""Resolve ``\n``, ``\t``, ``\'``, ``\"`` and ``\\``; any other backslash stays (a Windows path, a regular expression)."""
    return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), content, flags=re.DOTALL)


def _text(call: Call) -> str:
    return unescape(_argument(call, _TEXT_KEYS) or "")


def _type(call: Call, frame: Frame) -> Action:
    if _argument(call, _TEXT_KEYS) is None:
        raise InvalidActionError("type without content.")
    text = _text(call)
    for ending in ("\n", "\\n"):
        if text.endswith(ending):
            return act.Type(text[: -len(ending)], submit=True)
    return act.Type(text)


def _hotkey(call: Call, frame: Frame) -> Action:
    return act.Hotkey(parse_keys(unescape(_argument(call, ("key", "keys", "hotkey", "content", "")) or "")))


def _scroll(call: Call, frame: Frame) -> Action:
    centre = (frame.width / 2, frame.height / 2)
    start, end = _start(call, frame) if _argument(call, _START_KEYS) is not None else None, _end(call, frame)
    word = (_argument(call, ("direction", "")) or "").strip().lower()
    if word:
        direction: act.Direction | None = next((d for d in act.DIRECTIONS if d == word), None)
        if direction is None:
            raise InvalidActionError(f"Unknown scroll direction {shorten(word)!r}: up, down, left or right expected.")
    elif start is not None and end is not None:
        return act.Scroll(*start, _swipe_direction(start, end), *end)
    else:
        raise InvalidActionError("scroll without a direction.")
    return act.Scroll(*(start or centre), direction)


def _swipe_direction(start: tuple[float, float], end: tuple[float, float]) -> act.Direction:
    """The finger drags the content along: moving it up shows what is below."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    if dx == dy == 0:
        raise InvalidActionError("scroll whose start_box equals its end_box.")
    if abs(dy) >= abs(dx):
        return "down" if dy < 0 else "up"
    return "right" if dx < 0 else "left"


def _open_app(call: Call, frame: Frame) -> Action:
    name = unescape(_argument(call, ("appname", "app", "name", *_TEXT_KEYS)) or "").strip()
    if not name:
        raise InvalidActionError("open_app without app_name.")
    return act.OpenApp(name)


_Builder = Callable[[Call, Frame], Action]
_BUILDERS: dict[str, _Builder] = {
    **dict.fromkeys(("click", "left_single", "left_click", "tap"), _pointed(act.Click)),
    **dict.fromkeys(("left_double", "double_click"), _pointed(act.DoubleClick)),
    **dict.fromkeys(("right_single", "right_click"), _pointed(act.RightClick)),
    **dict.fromkeys(("hover", "mouse_move"), _pointed(act.Hover)),
    "long_press": _pointed(act.LongPress),
    **dict.fromkeys(("drag", "select"), _drag),
    **dict.fromkeys(("hotkey", "press"), _hotkey),
    "type": _type,
    "scroll": _scroll,
    "open_app": _open_app,
    "wait": lambda call, frame: act.Wait(),
    "press_home": lambda call, frame: act.PressHome(),
    "press_back": lambda call, frame: act.PressBack(),
    "answer": lambda call, frame: act.Answer(_text(call)),
    "finished": lambda call, frame: act.Finished(_text(call)),
    **dict.fromkeys(("call_user", "error_env"), lambda call, frame: act.Fail(_text(call))),
}


def _action(call: Call, frame: Frame) -> Action:
    builder = _BUILDERS.get(call.name)
    if builder is None:
        near = difflib.get_close_matches(call.name, _BUILDERS, n=1)
        raise InvalidActionError(f"Unknown action {shorten(call.name)!r}." + (f" Did you mean {near[0]}?" if near else ""))
    return builder(call, frame)

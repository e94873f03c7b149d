"""From what UI-TARS writes to the action vocabulary, in pixels.  Nothing is ever evaluated: ``calls.py`` scans the text.

A reply is ``Thought: ...`` and ``Action: ...``; the action part is one or more calls ``name(argument='value', ...)``.  Read besides
the protocol: leftover box tokens, ``<point>`` and ``<bbox>`` tags, boxes of four numbers, floats, ranges, full-width punctuation,
unescaped quotes and real line breaks inside ``content``, key names joined by blanks, ``+`` or ``-``, a verb with a place and a text,
a missing ``Action:`` or last bracket.  Everything else is an :class:`~envs.errors.InvalidActionError`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable

from envs import actions as act
from envs.actions import Action
from envs.errors import InvalidActionError
from policies.families.calls import Call, Labels, Scanner
from policies.families.keys import parse_keys
from policies.families.points import parse_point, seconds_of, swipe_direction, unescape
from policies.families.reply import MAX_ACTIONS, Frame, Reply, bounded, shorten

BARE = ("wait", "press_home", "press_back", "finished", "call_user")
"""Actions that need no argument, understood without brackets too."""


def split_reply(text: str) -> tuple[str, str]:
    """(thought, action part) of any text; never raises."""
    return LABELS.split(text)


def parse_reply(text: str, frame: Frame) -> Reply:
    """Thought, action part and actions of a reply; actions after one that ends the episode are dropped.

    Raises:
        InvalidActionError: the reply is not an action; the message is short and made to be shown to the model.
    """
    thought, action_text = split_reply(bounded(text))
    actions: list[Action] = []
    end = 0
    for call in Scanner(action_text, BARE, mend=not frame.cut).calls():
        if len(actions) >= MAX_ACTIONS:
            raise InvalidActionError(f"More than {MAX_ACTIONS} actions in one reply.")
        actions.extend(_actions(call, frame))
        end = call.end
        if isinstance(actions[-1], act.TERMINAL):
            break
    if not actions:
        raise InvalidActionError(
            f"No action in the reply: {shorten(action_text)!r}." if action_text else "The reply has no action."
        )
    return Reply(thought, action_text[:end], tuple(actions))


# -- actions -------------------------------------------------------------------------------------------------------------------

_START_KEYS = ("startbox", "startpoint", "point", "box", "bbox", "coordinate", "coordinates", "position", "start")
_END_KEYS = ("endbox", "endpoint", "end", "endcoordinate")
_TEXT_KEYS = ("content", "text", "value", "")
_NUMBER = re.compile(r"\s{0,9}\d{1,9}(?:\.\d{0,9})?\s{0,9}")
MODIFIERS = frozenset({"ctrl", "alt", "shift", "win"})


def _argument(call: Call, keys: tuple[str, ...]) -> str | None:
    return next((value for wanted in keys for key, value in call.arguments if key == wanted), None)


def _start(call: Call, frame: Frame, *, named: bool = False) -> tuple[float, float] | None:
    value = _argument(call, _START_KEYS)
    if value is None and not named:  # click(100, 200) and click(x=100, y=200)
        value = ",".join(v for k, v in call.arguments if k in ("", "x", "y")) or None
    elif value is not None and _NUMBER.fullmatch(value):  # click(start_box=100, 200)
        value = ",".join([value, *(v for k, v in call.arguments if not k)])
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


def _long_press(call: Call, frame: Frame) -> Action:
    point = _start(call, frame)
    if point is None:
        raise InvalidActionError("long_press without a point.")
    return act.LongPress(*point, seconds_of(_argument(call, ("time", "duration", "seconds"))))


def _drag(call: Call, frame: Frame) -> Action:
    positional = [value for key, value in call.arguments if not key]
    if len(positional) == 2:
        return act.Drag(*frame.pixel(*parse_point(positional[0])), *frame.pixel(*parse_point(positional[1])))
    if len(positional) == 4 and len(call.arguments) == 4:
        return act.Drag(*frame.pixel(*parse_point(",".join(positional[:2]))), *frame.pixel(*parse_point(",".join(positional[2:]))))
    start, end = _start(call, frame), _end(call, frame)
    if call.name == "select" and start is not None and end is None:  # an entry of a list
        return act.Click(*start)
    if start is None or end is None:
        raise InvalidActionError(f"{call.name} needs start_box and end_box.")
    return act.Drag(*start, *end)


def _text(call: Call) -> str:
    return unescape(_argument(call, _TEXT_KEYS) or "")


def _type(call: Call, frame: Frame) -> Action:
    if _argument(call, _TEXT_KEYS) is None:
        raise InvalidActionError("type without content.")
    text = _text(call)
    for ending in ("\n", "\\n"):
        if text.endswith(ending):
            return act.Type(text[: -len(ending)], submit=True)
    enter = _argument(call, ("pressenter", "enter", "submit")) or ""
    return act.Type(text, submit=enter.strip().lower() in ("true", "1", "yes"))


def _keys(call: Call, named: tuple[str, ...]) -> tuple[str, ...]:
    """The keys of ``hotkey(key='ctrl c')``, ``hotkey('ctrl', 'c')``."""
    written = [_argument(call, named) or "", *(value for key, value in call.arguments if not key)]
    return parse_keys(unescape(" ".join(value for value in written if value)))


def _hotkey(call: Call, frame: Frame) -> Action:
    keys = _keys(call, ("key", "keys", "hotkey", "press", "content", "text"))
    if frame.platform == "mobile" and keys in (("home",), ("back",)):
        return act.PressHome() if keys == ("home",) else act.PressBack()
    if call.name in ("press", "keydown", "key_down") and set(keys) <= MODIFIERS:  # held until a release of them
        return act.KeyDown(keys)
    return act.Hotkey(keys)


def _release(call: Call, frame: Frame) -> Action:
    return act.KeyUp(_keys(call, ("key", "keys", "content", "text")))


def _scroll(call: Call, frame: Frame) -> Action:
    start, end = _start(call, frame, named=True), _end(call, frame)
    word = (_argument(call, ("direction", "")) or call.name.partition("_")[2]).strip().lower()
    word = word.removesuffix("s").removesuffix("ward")
    if word:
        direction: act.Direction | None = next((d for d in act.DIRECTIONS if d == word), None)
        if direction is None:
            raise InvalidActionError(f"Unknown scroll direction {shorten(word)!r}: up, down, left or right expected.")
    elif start is not None and end is not None:
        return act.Scroll(*start, swipe_direction(start, end), *end)
    else:
        raise InvalidActionError("scroll without a direction.")
    clicks = _argument(call, ("amount", "clicks", "scrollamount")) or ""
    return act.Scroll(
        *(start or (frame.width / 2, frame.height / 2)),
        direction,
        clicks=act.wheel(float(clicks)) if _NUMBER.fullmatch(clicks) and float(clicks) else None,
    )


def _swipe(call: Call, frame: Frame) -> Action:
    """A finger's way: from one place to another, or from a place in a direction (the finger's, not the content's)."""
    start, end = _start(call, frame, named=True), _end(call, frame)
    if start is not None and end is not None:
        return act.Scroll(*start, swipe_direction(start, end), *end)
    word = (_argument(call, ("direction", "")) or "").strip().lower()
    if word not in OPPOSITE:
        raise InvalidActionError("swipe needs start_box and end_box, or a direction.")
    return act.Scroll(*(start or (frame.width / 2, frame.height / 2)), OPPOSITE[word])


OPPOSITE: dict[str, act.Direction] = {"up": "down", "down": "up", "left": "right", "right": "left"}


def _open_app(call: Call, frame: Frame) -> Action:
    name = unescape(_argument(call, ("appname", "app", "name", *_TEXT_KEYS)) or "").strip()
    if not name:
        raise InvalidActionError("open_app without app_name.")
    return act.OpenApp(name)


def _wait(call: Call, frame: Frame) -> Action:
    return act.Wait(seconds_of(_argument(call, ("time", "duration", "seconds", ""))))


_Builder = Callable[[Call, Frame], Action]
BUILDERS: dict[str, _Builder] = {
    **dict.fromkeys(("click", "left_single", "left_click", "tap", "single_click"), _pointed(act.Click)),
    **dict.fromkeys(("left_double", "double_click", "double_tap"), _pointed(act.DoubleClick)),
    **dict.fromkeys(("triple_click", "left_triple"), _pointed(act.TripleClick)),
    **dict.fromkeys(("right_single", "right_click"), _pointed(act.RightClick)),
    **dict.fromkeys(("middle_click", "middle_single"), _pointed(act.MiddleClick)),
    **dict.fromkeys(("hover", "mouse_move", "move_to", "move"), _pointed(act.Hover)),
    **dict.fromkeys(("mouse_down", "left_down"), _pointed(act.MouseDown)),
    **dict.fromkeys(("mouse_up", "left_up"), _pointed(act.MouseUp)),
    "long_press": _long_press,
    **dict.fromkeys(("drag", "select", "left_drag", "left_click_drag"), _drag),
    **dict.fromkeys(("hotkey", "press", "key", "keypress", "keydown", "key_down"), _hotkey),
    **dict.fromkeys(("release", "keyup", "key_up"), _release),
    **dict.fromkeys(("type", "input", "input_text"), _type),
    **dict.fromkeys(("scroll", "scroll_up", "scroll_down", "scroll_left", "scroll_right"), _scroll),
    "swipe": _swipe,
    **dict.fromkeys(("open_app", "open", "launch"), _open_app),
    "wait": _wait,
    **dict.fromkeys(("press_home", "navigate_home"), lambda call, frame: act.PressHome()),
    **dict.fromkeys(("press_back", "navigate_back"), lambda call, frame: act.PressBack()),
    "press_enter": lambda call, frame: act.Hotkey(("enter",)),
    "answer": lambda call, frame: act.Answer(_text(call)),
    "finished": lambda call, frame: act.Finished(_text(call)),
    **dict.fromkeys(("call_user", "error_env"), lambda call, frame: act.Fail(_text(call))),
}

NAMES = tuple(BUILDERS)
"""Every name that may start a call."""

LABELS = Labels(NAMES, BARE)

_NOT_POINTED = ("type", "input", "input_text", "hotkey", "press", "key", "keypress")
"""Verbs without a place: one that they are given is clicked first."""


def _actions(call: Call, frame: Frame) -> list[Action]:
    builder = BUILDERS.get(call.name)
    if builder is None:
        near = difflib.get_close_matches(call.name, BUILDERS, n=1)
        raise InvalidActionError(f"Unknown action {shorten(call.name)!r}." + (f" Did you mean {near[0]}?" if near else ""))
    action = builder(call, frame)
    point = _start(call, frame, named=True) if call.name in _NOT_POINTED else None
    return [action] if point is None else [act.Click(*point), action]

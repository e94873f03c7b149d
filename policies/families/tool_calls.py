"""Tool calls as Qwen's models write them: ``<tool_call>{"name": "computer_use", "arguments": {"action": ...}}</tool_call>``.

Shared by every family that calls ``computer_use`` or ``mobile_use``; ``call_text.py`` finds and decodes the calls.  Read besides the
protocol: points of four numbers or written as text, other names of the same action, argument or key.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus

from envs import actions as act
from envs.actions import Action
from envs.errors import InvalidActionError
from policies.families.call_text import CLOSE, MAX_CALL, calls_in, split
from policies.families.keys import key_list, parse_keys
from policies.families.points import parse_point, seconds_of, swipe_direction, unescape
from policies.families.reply import MAX_ACTIONS, Frame, Reply, bounded, shorten


@dataclass(frozen=True)
class Dialect:
    """What a family means by the same call.

    Attributes:
        enter: ``type`` presses Enter unless it says otherwise (Fara).
        unescape: ``\\n`` written out in a text is a line break (EvoCUA).
        answer_ends: ``answer`` ends the task.
        click_pixels: What the number of a scroll is divided by to get clicks of the wheel: 1 where it is sent as clicks.
        scroll_pixels: A scroll with a number goes so many pixels whatever the number, whose sign alone counts; 0: as far as it says.
        scaled_scroll: The number counts as points do, and not pixels of the screen.
        search: Address of a web search, with ``{query}``.
    """

    enter: bool = False
    unescape: bool = False
    answer_ends: bool = True
    click_pixels: float = 1.0
    scroll_pixels: float = 0.0
    scaled_scroll: bool = False
    search: str = "https://www.bing.com/search?q={query}&FORM=QBLH"


def parse(text: str, frame: Frame, dialect: Dialect) -> Reply:
    """Thought, calls and actions of a reply; actions after one that ends the episode are dropped.

    Raises:
        InvalidActionError: the reply is not an action.
    """
    thought, called = split(bounded(text))
    calls = calls_in(called, mend=not frame.cut or called.endswith(CLOSE))
    if not calls:
        raise InvalidActionError(
            f"No tool call in the reply: {shorten(called or text)!r}." if text.strip() else "The reply is empty."
        )
    actions: list[Action] = []
    for arguments in calls:
        if len(actions) >= MAX_ACTIONS:
            raise InvalidActionError(f"More than {MAX_ACTIONS} actions in one reply.")
        new = actions_of(arguments, frame, dialect)
        actions.extend(new)
        if isinstance(actions[-1], act.TERMINAL):
            break
        frame = frame.after(new)
    return Reply(thought, called, tuple(actions))


# -- values --------------------------------------------------------------------------------------------------------------------

_POINT_KEYS = (
    "coordinate", "coordinates", "point", "position", "start_coordinate", "coordinate1", "start", "box", "bbox", "point_2d", "bbox_2d",
    "from", "from_coordinate",
)  # fmt: skip
_END_KEYS = ("coordinate2", "end_coordinate", "end", "coordinate_end", "target_coordinate", "to", "to_coordinate")
_ENTER_KEYS = ("press_enter", "enter", "submit", "press_enter_after")
_AMOUNT_KEYS = ("pixels", "clicks", "amount", "scroll_amount")
_START_KEYS = ("start_coordinate", "coordinate1", "start", "from", "from_coordinate")
MAX_POINTS = 100
"""Points of a drag's path."""


def _first(arguments: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((arguments[key] for key in keys if arguments.get(key) not in (None, "", [])), None)


def point_of(value: Any, frame: Frame) -> tuple[float, float]:
    """The pixel of a point: two numbers, four (their centre), or a text.

    Raises:
        InvalidActionError: it is not a point, or it is off the screen.
    """
    if isinstance(value, Mapping):
        value = [value.get("x"), value.get("y")]
    if isinstance(value, list | tuple) and len(value) in (1, 2) and all(isinstance(v, list | tuple) and len(v) == 2 for v in value):
        value = [number for pair in value for number in pair]
    if isinstance(value, list | tuple) and len(value) in (2, 4) and all(_is_number(v) for v in value):
        numbers = [float(v) for v in value]
        x, y = numbers[:2] if len(numbers) == 2 else ((numbers[0] + numbers[2]) / 2, (numbers[1] + numbers[3]) / 2)
        return frame.pixel(x, y)
    if isinstance(value, list | tuple) and len(value) > 8:
        raise InvalidActionError(f"{len(value)} values are no point.")
    return frame.pixel(*parse_point(value if isinstance(value, str) else repr(value)[:200]))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9 and math.isfinite(value)


def _at(arguments: Mapping[str, Any], frame: Frame) -> tuple[float, float] | None:
    value = _first(arguments, _POINT_KEYS)
    if value is None and arguments.get("x") is not None and arguments.get("y") is not None:
        value = [arguments["x"], arguments["y"]]
    return None if value is None else point_of(value, frame)


def _flag(value: Any, default: bool) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in ("1", "true", "yes")
    return default if value is None else bool(value)


def _written(arguments: Mapping[str, Any], keys: tuple[str, ...] = ("text", "content", "value", "text_value")) -> str | None:
    value = next((arguments[key] for key in keys if key in arguments), None)
    return None if value is None else value if isinstance(value, str) else json.dumps(value)[:MAX_CALL]


# -- actions -------------------------------------------------------------------------------------------------------------------

Arguments = Mapping[str, Any]
_Builder = Callable[[Arguments, Frame, Dialect], list[Action]]


def actions_of(arguments: Arguments, frame: Frame, dialect: Dialect) -> list[Action]:
    """What one call does, one action or several.

    Raises:
        InvalidActionError: nothing that can be done.
    """
    named = arguments.get("action", arguments.get("action_type"))
    if not isinstance(named, str) or len(named) > 60:
        raise InvalidActionError("The call names no action.")
    name = "_".join(_HUMP.sub("_", named).lower().replace("-", " ").split())
    builder = BUILDERS.get(name)
    if builder is None:
        near = difflib.get_close_matches(name, BUILDERS, n=1)
        raise InvalidActionError(f"Unknown action {shorten(name)!r}." + (f" Did you mean {near[0]}?" if near else ""))
    return builder(arguments, frame, dialect)


_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")


def _click(arguments: Arguments, frame: Frame, dialect: Dialect) -> list[Action]:
    at = _at(arguments, frame) or frame.here
    button = str(arguments.get("button", "left")).strip().lower()[:20]
    if button in ("right", "middle"):
        return [act.RightClick(*at) if button == "right" else act.MiddleClick(*at)]
    clicks = _first(arguments, ("clicks", "num_clicks", "click_count"))
    return [act.DoubleClick(*at) if clicks == 2 else act.TripleClick(*at) if clicks == 3 else act.Click(*at)]


def _pointed(cls: Callable[[float, float], Action]) -> _Builder:
    def build(arguments: Arguments, frame: Frame, dialect: Dialect) -> list[Action]:
        return [cls(*(_at(arguments, frame) or frame.here))]

    return build


def _way(arguments: Arguments, frame: Frame) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """(start, end) of a drag or a swipe, as far as it says them; ``coordinate`` is the end where the start is named as such."""
    path = arguments.get("path")
    if isinstance(path, list) and 2 <= len(path) <= MAX_POINTS:
        return point_of(path[0], frame), point_of(path[-1], frame)
    start, end = _first(arguments, _START_KEYS), _first(arguments, _END_KEYS)
    if start is not None and end is None:
        end = _first(arguments, ("coordinate", "coordinates"))
    begin = _at(arguments, frame) if start is None else point_of(start, frame)
    return begin, None if end is None else point_of(end, frame)


def _drag(arguments: Arguments, frame: Frame, dialect: Dialect) -> list[Action]:
    start, end = _way(arguments, frame)
    if end is not None:
        return [act.Drag(*(start or frame.here), *end)]
    if start is None:
        raise InvalidActionError("A drag needs a coordinate.")
    return [act.Drag(*frame.here, *start)]  # from where the pointer is, to the one place that is given


def _long_press(arguments: Arguments, frame: Frame, dialect: Dialect) -> list[Action]:
    seconds = seconds_of(_first(arguments, ("time", "duration", "seconds")))
    return [act.LongPress(*(_at(arguments, frame) or frame.here), seconds)]


def _swipe(arguments: Arguments, frame: Frame, dialect: Dialect) -> list[Action]:
    start, end = _way(arguments, frame)
    if end is not None:
        begin = start or frame.here
        return [act.Scroll(*begin, swipe_direction(begin, end), *end)]
    word = str(arguments.get("direction", "")).strip().lower()[:20]
    opposite: dict[str, act.Direction] = {"up": "down", "down": "up", "left": "right", "right": "left"}
    if word not in opposite:
        raise InvalidActionError("A swipe needs two coordinates or a direction.")
    return [act.Scroll(*(start or (frame.width / 2, frame.height / 2)), opposite[word])]


def _scroll(arguments: Arguments, frame: Frame, dialect: Dialect) -> list[Action]:
    if _first(arguments, _END_KEYS) is not None:
        return _swipe(arguments, frame, dialect)
    at = _at(arguments, frame) or frame.here
    word = (
        str(_first(arguments, ("direction", "scroll_direction")) or "").strip().lower()[:20].removesuffix("s").removesuffix("ward")
    )
    named = next((d for d in act.DIRECTIONS if d == word), None)
    pixels = _first(arguments, _AMOUNT_KEYS)
    if isinstance(pixels, str) and len(pixels) <= 20:
        with contextlib.suppress(ValueError):
            pixels = float(pixels)
    if not _is_number(pixels) or not pixels:
        if named is not None:
            return [act.Scroll(*at, named)]
        raise InvalidActionError("scroll needs pixels: above 0 up, below 0 down.")
    sideways = "hscroll" in str(arguments.get("action", "")).lower() or named in ("left", "right")
    signs: tuple[act.Direction, act.Direction] = ("right", "left") if sideways else ("up", "down")
    direction = named or signs[pixels < 0]
    share = (frame.width / frame.units_x if sideways else frame.height / frame.units_y) if dialect.scaled_scroll else 1.0
    return [act.Scroll(*at, direction, clicks=act.wheel((dialect.scroll_pixels or pixels * share) / dialect.click_pixels))]


def _keys(arguments: Arguments) -> tuple[str, ...]:
    keys = _first(arguments, ("keys", "key", "text"))
    if isinstance(keys, str):
        return parse_keys(keys) if len(keys.strip()) > 1 else key_list([keys])
    if not isinstance(keys, list | tuple):
        raise InvalidActionError("key without keys.")
    return key_list(keys)


def _key(arguments: Arguments, frame: Frame, dialect: Dialect) -> list[Action]:
    keys = _keys(arguments)
    if frame.platform == "mobile" and keys in (("home",), ("back",)):
        return [act.PressHome() if keys == ("home",) else act.PressBack()]
    return [act.Hotkey(keys)]


def _type(arguments: Arguments, frame: Frame, dialect: Dialect) -> list[Action]:
    text = _written(arguments)
    if text is None:
        raise InvalidActionError("type without text.")
    text = unescape(text) if dialect.unescape else text
    submit = _flag(next((arguments[key] for key in _ENTER_KEYS if key in arguments), None), dialect.enter)
    at, actions = _at(arguments, frame), list[Action]()
    if at is not None:
        actions.append(act.Click(*at))
    if _flag(_first(arguments, ("clear", "delete_existing_text")), False):
        actions += [act.Hotkey(("ctrl", "a")), act.Hotkey(("backspace",))]
    ends = text.endswith("\n")
    return [*actions, act.Type(text[:-1] if ends else text, submit or ends)]


def _wait(arguments: Arguments, frame: Frame, dialect: Dialect) -> list[Action]:
    return [act.Wait(seconds_of(_first(arguments, ("time", "duration", "seconds"))))]


def _terminate(arguments: Arguments, frame: Frame, dialect: Dialect) -> list[Action]:
    ended = "failure" if str(arguments.get("action", "")).lower() in ("fail", "infeasible") else "success"
    status = str(arguments.get("status", ended)).strip().lower()[:40]
    text = _written(arguments, ("text", "answer", "content")) or ""
    return [act.Fail(text) if status.startswith(("fail", "infeasible", "impossible")) else act.Finished(text)]


def _answer(arguments: Arguments, frame: Frame, dialect: Dialect) -> list[Action]:
    text = _written(arguments, ("text", "content", "value", "answer")) or ""
    return [act.Finished(text) if dialect.answer_ends else act.Answer(text)]


def _button(arguments: Arguments, frame: Frame, dialect: Dialect) -> list[Action]:
    button = str(_first(arguments, ("button", "text")) or "").strip().lower()[:20]
    buttons: dict[str, Action] = {
        "back": act.PressBack(), "home": act.PressHome(), "enter": act.Hotkey(("enter",)), "menu": act.Hotkey(("recents",)),
        **dict.fromkeys(("recent", "recents", "recent_apps", "app_switch", "overview"), act.Hotkey(("recents",))),
    }  # fmt: skip
    if button not in buttons:
        raise InvalidActionError(f"Unknown button {button!r}: back, home, menu or enter expected.")
    return [buttons[button]]


def _open(arguments: Arguments, frame: Frame, dialect: Dialect) -> list[Action]:
    name = (_written(arguments, ("text", "app", "app_name", "name")) or "").strip()
    if not name:
        raise InvalidActionError("open without the name of an application.")
    return [act.OpenApp(name)]


def address(url: str) -> list[Action]:
    """Go to an address as a person does in a browser that has the focus."""
    return [act.Hotkey(("ctrl", "l")), act.Type(url, submit=True)]


def _visit(arguments: Arguments, frame: Frame, dialect: Dialect) -> list[Action]:
    url = (_written(arguments, ("url", "text")) or "").strip()
    if not url:
        raise InvalidActionError("visit_url without an address.")
    if not url.startswith(("https://", "http://", "file://", "about:")):
        url = dialect.search.format(query=quote_plus(url)) if " " in url else f"https://{url}"
    return address(url)


def _search(arguments: Arguments, frame: Frame, dialect: Dialect) -> list[Action]:
    query = (_written(arguments, ("query", "text")) or "").strip()
    if not query:
        raise InvalidActionError("web_search without a query.")
    return address(dialect.search.format(query=quote_plus(query)))


def _interact(arguments: Arguments, frame: Frame, dialect: Dialect) -> list[Action]:
    raise InvalidActionError("There is no user to interact with.")


def _ask_page(arguments: Arguments, frame: Frame, dialect: Dialect) -> list[Action]:
    raise InvalidActionError("There is nobody who reads the page for you: scroll, and read it on the screen.")


BUILDERS: dict[str, _Builder] = {
    **dict.fromkeys(("click", "left_click", "tap", "left_single", "single_click"), _click),
    **dict.fromkeys(("double_click", "computer_double_click", "left_double", "double_tap"), _pointed(act.DoubleClick)),
    "triple_click": _pointed(act.TripleClick),
    **dict.fromkeys(("right_click", "right_single"), _pointed(act.RightClick)),
    "middle_click": _pointed(act.MiddleClick),
    **dict.fromkeys(("mouse_move", "move", "move_to", "hover"), _pointed(act.Hover)),
    **dict.fromkeys(("mouse_down", "left_mouse_down"), _pointed(act.MouseDown)),
    **dict.fromkeys(("mouse_up", "left_mouse_up"), _pointed(act.MouseUp)),
    **dict.fromkeys(("left_click_drag", "drag", "drag_to"), _drag),
    "long_press": _long_press,
    "swipe": _swipe,
    **dict.fromkeys(("scroll", "hscroll"), _scroll),
    "scroll_up": lambda a, f, d: _scroll({**a, "direction": "up"}, f, d),
    "scroll_down": lambda a, f, d: _scroll({**a, "direction": "down"}, f, d),
    "screenshot": lambda a, f, d: [act.Wait(0.0)],  # a new one comes with every step
    **dict.fromkeys(("key", "hotkey", "keypress", "press", "press_key"), _key),
    "key_down": lambda a, f, d: [act.KeyDown(_keys(a))],
    "key_up": lambda a, f, d: [act.KeyUp(_keys(a))],
    **dict.fromkeys(("type", "input_text", "write", "input"), _type),
    **dict.fromkeys(("wait", "sleep"), _wait),
    **dict.fromkeys(("terminate", "stop", "done", "finish", "finished", "complete", "fail", "infeasible"), _terminate),
    "answer": _answer,
    **dict.fromkeys(("system_button", "press_button"), _button),
    **dict.fromkeys(("open", "open_app", "launch"), _open),
    "visit_url": _visit,
    "web_search": _search,
    "history_back": lambda a, f, d: [act.Hotkey(("alt", "left"))],
    "pause_and_memorize_fact": lambda a, f, d: [act.Wait(0.0)],  # it stands in the reply, which stays in the history
    **dict.fromkeys(("interact", "call_user", "calluser", "ask_user", "ask_user_question"), _interact),
    "read_page_answer_question": _ask_page,
}

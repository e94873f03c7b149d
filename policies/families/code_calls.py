"""PyAutoGUI code as OpenCUA and EvoCUA (S1) write it: ``## Thought``, ``## Action``, ``## Code`` and one code block.

The code is parsed into a syntax tree and read call by call; it is never run.  Only calls of ``pyautogui``, ``computer`` and
``time.sleep`` with literal arguments are understood, and loops over ``range`` of a few; whatever else the code does is not an action.
"""

from __future__ import annotations

import ast
import collections
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from envs import actions as act
from envs.actions import Action
from envs.errors import InvalidActionError
from policies.families.keys import key_list
from policies.families.points import seconds_of
from policies.families.reply import Frame, Reply, bounded, cut_off, shorten
from policies.families.syntax import literal, syntax_tree

MAX_CODE = 20_000
MAX_STEPS = 64
"""Actions that one code block may come to, repetitions counted."""
MAX_STATEMENTS = 1_000
"""Statements that one code block may come to, repetitions counted: loops of nothing have no actions to be counted by."""


class Sections(NamedTuple):
    """A reply's parts; "" where it lacks one."""

    observation: str
    thought: str
    action: str
    code: str


_HEADING = re.compile(r"^[#* \t]{0,8}(Observation|Thought|Action|Code)\b[* \t]{0,8}:?[* \t]{0,4}", re.IGNORECASE | re.MULTILINE)
_STEP = re.compile(r"^#{1,3}[ \t]{0,4}Step\b[^\n]{0,40}$", re.IGNORECASE | re.MULTILINE)
_FENCE = "```"
_LANGUAGE = re.compile(r"(?:python|code|py)?[ \t]{0,9}\n?", re.IGNORECASE)
_CODE_LINE = re.compile(r"^[ \t]{0,40}(?:pyautogui|computer)\.\w{1,40}\(", re.MULTILINE)


def sections(text: str) -> Sections:
    """The parts of a reply; never raises."""
    code, start = _code(text)
    prose = _STEP.sub("", text[:start])
    found: dict[str, str] = {}
    named, start = "", 0
    for heading in _HEADING.finditer(prose):  # one at a time: a reply of nothing but headings must not fill the memory
        if named:
            found[named] = prose[start : heading.start()].strip()
        named, start = heading[1].lower(), heading.end()
    found[named or "thought"] = prose[start:].strip()
    return Sections(found.get("observation", ""), found.get("thought", ""), found.get("action", ""), code)


def _code(text: str) -> tuple[str, int]:
    """(the last code block, its offset): between fences, else from the first line of calls on."""
    fences = text.count(_FENCE)
    if fences:
        # The fences come in pairs; an odd last one opens a block that was not closed.
        before, last = (
            collections.deque((m.start() for m in re.finditer(_FENCE, text)), maxlen=2) if fences > 1 else (0, text.find(_FENCE))
        )
        opening, closing = (last, len(text)) if fences % 2 else (before, last)
        inside = text[opening + len(_FENCE) : closing]
        language = _LANGUAGE.match(inside)
        return inside[language.end() if language else 0 :].strip(), opening
    line = _CODE_LINE.search(text)
    return (text[line.start() :].strip(), line.start()) if line else ("", len(text))


def parse(text: str, frame: Frame) -> Reply:
    """Thought, code and actions of a reply.

    Raises:
        InvalidActionError: the reply is not an action.
    """
    found = sections(bounded(text))
    if not found.code:
        raise InvalidActionError("The reply has no code block." if text.strip() else "The reply is empty.")
    thought = "\n".join(part for part in (found.thought, found.action) if part)
    if (fences := text.count(_FENCE)) and not fences % 2:  # whatever was cut off, the block had ended
        frame = dataclasses.replace(frame, cut=False)
    return Reply(thought, found.code, tuple(read_code(found.code, frame)))


def read_code(code: str, frame: Frame) -> list[Action]:
    """What the code does; actions after one that ends the episode are dropped.

    Raises:
        InvalidActionError: it is not code made of known calls.
    """
    if len(code) > MAX_CODE:
        raise InvalidActionError(f"Code of {len(code)} characters; at most {MAX_CODE} are read.")
    reader = _Reader(frame)
    reader.block(_tree(code, mend=not frame.cut).body)
    if not reader.actions:
        raise InvalidActionError("The code does nothing.")
    ends = next((i for i, action in enumerate(reader.actions) if isinstance(action, act.TERMINAL)), len(reader.actions) - 1)
    return reader.actions[: ends + 1]


def _tree(code: str, *, mend: bool) -> ast.Module:
    """The tree of the code; to ``mend``, of code that lacks its last bracket, if that is all it lacks.

    Raises:
        InvalidActionError: it is not Python.
    """
    try:
        tree: ast.Module = syntax_tree(code)
    except InvalidActionError as error:
        if not mend:
            raise cut_off() from None
        try:
            tree = syntax_tree(code + ")")
        except InvalidActionError:
            raise InvalidActionError(f"The code cannot be read ({shorten(error.message)}): {shorten(code)!r}.") from None
    return tree


Values = Sequence[Any]
Named = Mapping[str, Any]


class _Reader:
    """Goes through the statements; knows where the pointer is."""

    def __init__(self, frame: Frame) -> None:
        self.frame, self.actions = frame, list[Action]()
        self._statements = 0

    def block(self, body: Sequence[ast.stmt]) -> None:
        self._statements += len(body)
        if self._statements > MAX_STATEMENTS:
            raise InvalidActionError(f"More than {MAX_STATEMENTS} statements in one reply, repetitions counted.")
        for statement in body:
            self.statement(statement)

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Pass():
                return
            case ast.Expr(value=ast.Constant()):  # a comment as a text
                return
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="pyautogui"))], value=ast.Constant()):  # pyautogui.PAUSE = 1
                return
            case ast.Expr(value=ast.Call(func=ast.Name(id="print"))):
                return
            case ast.Expr(value=ast.Call() as call):
                self.call(call)
            case ast.Expr(value=ast.Name(id="DONE" | "FAIL" | "WAIT" as word)):  # OSWorld's own words
                self.add({"DONE": act.Finished(""), "FAIL": act.Fail(""), "WAIT": act.Wait()}[word])
            case ast.For(iter=ast.Call(func=ast.Name(id="range")) as turns, orelse=[]):
                times = _times(turns)
                if not 0 <= times <= MAX_STEPS:
                    raise InvalidActionError(f"A loop of {times} turns.")
                for _ in range(times):
                    self.block(node.body)
            case ast.With(items=[ast.withitem(context_expr=ast.Call() as held)]) if _name(held) == "pyautogui.hold":
                keys = _keys(_arguments(held)[0])
                self.add(act.KeyDown(keys))
                self.block(node.body)
                self.add(act.KeyUp(keys))
            case _:
                raise InvalidActionError(f"The code has a statement that is no call: {type(node).__name__}.")

    def call(self, call: ast.Call) -> None:
        name = _name(call)
        meaning = CALLS.get(name)
        if meaning is None:
            raise InvalidActionError(f"Unknown call {shorten(name or '?')}().")
        meaning(self, *_arguments(call))

    def add(self, *actions: Action) -> None:
        if len(self.actions) + len(actions) > MAX_STEPS:
            raise InvalidActionError(f"More than {MAX_STEPS} actions in one reply.")
        self.actions.extend(actions)
        self.frame = self.frame.after(actions)

    def point(self, a: Values, k: Named) -> tuple[float, float]:
        """Where a call points; where the pointer is, if it names no place."""
        first = a[0] if a else None
        if isinstance(first, list | tuple) and len(first) == 2:
            a = [*first, *a[1:]]
        x, y = k.get("x", a[0] if a else None), k.get("y", a[1] if len(a) > 1 else None)
        if x is None and y is None:
            return self.frame.here
        return self.place(_number(x), _number(y))

    def place(self, x: float, y: float) -> tuple[float, float]:
        """The pixel that a call's numbers mean.

        Two numbers from 0 to 1 are shares of the screen whatever the others count: models that count pixels write them now and then,
        and EvoCUA's and OpenCUA's own agents read them so.
        """
        if 0 <= x <= 1 and 0 <= y <= 1:
            x, y = x * self.frame.units_x, y * self.frame.units_y
        return self.frame.pixel(x, y)

    # -- what calls mean -------------------------------------------------------------------------------------------------------
    def click(self, a: Values, k: Named, kind: type[act.Click] | Any = act.Click) -> None:
        at = self.point(a, k)
        clicks = k.get("clicks", a[2] if len(a) > 2 else 1)
        button = str(k.get("button", a[4] if len(a) > 4 else "left")).lower()[:20]
        if button in ("right", "secondary", "3"):
            kind = act.RightClick
        elif button in ("middle", "2"):
            kind = act.MiddleClick
        if kind is act.Click and clicks in (2, 3):
            kind = act.DoubleClick if clicks == 2 else act.TripleClick
            clicks = 1
        if not isinstance(clicks, int) or not 1 <= clicks <= MAX_STEPS:
            raise InvalidActionError(f"click with clicks={shorten(repr(clicks))}.")
        self.add(*[kind(*at)] * clicks)

    def move(self, a: Values, k: Named) -> None:
        self.add(act.Hover(*self.point(a, k)))

    def offset(self, a: Values, k: Named) -> tuple[float, float]:
        """The place that is so far from the pointer, in the frame's units."""
        dx = k.get("xOffset", k.get("x", a[0] if a else 0)) or 0
        dy = k.get("yOffset", k.get("y", a[1] if len(a) > 1 else 0)) or 0
        x, y = self.frame.here
        x += _number(dx) * self.frame.width / self.frame.units_x
        y += _number(dy) * self.frame.height / self.frame.units_y
        return min(max(x, 0.0), self.frame.width - 1.0), min(max(y, 0.0), self.frame.height - 1.0)

    def left(self, button: Any) -> None:
        """Refuse what can only be done with the left button here."""
        if str(button).lower()[:20] not in ("left", "primary", "1"):
            raise InvalidActionError(f"Only the left button can be held: {shorten(repr(button)[:200])}.")

    def hold(self, a: Values, k: Named, kind: type[act.MouseDown] | type[act.MouseUp]) -> None:
        self.left(k.get("button", a[2] if len(a) > 2 else "left"))
        self.add(kind(*self.point(a[:2], k)))

    def drag(self, a: Values, k: Named, *, relative: bool = False) -> None:
        self.left(k.get("button", a[4] if len(a) > 4 else "left"))
        self.add(act.Drag(*self.frame.here, *(self.offset(a, k) if relative else self.point(a, k))))

    def write(self, a: Values, k: Named) -> None:
        text = k.get("message", k.get("text", a[0] if a else None))
        if isinstance(text, list | tuple) and all(isinstance(key, str) for key in text):
            self.press([list(text)], {})
            return
        if not isinstance(text, str):
            raise InvalidActionError("write without a text.")
        ends = text.endswith("\n")
        self.add(act.Type(text[:-1] if ends else text, submit=ends))

    def hotkey(self, a: Values, k: Named) -> None:
        self.add(act.Hotkey(_keys(a or list(k.values())[:1])))

    def press(self, a: Values, k: Named) -> None:
        keys = k.get("keys", k.get("key", a[0] if a else None))
        presses = k.get("presses", a[1] if len(a) > 1 else 1)
        if not isinstance(presses, int) or not 1 <= presses <= MAX_STEPS:
            raise InvalidActionError(f"press with presses={shorten(repr(presses))}.")
        names = list(keys) if isinstance(keys, list | tuple) else [keys]
        if not names or len(names) > MAX_STEPS:
            raise InvalidActionError(f"press of {len(names)} keys.")
        self.add(*[act.Hotkey(key_list([name])) for name in names] * presses)

    def scroll(self, a: Values, k: Named, *, sideways: bool = False) -> None:
        amount = k.get("clicks", a[0] if a else None)
        if not _is_number(amount) or not amount:
            raise InvalidActionError("scroll needs a number of clicks.")
        direction: act.Direction = ("right" if amount > 0 else "left") if sideways else ("up" if amount > 0 else "down")
        self.add(act.Scroll(*self.point(a[1:], k), direction, clicks=act.wheel(amount)))

    def terminate(self, a: Values, k: Named) -> None:
        status = str(k.get("status", a[0] if a else "")).lower()[:40]
        answer = k.get("answer", a[1] if len(a) > 1 else "")
        text = answer if isinstance(answer, str) else ""
        if status.startswith("succ"):
            self.add(act.Finished(text))
        elif status.startswith("fail"):
            self.add(act.Fail(text))
        else:
            raise InvalidActionError("computer.terminate without a status: success or failure expected.")


Meaning = Callable[[_Reader, Values, Named], None]
CALLS: dict[str, Meaning] = {
    "pyautogui.click": _Reader.click,
    "pyautogui.leftClick": _Reader.click,
    "pyautogui.doubleClick": lambda r, a, k: r.click(a[:2], _placed(k), act.DoubleClick),
    "pyautogui.tripleClick": lambda r, a, k: r.click(a[:2], _placed(k), act.TripleClick),
    "pyautogui.rightClick": lambda r, a, k: r.click(a[:2], _placed(k), act.RightClick),
    "pyautogui.middleClick": lambda r, a, k: r.click(a[:2], _placed(k), act.MiddleClick),
    "pyautogui.moveTo": _Reader.move,
    "pyautogui.move": lambda r, a, k: r.add(act.Hover(*r.offset(a, k))),
    "pyautogui.moveRel": lambda r, a, k: r.add(act.Hover(*r.offset(a, k))),
    "pyautogui.dragTo": _Reader.drag,
    "pyautogui.drag": lambda r, a, k: r.drag(a, k, relative=True),
    "pyautogui.dragRel": lambda r, a, k: r.drag(a, k, relative=True),
    "pyautogui.mouseDown": lambda r, a, k: r.hold(a, k, act.MouseDown),
    "pyautogui.mouseUp": lambda r, a, k: r.hold(a, k, act.MouseUp),
    "pyautogui.write": _Reader.write,
    "pyautogui.typewrite": _Reader.write,
    "pyautogui.press": _Reader.press,
    "pyautogui.hotkey": _Reader.hotkey,
    "pyautogui.keyDown": lambda r, a, k: r.add(act.KeyDown(_keys(a or list(k.values())[:1]))),
    "pyautogui.keyUp": lambda r, a, k: r.add(act.KeyUp(_keys(a or list(k.values())[:1]))),
    "pyautogui.scroll": _Reader.scroll,
    "pyautogui.vscroll": _Reader.scroll,
    "pyautogui.hscroll": lambda r, a, k: r.scroll(a, k, sideways=True),
    "pyautogui.sleep": lambda r, a, k: r.add(act.Wait(seconds_of(a[0] if a else k.get("seconds", k.get("secs"))))),
    "time.sleep": lambda r, a, k: r.add(act.Wait(seconds_of(a[0] if a else k.get("secs")))),
    "computer.triple_click": lambda r, a, k: r.click(a[:2], _placed(k), act.TripleClick),
    "computer.tripleClick": lambda r, a, k: r.click(a[:2], _placed(k), act.TripleClick),
    "sleep": lambda r, a, k: r.add(act.Wait(seconds_of(a[0] if a else k.get("secs")))),
    "computer.wait": lambda r, a, k: r.add(act.Wait(seconds_of(next(iter([*a, *k.values()]), None)))),
    "computer.terminate": _Reader.terminate,
}


def _times(turns: ast.Call) -> int:
    """How often a loop over ``range`` goes round; one more than may be, of a range of more."""
    given, _ = _arguments(turns)
    if not 1 <= len(given) <= 3 or not all(isinstance(v, int) for v in given) or given[2:] == [0]:
        raise InvalidActionError("A loop over something that is no range.")
    return len(range(*given)[: MAX_STEPS + 1])


def _placed(named: Named) -> Named:
    return {name: named[name] for name in ("x", "y") if name in named}


def _name(call: ast.Call) -> str:
    match call.func:
        case ast.Attribute(value=ast.Name(id=module), attr=attribute):
            return f"{module}.{attribute}"
        case ast.Name(id=name):
            return name
    return ""


def _arguments(call: ast.Call) -> tuple[list[Any], dict[str, Any]]:
    """(positional, named) values.

    Raises:
        InvalidActionError: one is not a literal.
    """
    try:
        return [literal(argument) for argument in call.args], {k.arg or "": literal(k.value) for k in call.keywords}
    except InvalidActionError:
        raise InvalidActionError(f"{_name(call)}() with something that is no plain value.") from None


def _keys(values: Values) -> tuple[str, ...]:
    given = values[0] if len(values) == 1 and isinstance(values[0], list | tuple) else values
    return key_list(given)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _number(value: Any) -> float:
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}(?:\.\d{1,9})?", value):
        return float(value)
    if not _is_number(value):
        raise InvalidActionError(f"{shorten(repr(value)[:200])} is no coordinate.")
    return float(value)

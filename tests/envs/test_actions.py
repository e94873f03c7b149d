"""Actions whose fields cannot be: refused as the agent's own mistake, whoever made them, and written so that the record can be read."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from envs import actions as act
from envs.androidworld import gestures
from envs.base import Observation, TaskSpec
from envs.errors import InvalidActionError
from envs.gui import GUIEnv
from envs.miniwob import actions as browser_actions
from envs.osworld import operations as desktop_operations
from envs.spaces import ActionSpace, ScreenActionSpace

KINDS = tuple(act.VOCABULARY.values())
GOOD: dict[str, Any] = {
    "x": 3.0, "y": 4.0, "end_x": 5.0, "end_y": 6.0, "seconds": 1.5, "clicks": 3, "keys": ("ctrl", "a"), "text": "abc", "name": "Clock",
    "reason": "no", "submit": True, "direction": "up",
}  # fmt: skip
BAD: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("x", "y", "end_x", "end_y"), (math.nan, math.inf, -math.inf, "5", True, [1], 10**400)),
    "seconds": (math.nan, math.inf, -1, -0.5, "5", False),
    "clicks": (0, -1, 101, 2.5, math.nan, True, "3"),
    "keys": ("ctrl", (1,), 5), "direction": ("sideways", 5), "submit": ("yes", 1),
    **dict.fromkeys(("text", "name", "reason"), (5, ["a"], b"a")),
}  # fmt: skip


def whole(kind: type[act.Action], **changes: Any) -> act.Action:
    return kind(**{field.name: GOOD[field.name] for field in dataclasses.fields(kind)} | changes)


BROKEN = [
    pytest.param(kind, field.name, value, id=f"{kind.kind}-{field.name}-{number}")
    for kind in KINDS
    for field in dataclasses.fields(kind)
    for number, value in enumerate(BAD[field.name])
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_action_is_in_the_space_and_survives_json(kind):
    action = whole(kind)
    assert action in ScreenActionSpace(KINDS, 10, 10) and act.from_json(json.loads(json.dumps(act.to_json(action)))) == action
    bare = kind(**{f.name: GOOD[f.name] for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING})
    assert bare in ScreenActionSpace(KINDS, 10, 10) and act.from_json(act.to_json(bare)) == bare


@pytest.mark.parametrize(("kind", "name", "value"), BROKEN)
def test_a_field_that_cannot_be_is_refused_from_json_and_from_a_policy(kind, name, value):
    action = whole(kind, **{name: value})
    assert action not in ScreenActionSpace(KINDS, 10, 10)
    with pytest.raises(InvalidActionError, match=name):
        act.from_json({"kind": kind.kind, **{field.name: getattr(action, field.name) for field in dataclasses.fields(kind)}})
    written = json.dumps(act.to_json(action), allow_nan=False)
    again = act.from_json(json.loads(written))
    assert isinstance(again, act.Invalid) and name in again.reason, "a record that holds it can be read"


@pytest.mark.parametrize("end", [(10.0, 5.0), (5.0, 10.0), (-1.0, 5.0), (5.0, -0.1)])
def test_where_a_drawn_scroll_ends_is_on_the_screen(end):
    space = ScreenActionSpace((act.Scroll, act.Drag), 10, 10)
    assert act.Scroll(1.0, 1.0, "down", *end) not in space and act.Drag(1.0, 1.0, *end) not in space
    assert act.Scroll(1.0, 1.0, "down", 9.9, 0.0) in space and act.Scroll(1.0, 1.0, "down") in space


def test_numbers_of_numpy_are_numbers():
    space = ScreenActionSpace(KINDS, 10, 10)
    assert act.Click(np.int64(3), np.float32(4)) in space and act.Scroll(1, 1, "up", clicks=np.int64(3)) in space
    assert act.to_json(act.Click(3, 4)) == {"kind": "click", "x": 3, "y": 4}


def test_a_space_without_a_screen_looks_too():
    assert act.Answer(5) not in ActionSpace((act.Answer, act.Wait)) and act.Wait(-1.0) not in ActionSpace((act.Answer, act.Wait))


class Sink(GUIEnv):
    """Whatever reaches it is executed as it is, as environments do."""

    def __init__(self) -> None:
        super().__init__(width=10, height=10, kinds=KINDS)
        self.done: list[act.Action] = []

    def _start(self, task: TaskSpec) -> str:
        return "Do it."

    def _execute(self, action: act.Action) -> None:
        self.done.append(action)

    def _observe(self) -> Observation:
        return Observation(screenshot=np.zeros((10, 10, 3), np.uint8))

    def _grade(self, last: act.Action | None) -> float:
        return 0.0


def test_an_environment_says_what_is_wrong_and_goes_on():
    env = Sink()
    env.reset(options={"task": TaskSpec("sink", "sink", 0, 10)})
    for action, said in (
        (act.Wait(-1.0), "seconds cannot be less than 0"),
        (act.Scroll(1.0, 1.0, "down", math.nan, 5.0), "end_x must be a number"),
        (act.Scroll(1.0, 1.0, "down", 99.0, 5.0), "off the screen"),
        (act.LongPress(1.0, 1.0, math.inf), "seconds must be a number"),
    ):
        assert said in env.step(action)[4]["invalid"]
    assert env.done == []


def on_a_page(text: str) -> str:
    typed: list[str] = []

    class Keyboard:
        async def type(self, text: str) -> None:
            typed.append(text)

    asyncio.run(browser_actions.perform(SimpleNamespace(mouse=None, keyboard=Keyboard()), act.Type(text)))
    return typed[0]


def on_a_desktop(text: str) -> str:
    return str(desktop_operations.compile_action(act.Type(text))[0]["text"])


def on_a_phone(text: str) -> str:
    return str(gestures.compile_action(act.Type(text), gestures.Conventions(), (1080, 2400))["text"])


@pytest.mark.parametrize("typed", [on_a_page, on_a_desktop, on_a_phone, gestures.sendable])
def test_the_end_of_a_line_is_one_key_however_it_is_written(typed):
    """A phone refused the text, and lost an answer that was written so."""
    assert typed("a\r\nb\rc\nd\r\n") == "a\nb\nc\nd\n"

"""From what UI-TARS writes to the input that reaches the phone, over both servers: every action of its mobile prompts."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import policies.families.ui_tars as ui_tars
from envs.androidworld.env import AndroidWorldEnv
from envs.androidworld.suite import make_spec
from policies.families.reply import Frame
from policies.families.ui_tars.parse import parse_reply

WIDTH, HEIGHT = 180, 400
ENTER = ["input keyevent KEYCODE_ENTER"]
TWO_WORDS = ["input text two", "input text %s", "input text words"]

WRITTEN = [
    # action part                                                     what our server does                       and upstream's
    ("click(start_box='(500,250)')", ["input tap 90 100"], ["input tap 90 100"]),
    ("click(point='<point>500 250</point>')", ["input tap 90 100"], ["input tap 90 100"]),
    ("left_double(start_box='(500,250)')", ["input tap 90 100 && input tap 90 100"], ["input tap 90 100"] * 2),
    ("long_press(start_box='(500,250)', time='')", ["input swipe 90 100 90 100 1000"], ["input swipe 90 100 90 100 1000"]),
    ("long_press(point='<point>500 250</point>')", ["input swipe 90 100 90 100 1000"], ["input swipe 90 100 90 100 1000"]),
    ("type(content='two words')", ["input text 'two%swords'"], [*TWO_WORDS, *ENTER]),
    (r"type(content='two words\n')", ["input text 'two%swords'", *ENTER], [*TWO_WORDS, *ENTER]),
    (r"type(content='\n')", ENTER, ENTER),
    ("scroll(start_box='(500,750)', end_box='(500,250)')", ["input swipe 90 300 90 100 500"], ["input swipe 90 200 90 0"]),
    ("scroll(start_box='(500,500)', direction='down')", ["input swipe 90 200 90 16 300"], ["input swipe 90 200 90 0"]),
    ("scroll(point='<point>500 500</point>', direction='up')", ["input swipe 90 200 90 384 300"], ["input swipe 90 200 90 400"]),
    ("scroll(start_box='(500,500)', direction='right')", ["input swipe 90 200 7 200 300"], ["input swipe 90 200 0 200"]),
    ("scroll(start_box='(500,500)', direction='left')", ["input swipe 90 200 172 200 300"], ["input swipe 90 200 180 200"]),
    ("open_app(app_name='Settings')", [], []),
    ("drag(start_box='(100,500)', end_box='(900,500)')", ["input swipe 18 200 162 200 800"], ["input swipe 90 200 180 200"]),
    ("drag(start_point='<point>100 500</point>', end_point='<point>900 500</point>')", ["input swipe 18 200 162 200 800"],
     ["input swipe 90 200 180 200"]),
    ("press_home()", ["input keyevent KEYCODE_HOME"], ["input keyevent KEYCODE_HOME"]),
    ("press_back()", ["input keyevent KEYCODE_BACK"], ["input keyevent KEYCODE_BACK"]),
    ("hotkey(key='enter')", ENTER, ENTER),
    ("hotkey(key='ctrl a')", ["input keycombination KEYCODE_CTRL_LEFT KEYCODE_A"], None),
    ("wait()", [], []),
    ("answer(content='42')", [], []),
    ("finished(content='42')", [], []),
    ("call_user()", [], []),
]  # fmt: skip
"""None: refused, since that server has no such action."""


def names(text):
    return {match[1] for match in re.finditer(r"^(\w+)\(", text, re.MULTILINE)}


def test_every_action_of_the_mobile_prompts_is_here():
    written = names("\n".join(text for text, *_ in WRITTEN))
    texts = [path.read_text() for path in Path(ui_tars.__file__).parent.glob("*_mobile.txt")]
    assert len(texts) == 3 and set().union(*map(names, texts)) <= written


def plain(commands):
    """Input commands with Android's numbers of keys as names, and without the quotes and blanks that change nothing."""
    numbers = {"66": "KEYCODE_ENTER", "3": "KEYCODE_HOME", "4": "KEYCODE_BACK"}
    keyed = [re.sub(r"keyevent (\d+)$", lambda m: f"keyevent {numbers[m[1]]}", command) for command in commands]
    return [command.replace("'", "").strip() for command in keyed]


class Playing:
    """An episode that goes on from test to test, on the home screen of one server's phone."""

    def __init__(self, server):
        self.server, self.over = server, True
        self.env = AndroidWorldEnv(provider=f"127.0.0.1:{server.port}", screen=server.size, settle="none", wait_seconds=0.1)
        self.task = dataclasses.replace(make_spec("android_world", "SystemWifiTurnOff", 30), max_steps=1000)

    def say(self, text, frame=Frame(WIDTH, HEIGHT)):  # noqa: B008 - frozen
        """(input that has reached the phone, what the step returned) of a reply of the model."""
        if self.over:
            self.env.reset(options={"task": self.task})
        before = len(self.server.inputs())
        result = self.env.step(parse_reply(f"Thought: t\nAction: {text}", frame).actions)
        self.over = result[2]
        return plain(self.server.inputs()[before:]), result


@pytest.fixture(scope="module", params=["ours", "upstream"])
def playing(request):
    made = Playing(request.getfixturevalue(request.param))
    yield made
    made.env.close()


@pytest.mark.parametrize(("text", "here", "there"), WRITTEN, ids=[text for text, *_ in WRITTEN])
def test_what_it_writes_reaches_the_phone(playing, text, here, there):
    found, (*_, info) = playing.say(text)
    expected = here if playing.server.kind == "ours" else there
    assert ("invalid" in info) == (expected is None), info
    if text.startswith(("finished", "call_user")):
        assert playing.over  # scoring goes home over upstream's server: a dead emulator must not pass for a task that is not done
    else:
        assert found == plain(expected or [])


def test_open_app_opens_it(playing):
    home = playing.say("press_home()")[1][0]["screenshot"]
    for text, changes in (("open_app(app_name='Wallet')", False), ("open_app(app_name='contacts app')", True)):
        _, (seen, *_, info) = playing.say(text)
        assert ("invalid" in info) != changes and (seen["screenshot"] != home).any() == changes


def test_points_of_the_1_5_models_are_pixels_of_the_resized_picture(playing):
    assert playing.say("click(point='<point>364 812</point>')", Frame(WIDTH, HEIGHT, 728, 1624))[0] == ["input tap 90 200"]


def test_several_actions_of_one_reply_are_one_step(playing):
    found, _ = playing.say("click(start_box='(500,250)')\nclick(start_box='(500,500)')")
    assert found == ["input tap 90 100", "input tap 90 200"]

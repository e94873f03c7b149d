"""What the actions of a mobile agent become on the device, and where conventions differ."""

import json
import os
import shlex
import subprocess
import sys

import pytest
import servers

from envs import actions as act
from envs.androidworld.adb import shell_commands
from envs.androidworld.apps import ALIASES, APPS, resolve
from envs.androidworld.gestures import Conventions, compile_action
from envs.androidworld.upstream import UpstreamDevice, to_json_action
from envs.errors import InvalidActionError, UsageError
from policies.families.reply import Frame
from policies.families.ui_tars.parse import parse_reply

SCREEN = (1080, 2400)


def compiled(action, **conventions):
    return compile_action(action, Conventions(**conventions), SCREEN)


def moved(operation):
    return operation["end_x"] - operation["x"], operation["end_y"] - operation["y"]


def said(text):
    """The one action of a UI-TARS reply."""
    return parse_reply(f"Thought: t\nAction: {text}", Frame(*SCREEN)).actions[0]


@pytest.mark.parametrize(("direction", "sign"), [("down", (0, -1)), ("up", (0, 1)), ("right", (-1, 0)), ("left", (1, 0))])
def test_scroll_shows_what_lies_in_its_direction_unless_it_is_the_fingers(direction, sign):
    scroll = said(f"scroll(start_box='(500,500)', direction='{direction}')")
    dx, dy = moved(compiled(scroll))
    assert (sign[0] * dx >= 0 and sign[1] * dy >= 0) and abs(dx) + abs(dy) > 100
    back = moved(compiled(scroll, scroll="finger"))
    assert (back[0] * sign[0] <= 0 and back[1] * sign[1] <= 0) and abs(back[0]) + abs(back[1]) > 100


def test_a_drawn_scroll_goes_where_it_was_drawn_whatever_the_convention():
    scroll = said("scroll(start_box='(500,800)', end_box='(500,300)')")
    for convention in ("content", "finger"):
        operation = compiled(scroll, scroll=convention)
        assert (operation["type"], operation["x"], operation["y"], operation["end_x"], operation["end_y"]) == (
            "swipe",
            540,
            1920,
            540,
            720,
        )


@pytest.mark.parametrize("y", [0.0, 5.0, 300.0, 1200.0, 2399.0])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_scroll_stays_on_the_screen_and_off_its_edges_and_is_never_nothing(y, direction):
    operation = compiled(act.Scroll(540.0, y, direction))
    for end in (operation["y"], operation["end_y"]):
        assert 90 <= end <= 2310
    assert 350 <= abs(operation["end_y"] - operation["y"]) <= 1200


def test_drag_is_a_slow_swipe_or_picks_up():
    drag = said("drag(start_box='(100,100)', end_box='(900,100)')")
    assert compiled(drag) == {"type": "swipe", "x": 108, "y": 240, "end_x": 972, "end_y": 240, "duration_ms": 800}
    assert compiled(drag, drag="pick_up")["type"] == "drag"


def test_enter_only_when_asked_for_unless_always():
    assert compiled(said("type(content='a b')")) == {"type": "text", "text": "a b", "submit": False}
    assert compiled(said(r"type(content='a b\n')"))["submit"] is True
    assert compiled(said("type(content='a b')"), enter="always")["submit"] is True
    assert compiled(said("type(content='naïve 中 🙂')"))["text"] == "naïve 中 🙂"
    with pytest.raises(InvalidActionError):
        compiled(act.Type(""))


@pytest.mark.parametrize("text", ["\ud800", "a\x00b", "\x1b[2J", "\x7f"])
def test_what_no_keyboard_types_is_the_agents_mistake(text):
    for action in (act.Type(text), act.OpenApp(text)):
        with pytest.raises(InvalidActionError, match="characters"):
            compiled(action)


def test_keys_home_back_and_what_a_phone_has_not():
    assert compiled(act.Hotkey(("ctrl", "a"))) == {"type": "keys", "keys": ["KEYCODE_CTRL_LEFT", "KEYCODE_A"]}
    assert compiled(act.Hotkey(("enter",))) == {"type": "key", "key": "KEYCODE_ENTER"}
    assert compiled(act.PressHome())["key"] == "KEYCODE_HOME" and compiled(act.PressBack())["key"] == "KEYCODE_BACK"
    with pytest.raises(InvalidActionError, match="no key 'hyper'"):
        compiled(act.Hotkey(("hyper",)))
    for action in (act.RightClick(1, 1), act.Hover(1, 1)):
        with pytest.raises(InvalidActionError, match="A phone has no action"):
            compiled(action)


def test_points_are_whole_pixels_of_the_screen():
    operation = compiled(act.Click(1079.9, 2399.9))
    assert operation == {"type": "tap", "x": 1079, "y": 2399}


@pytest.mark.parametrize(
    "setting",
    [{"scroll": "sideways"}, {"enter": True}, {"drag": ""}, {"scroll_share": 0}, {"scroll_share": "wide"}, {"wait_seconds": 99}],
)
def test_unknown_conventions_are_refused(setting):
    with pytest.raises(UsageError, match=f"androidworld.{next(iter(setting))}"):
        Conventions(**setting)


# -- upstream's server -------------------------------------------------------------------------------------------------------------
def test_json_actions_of_upstream():
    assert to_json_action(compiled(act.Click(3, 4))) == {"action_type": "click", "x": 3, "y": 4}
    assert to_json_action(compiled(act.LongPress(3, 4))) == {"action_type": "long_press", "x": 3, "y": 4}
    assert to_json_action(compiled(act.PressBack())) == {"action_type": "navigate_back"}
    assert to_json_action(compiled(act.Type("", submit=True))) == {"action_type": "keyboard_enter"}
    assert to_json_action(compiled(act.OpenApp("Calendar"))) == {"action_type": "open_app", "app_name": "simple calendar pro"}
    for direction in act.DIRECTIONS:
        assert to_json_action(compiled(act.Scroll(540, 1200, direction))) == {"action_type": "scroll", "direction": direction}


def test_what_upstreams_server_would_drop_silently_is_refused():
    with pytest.raises(InvalidActionError, match="é"):
        to_json_action(compiled(act.Type("café")))
    with pytest.raises(InvalidActionError, match="%s"):
        to_json_action(compiled(act.Type("100%sure")))
    assert to_json_action(compiled(act.Type("100% sure")))["text"] == "100% sure"
    with pytest.raises(InvalidActionError, match="no action"):
        to_json_action(compiled(act.Hotkey(("ctrl", "a"))))
    with pytest.raises(InvalidActionError, match="no action"):
        to_json_action(compiled(act.Drag(1, 1, 9, 9), drag="pick_up"))


@pytest.mark.parametrize("name", ["Wallet", "Screen Recorder", "Igloo", "com.evil; rm -rf /", ""])
def test_applications_that_upstream_would_confuse_are_refused(name):
    with pytest.raises(InvalidActionError, match="no application"):
        resolve(name)


def test_real_names_of_applications():
    names = {
        "Calendar": "simple calendar pro",
        "Google Photos": "google photos",
        "Simple Calendar Pro": "simple calendar pro",
        "Markor": "markor",
        " VLC  app": "vlc",
        "arduia pro expense": "pro expense",
    }
    for name, expected in names.items():
        assert resolve(name) == expected
    assert set(ALIASES.values()) <= set(APPS) and not set(ALIASES) & set(APPS)


@pytest.mark.parametrize("name", ["Messages", "maps", "Photos app"])
def test_a_name_of_upstreams_own_table_means_what_it_means_there(name):
    """Also where the benchmark installs another application of that kind (Simple SMS Messenger, OsmAnd, Simple Gallery Pro)."""
    assert resolve(name) in ("messages", "google maps", "google photos")


SAME_APP = """
import json, sys
from pathlib import Path
from standin.world import World
from lite import environment, modules
modules.install(World(Path(sys.argv[1]), 90, 200))
from guest import apps
installed = {activity.split("/")[0] for activity in environment.ACTIVITIES.values()}
print(json.dumps({name: [environment.launch(name).split()[-1], apps.activity_of(name, installed)] for name in json.loads(sys.argv[2])}))
"""


def test_every_name_opens_one_application_whichever_server_is_asked(tmp_path):
    """What is sent for each of the names, given to upstream's kind of matcher and to our guest server."""
    sent = sorted({compiled(act.OpenApp(name))["name"] for name in (*APPS, *ALIASES)})
    path = os.pathsep.join([str(servers.HERE), str(servers.GUEST), *sys.path])
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": path}
    command = [sys.executable, "-c", SAME_APP, str(tmp_path), json.dumps(sent)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    opened = json.loads(done.stdout)
    assert set(opened) == set(APPS) and all(there == here for there, here in opened.values()), opened
    assert len({here for here, _ in opened.values()}) == len(APPS), "no two names are one application"


@pytest.mark.parametrize(
    ("seconds", "milliseconds"),
    [(None, 1000), (3.0, 3000), (0.1, 600), (0.0, 1000), (-1.0, 1000), (60.0, 10000), (float("nan"), 1000)],
)
def test_a_long_press_lasts_as_long_as_it_is_asked_to(seconds, milliseconds):
    operation = compiled(act.LongPress(5.0, 6.0, seconds))
    assert operation == {"type": "long_press", "x": 5, "y": 6, "duration_ms": milliseconds}
    assert shell_commands(operation) == [["input", "swipe", "5", "6", "5", "6", str(milliseconds)]]


def test_a_wait_lasts_as_long_as_it_is_asked_to(monkeypatch):
    assert compiled(act.Wait())["seconds"] == 1.0 and compiled(act.Wait(), wait_seconds=5)["seconds"] == 5.0
    assert compiled(act.Wait(5.0))["seconds"] == 5.0 and compiled(act.Wait(1e9))["seconds"] == 30.0
    assert compiled(act.Wait(float("nan")))["seconds"] == 1.0
    slept = []
    monkeypatch.setattr("envs.androidworld.upstream.time.sleep", slept.append)
    UpstreamDevice("127.0.0.1", 1).perform(compiled(act.Wait(5.0)))  # its server knows only a wait of one second
    assert slept == [5.0]


def test_buttons_of_the_phone_by_hotkey():
    for key, code in (
        ("home", "KEYCODE_HOME"),
        ("back", "KEYCODE_BACK"),
        ("volume_up", "KEYCODE_VOLUME_UP"),
        ("apps", "KEYCODE_MENU"),
    ):
        assert compiled(act.Hotkey((key,))) == {"type": "key", "key": code}
    assert compiled(act.Hotkey(("ctrl", "home"))) == {"type": "keys", "keys": ["KEYCODE_CTRL_LEFT", "KEYCODE_MOVE_HOME"]}
    for keys in (("power",), ("ctrl", "power"), ()):
        with pytest.raises(InvalidActionError):
            compiled(act.Hotkey(keys))


# -- the side door -----------------------------------------------------------------------------------------------------------------
def test_the_side_door_does_what_upstreams_server_cannot():
    assert shell_commands(compiled(act.Drag(1, 2, 3, 4))) == [["input", "swipe", "1", "2", "3", "4", "800"]]
    assert shell_commands(compiled(act.Drag(1, 2, 3, 4), drag="pick_up"))[0][1] == "draganddrop"
    assert shell_commands(compiled(act.Type("a b"))) == [["input", "text", "a%sb"]]
    assert shell_commands(compiled(act.Type("a", submit=True)))[-1] == ["input", "keyevent", "KEYCODE_ENTER"]
    assert shell_commands(compiled(act.Click(1, 2))) is None


def test_text_at_the_side_door_is_one_quoted_word_and_comes_out_as_it_is():
    """A model's text must never be read by Android's shell, and `%s` must not become a blank."""
    hostile = '$(reboot) `id`; a\'b "c" & | > < \\ * 100%sure %%s\n-x'
    typed = ""
    for command in shell_commands(compiled(act.Type(hostile))):
        words = shlex.split(" ".join(command))
        assert words[:2] == ["input", "text"] or words == ["input", "keyevent", "KEYCODE_ENTER"]
        assert len(words) == 3
        typed += "\n" if words[1] == "keyevent" else words[2].replace("%s", " ")
    assert typed == hostile
    with pytest.raises(InvalidActionError, match="ASCII"):
        shell_commands(compiled(act.Type("中")))

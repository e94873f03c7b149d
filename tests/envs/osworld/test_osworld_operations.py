"""Actions as operations: the translation itself.  Needs no Docker."""

import ast
import json
import sys

import pytest

from envs import actions as act
from envs.errors import InvalidActionError, UsageError
from envs.osworld.address import parse_address, written
from envs.osworld.operations import compile_action, foreign_command


def ops(action):
    return [(o.pop("op"), *o.values()) for o in compile_action(action)]


def test_pointer_actions():
    assert ops(act.Click(3.9, 4)) == [("move", 3, 4), ("click", 1, 1)]
    assert ops(act.DoubleClick(3, 4)) == [("move", 3, 4), ("click", 1, 2)]
    assert ops(act.RightClick(3, 4)) == [("move", 3, 4), ("click", 3, 1)]
    assert [o[0] for o in ops(act.Drag(1, 2, 30, 40))] == ["move", "press", "wait", "glide", "wait", "release"]
    assert [ops(act.Scroll(1, 2, "up", clicks=n))[1] for n in (None, 1, 30)] == [("click", 4, n) for n in (5, 1, 30)]
    assert [ops(act.Scroll(1, 2, d))[1][1] for d in ("up", "down", "left", "right")] == [4, 5, 6, 7]


def test_text_is_data_whatever_it_says():
    text = "'; import os\n$(reboot) `x` \\ \" 你好"
    assert ops(act.Type(text)) == [("type", text)]
    assert ops(act.Type("a", submit=True)) == [("type", "a\n")]
    assert json.loads(json.dumps(compile_action(act.Type(text)))) == compile_action(act.Type(text))


def test_keys_by_the_names_that_agents_use():
    assert ops(act.Hotkey(("ctrl", "shift", "t"))) == [("keys", ["Control_L", "Shift_L", "U0074"])]
    assert ops(act.Hotkey(("Enter",))) == [("keys", ["Return"])]
    assert ops(act.Hotkey(("alt", "F4"))) == [("keys", ["Alt_L", "F4"])]
    assert ops(act.Hotkey(("+", " ", "é"))) == [("keys", ["U002B", "space", "U00E9"])]


@pytest.mark.parametrize(
    "action",
    [act.Hotkey(("contrl", "c")), act.Hotkey(("",)), act.OpenApp("Files"), act.PressHome(), act.Type("a\x00b"), act.Type("\ud800")],
)
def test_what_a_desktop_cannot_do_is_an_invalid_action(action):
    with pytest.raises(InvalidActionError):
        compile_action(action)


def test_an_unknown_key_is_offered_its_neighbours():
    with pytest.raises(InvalidActionError, match=r"no key 'contrl'.*Did you mean"):
        compile_action(act.Hotkey(("contrl", "c")))


def test_the_program_for_foreign_guests_needs_nothing_of_ours():
    """It runs where only the standard library is, and what pyautogui needs."""
    nodes = [node for text in foreign_command([])[2::2] for node in ast.walk(ast.parse(text))]
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in found} - set(sys.stdlib_module_names) == {"Xlib", "guest"}


def test_addresses():
    assert parse_address("localhost:5000") == ("localhost", {5000: 5000})
    assert parse_address("10.0.0.1:1:2:3:4") == ("10.0.0.1", {5000: 1, 9222: 2, 8006: 3, 8080: 4})
    for whole in ("10.0.0.1:1:2:3:4", "10.0.0.1:33129:33128", "10.0.0.1:5000"):
        assert written(*parse_address(whole)) == whole
    for wrong in ("ligth", ":5000", "host:", "host:0", "host:70000", "host:1:2:3:4:5", "host:x"):
        with pytest.raises(UsageError):
            parse_address(wrong)

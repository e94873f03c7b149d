"""What UI-TARS writes, and what has to come of it; each fault known from public agents is one test."""

import random

import pytest
from whole_actions import assert_whole

from envs import actions as act
from envs.errors import InvalidActionError
from policies.families.points import parse_point
from policies.families.reply import Frame
from policies.families.ui_tars.parse import NAMES, parse_reply, split_reply

SCREEN = Frame(1920, 1080)
UNIT = Frame(1000, 1000)
RESIZED = Frame(1920, 1080, 1932, 1092)


def one(text, frame=UNIT):
    (action,) = parse_reply(text, frame).actions
    return action


def test_official_example_in_pixels():
    reply = parse_reply("Thought: 点击文件菜单。\nAction: click(start_box='<|box_start|>(500,300)<|box_end|>')", SCREEN)
    assert reply.actions == (act.Click(960.0, 324.0),)
    assert reply.thought == "点击文件菜单。"
    assert reply.action_text == "click(start_box='(500,300)')"


def test_absolute_coordinates_of_the_resized_image():
    assert one("Action: click(point='<point>966 546</point>')", RESIZED) == act.Click(960.0, 540.0)


@pytest.mark.parametrize(
    ("call", "action"),
    [
        ("click(start_box='(100,200)')", act.Click(100, 200)),
        ("left_single(start_box='(100,200)')", act.Click(100, 200)),
        ("left_double(start_box='(100,200)')", act.DoubleClick(100, 200)),
        ("right_single(start_box='(100,200)')", act.RightClick(100, 200)),
        ("hover(start_box='(100,200)')", act.Hover(100, 200)),
        ("long_press(start_box='(100,200)', time='2')", act.LongPress(100, 200, 2.0)),
        ("drag(start_box='(1,2)', end_box='(3,4)')", act.Drag(1, 2, 3, 4)),
        ("drag(start_point='<point>1 2</point>', end_point='<point>3 4</point>')", act.Drag(1, 2, 3, 4)),
        ("drag('(1,2)', '(3,4)')", act.Drag(1, 2, 3, 4)),
        ("type(content='abc')", act.Type("abc")),
        ("type(content='')", act.Type("")),
        ("hotkey(key='ctrl c')", act.Hotkey(("ctrl", "c"))),
        ("scroll(start_box='(5,6)', direction='down')", act.Scroll(5, 6, "down")),
        ("scroll(point='<point>5 6</point>', direction='Up')", act.Scroll(5, 6, "up")),
        ("scroll(direction='down')", act.Scroll(500, 500, "down")),
        ("wait()", act.Wait()),
        ("wait", act.Wait()),
        ("press_home()", act.PressHome()),
        ("press_back()", act.PressBack()),
        ("open_app(app_name='Clock')", act.OpenApp("Clock")),
        ("open_app(content='Clock')", act.OpenApp("Clock")),
        ("answer(content='42')", act.Answer("42")),
        ("finished()", act.Finished("")),
        ("finished(content='It is 5 o\\'clock')", act.Finished("It is 5 o'clock")),
        ("call_user()", act.Fail("")),
    ],
)
def test_every_action_of_both_spaces(call, action):
    assert one(f"Thought: t\nAction: {call}") == action


@pytest.mark.parametrize(
    "point",
    [
        "'<|box_start|>(100,200)<|box_end|>'",
        "<|box_start|>(100,200)<|box_end|>",
        "'(100,200)<|box_end|>'",
        "'(100, 200)'",
        '"(100,200)"',
        "(100,200)",
        "[100, 200]",
        "'[100, 200]'",
        "'[90, 190, 110, 210]'",
        "'(90,190),(110,210)'",
        "'(100.0,200.0)'",
        "'(90-110, 190-210)'",
        "'(90~110,200)'",
        "'<point>100 200</point>'",
        "<point>100 200</point>",
        "'<bbox>90 190 110 210</bbox>'",
        "'（100，200）'",
        "'[１００，２００]'",
        "'x=100, y=200'",
    ],
)
@pytest.mark.parametrize("key", ["start_box=", "point=", "box=", ""])
def test_every_way_to_write_a_point(point, key):
    assert one(f"Action: click({key}{point})") == act.Click(100, 200)


def test_bare_numbers_are_a_point():
    assert one("Action: click(100, 200)") == one("Action: click(x=100, y=200)") == act.Click(100, 200)


def test_full_width_punctuation_around_the_call():
    assert one("思考：好\nAction：scroll（start_box='（100，200）'，direction='down'）") == act.Scroll(100, 200, "down")


# -- points off the screen -----------------------------------------------------------------------------------------------------


def test_points_just_off_the_screen_are_meant_for_the_edge():
    assert one("Action: click(start_box='(1000,1000)')", SCREEN) == act.Click(1919.0, 1079.0)
    assert one("Action: click(start_box='(1015,-3)')", SCREEN) == act.Click(1919.0, 0.0)


@pytest.mark.parametrize("point", ["(1200,10)", "(10,-500)", "(" + "9" * 300 + ",1)"])
def test_points_far_off_the_screen_are_no_action(point):
    with pytest.raises(InvalidActionError, match="off the screen"):
        one(f"Action: click(start_box='{point}')")


@pytest.mark.parametrize("point", ["the button", "(1)", "(1,2,3)", "(1,2,3,4,5)", "abc(1,2)", "1 2 px"])
def test_what_is_no_point(point):
    with pytest.raises(InvalidActionError):
        parse_point(point)


# -- typing --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "action"),
    [
        (r"'hello\n'", act.Type("hello", submit=True)),
        ("'hello\n'", act.Type("hello", submit=True)),
        (r"'hello\\n'", act.Type("hello", submit=True)),
        (r"'\n'", act.Type("", submit=True)),
        (r"'a\nb'", act.Type("a\nb")),
        ("'a\nb'", act.Type("a\nb")),
        ("'''a\n'quoted' b'''", act.Type("a\n'quoted' b")),
        (r"'it\'s'", act.Type("it's")),
        ("'it's'", act.Type("it's")),
        ("'print('a')'", act.Type("print('a')")),
        (r"'say \"hi\"'", act.Type('say "hi"')),
        ('"it\'s"', act.Type("it's")),
        (r"'C:\dir'", act.Type(r"C:\dir")),
        (r"'a\\b'", act.Type(r"a\b")),
        ("'a, b，c）'", act.Type("a, b，c）")),
        ("'x = \"1\", y = (2)'", act.Type('x = "1", y = (2)')),
        ("'Action: click(1,2)'", act.Type("Action: click(1,2)")),
        ("'a\n\nclick(start_box=(1,2))'", act.Type("a\n\nclick(start_box=(1,2))")),
        ("“文字”", act.Type("文字")),
        ("'# not a comment'", act.Type("# not a comment")),
    ],
)
def test_type_content(content, action):
    assert one(f"Thought: t\nAction: type(content={content})") == action


def test_nothing_is_executed(tmp_path):
    victim = tmp_path / "victim"
    text = f"__import__('pathlib').Path({str(victim)!r}).touch()"
    assert one(f'Action: type(content="{text}")') == act.Type(text)
    with pytest.raises(InvalidActionError):
        one(f"Action: {text}")
    assert not victim.exists()


# -- keys ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "keys"),
    [
        ("ctrl c", ("ctrl", "c")),
        ("ctrl+c", ("ctrl", "c")),
        ("ctrl-c", ("ctrl", "c")),
        ("Ctrl + C", ("ctrl", "c")),
        ("ctrl shift t", ("ctrl", "shift", "t")),
        ("Control+Alt+Delete", ("ctrl", "alt", "delete")),
        ("cmd space", ("win", "space")),
        ("Return", ("enter",)),
        ("page down", ("pagedown",)),
        ("Page_Down", ("pagedown",)),
        ("arrow left", ("left",)),
        ("ArrowDown", ("down",)),
        ("ctrl++", ("ctrl", "+")),
        ("ctrl +", ("ctrl", "+")),
        ("ctrl -", ("ctrl", "-")),
        ("ctrl--", ("ctrl", "-")),
        ("f5", ("f5",)),
        ("\\n", ("enter",)),
    ],
)
def test_hotkeys(key, keys):
    assert one(f"Action: hotkey(key='{key}')") == act.Hotkey(keys)


@pytest.mark.parametrize("key", ["", "   ", "ctrl foo", "the enter key", "a b c d e f"])
def test_what_is_no_hotkey(key):
    with pytest.raises(InvalidActionError):
        one(f"Action: hotkey(key='{key}')")


# -- scrolling -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["up", "down", "left", "right"])
def test_scroll_directions(direction):
    assert one(f"Action: scroll(start_box='(5,6)', direction='{direction}')") == act.Scroll(5, 6, direction)


@pytest.mark.parametrize(
    ("end", "direction"), [((500, 100), "down"), ((500, 900), "up"), ((100, 500), "right"), ((900, 510), "left")]
)
def test_mobile_scroll_is_a_finger_that_drags_the_content(end, direction):
    scroll = one(f"Action: scroll(start_box='(500,500)', end_box='{end}')")
    assert scroll == act.Scroll(500, 500, direction, *end)
    assert act.from_json(act.to_json(scroll)) == scroll
    assert "None" not in act.describe(act.Scroll(5, 6, "up")) and "end_x" not in act.to_json(act.Scroll(5, 6, "up"))


@pytest.mark.parametrize("arguments", ["start_box='(5,6)'", "direction='sideways'", "start_box='(5,6)', end_box='(5,6)'"])
def test_scroll_that_goes_nowhere(arguments):
    with pytest.raises(InvalidActionError):
        one(f"Action: scroll({arguments})")


# -- the reply around the action -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "thought"),
    [
        ("Thought: a\nb\nAction: wait()", "a\nb"),
        ("Action: wait()", ""),
        ("wait()", ""),
        ("Thought: no label\nwait()", "no label"),
        ("Thought: first\nAction:\nwait()", "first"),
        ("Thought: first\nAction: ```\nwait()\n```", "first"),
        ("Thought: the Action: part follows\nAction: wait()", "the Action: part follows"),
        ("Thought: same line Action: wait()", "same line"),
        ("**Thought:** bold\n**Action:** wait()", "bold"),
        ("Reflection: r\nAction_Summary: s\nAction: wait()", "r\ns"),
        ("Thought: it's '''quoted''' \"here\"\nAction: wait()", "it's '''quoted''' \"here\""),
        ("Thought: t\nAction: wait()<|im_end|>", "t"),
        ("Thought: t\r\nAction: wait()\r\n", "t"),
        ("Thought: t\nAction: wait() #Sleep for 5s", "t"),
        ("Thought: t\nAction: wait() and see", "t"),
    ],
)
def test_thoughts(text, thought):
    reply = parse_reply(text, UNIT)
    assert (reply.thought, reply.actions) == (thought, (act.Wait(),))


def test_several_actions_of_one_reply():
    expected = (act.Click(1, 2), act.Type("a\n\nb"), act.Hotkey(("enter",)))
    calls = ["click(start_box='(1,2)')", "type(content='a\n\nb')", "hotkey(key='enter')"]
    for separator in ("\n\n", "\n", "; ", "\n\nAction: "):
        assert parse_reply("Thought: t\nAction: " + separator.join(calls), UNIT).actions == expected


def test_nothing_follows_the_end_of_the_episode():
    assert one("Action: finished()\n\nclick(start_box='(1,2)')") == act.Finished()


def test_an_invented_next_turn_is_not_taken_for_an_action():
    text = "Thought: a\nAction: click(start_box='(1,2)')\nThought: b\nAction: click(start_box='(3,4)')"
    reply = parse_reply(text, UNIT)
    assert reply.actions == (act.Click(1, 2),)
    assert reply.action_text == "click(start_box='(1,2)')"


def test_one_bad_call_spoils_the_reply():
    with pytest.raises(InvalidActionError, match="click without a point"):
        parse_reply("Action: wait()\n\nclick()", UNIT)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no action"),
        ("Thought: I am not sure", "no action"),
        ("Action:", "no action"),
        ("Action: click()", "click without a point"),
        ("Action: click(start_box='')", "click without a point"),
        ("Action: type()", "type without content"),
        ("Action: open_app()", "open_app without app_name"),
        ("Action: drag(start_box='(1,2)')", "drag needs"),
        ("Action: clik(start_box='(1,2)')", "Did you mean click"),
        ("Action: os.system('rm')", "No action"),
        ("Action: type(content='abc", "cut off"),
        ("Action: click(", "cut off"),
        ("Action: " + "wait()\n" * 40, "More than"),
        ("Action: type(content='abc', x", "cut off"),
    ],
)
def test_messages_say_what_is_wrong(text, message):
    with pytest.raises(InvalidActionError, match=message) as caught:
        parse_reply(text, UNIT)
    assert len(caught.value.message) < 120


PIECES = [
    "Thought:", "Action:", "\n", "\n\n", *NAMES, "(", ")", "（", "）", "start_box=", "end_box=", "content=", "key=", "direction=",
    "'", '"', "'''",
    "\\", "\\n", ",", "，", "=", "<|box_start|>", "<|box_end|>", "<point>", "</point>", "<bbox>", "[", "]", "(1,2)",
    "12", "-", ".", "1e9", "९", "²", "ctrl", "+", "down", "#", ";", "`", "“", "”", "\x00", "𝟙", "x", " ",
]  # fmt: skip
REPLIES = [
    "Thought: t\nAction: click(start_box='<|box_start|>(10,20)<|box_end|>')",
    "Action: drag(start_point='<point>1 2</point>', end_point='<point>3 4</point>')\n\ntype(content='it\\'s\\n')",
    "思考：x\nAction: scroll(start_box='[1, 2, 3, 4]', direction='left')",
    "Thought: t\nAction: hotkey(key='ctrl shift t')\n\nfinished(content='done')",
]


def test_junk_and_damaged_replies_raise_nothing_else():
    source = random.Random(0)
    parsed = 0
    for turn in range(6_000):
        text = "".join(source.choice(PIECES) for _ in range(source.randint(0, 14)))
        if turn % 2:
            reply = source.choice(REPLIES)
            for _ in range(source.randint(1, 3)):
                cut, piece = source.randrange(len(reply)), source.choice(["", *PIECES])
                reply = reply[:cut] + piece + reply[cut + source.randint(0, 3) :]
            text = reply
        split_reply(text)
        try:
            actions = parse_reply(text, SCREEN).actions
        except InvalidActionError:
            continue
        parsed += 1
        assert_whole(actions)
    assert parsed > 600


def test_long_junk_is_read_in_linear_time():
    for text in ("(" * 50_000, "'" * 50_000, "click(" * 10_000, "type(content='" + "'a, " * 10_000, " " * 50_000, "1" * 50_000):
        with pytest.raises(InvalidActionError):
            parse_reply("Action: click(start_box='" + text, UNIT)


@pytest.mark.parametrize(
    "call",
    [
        "click(start_box='(500,300)')",
        "left_double(start_box='(7,8)')",
        "drag(start_box='(10,20)', end_box='(30,40)')",
        "scroll(start_box='(100,200)', direction='up')",
    ],
)
@pytest.mark.parametrize(("model", "frame"), [("qwen2vl", SCREEN), ("qwen25vl", RESIZED)])
def test_points_agree_with_the_official_parser(call, model, frame):
    official = pytest.importorskip("ui_tars.action_parser", reason="compares with the official parser: pip install ui-tars")
    (expected,) = official.parse_action_to_structure_output(f"Thought: t\nAction: {call}", 1000, 1080, 1920, model_type=model)
    action = one(f"Thought: t\nAction: {call}", frame)
    x, y, *_ = (float(v) for v in expected["action_inputs"]["start_box"].strip("[]").split(","))
    assert (action.x, action.y) == pytest.approx((x * 1920, y * 1080))

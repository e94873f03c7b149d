"""Families: which a model is of, what their parsers make of official replies, of long junk, and of damaged replies."""

import subprocess
import sys

import pytest

from envs import actions as act
from envs.errors import InvalidActionError, UsageError
from policies.families.base import Family
from policies.families.registry import checkpoints, choose, families, recipes
from policies.families.reply import Frame
from policies.families.session import read_reply
from policies.families.settings import FamilySettings, seen_size

SCREEN = (1920, 1080)
NAMES = list(families())


def read(family, text, platform=None, pointer=None):
    """The actions of a reply to a 1920 × 1080 screen."""
    known = families()[family]
    seen = (1932, 1092) if known.factor == 28 else (1920, 1088)
    units = known.units(SCREEN, seen, known.defaults)
    return known.parse(text, Frame(*SCREEN, *units, pointer, platform or known.platforms[0])).actions


def call(arguments, name="computer_use"):
    return f'Action: Do it.\n<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def code(text):
    return f"# Step 1:\n## Thought:\nHm.\n\n## Action:\nDo it.\n\n## Code:\n```python\n{text}\n```"


# -- replies as the official sources show them, and the official action ----------------------------------------------------------

MIDDLE = (960.0, 540.0)
OFFICIAL = [
    ("ui-tars-1", "Thought: go\nAction: click(start_box='<|box_start|>(500,500)<|box_end|>')", (act.Click(*MIDDLE),)),
    ("ui-tars-1.5", "Thought: go\nAction: click(start_box='(966,546)')", (act.Click(*MIDDLE),)),
    ("ui-tars-doubao", "Thought: go\nAction: click(point='<point>500 500</point>')", (act.Click(*MIDDLE),)),
    # mobile_agent.ipynb: the recorded output of the notebook's first example
    (
        "qwen3-vl",
        'Thought: To search for Musk in X, I need to click on the search bar at the top of the screen.\nAction: "I tapped on the search '
        'bar."\n<tool_call>\n{"name": "mobile_use", "arguments": {"action": "click", "coordinate": [447, 81]}}\n</tool_call>',
        (act.Click(447 * 1920 / 999, 81 * 1080 / 999),),
    ),
    ("evocua", call('{"action": "left_click", "coordinate": [499.5, 499.5]}'), (act.Click(*MIDDLE),)),
    ("evocua", call('{"action": "key", "keys": ["ctrl", "c"]}'), (act.Hotkey(("ctrl", "c")),)),
    ("evocua", call(r'{"action": "type", "text": "a\\nb"}'), (act.Type("a\nb"),)),
    ("evocua", call('{"action": "key_down", "keys": ["shift"]}'), (act.KeyDown(("shift",)),)),
    ("evocua", call('{"action": "terminate", "status": "failure"}'), (act.Fail(""),)),
    ("evocua", call('{"action": "terminate"}'), (act.Finished(""),)),
    ("evocua-s1", code("pyautogui.click(x=966, y=546)"), (act.Click(*MIDDLE),)),
    ("evocua-s1", code("computer.terminate(status=\"success\", answer='''text''')"), (act.Finished("text"),)),
    ("gui-owl-1.5", call('{"action": "triple_click", "coordinate": [500, 500]}'), (act.TripleClick(*MIDDLE),)),
    ("gui-owl-1.5", call('{"action": "scroll", "pixels": -5}'), (act.Scroll(*MIDDLE, "down", clicks=5),)),
    ("gui-owl-1.5", call('{"action": "answer", "text": "42"}'), (act.Finished("42"),)),
    (
        "gui-owl",
        '<thinking>\nHm\n</thinking>\n<tool_call>\n{"name": "computer_use", "arguments": {"action": "type", "text": "x", "clear": 1, '
        '"enter": 1}}\n</tool_call>\n<conclusion>\nTyped.\n</conclusion>',
        (act.Hotkey(("ctrl", "a")), act.Hotkey(("backspace",)), act.Type("x", submit=True)),
    ),
    ("gui-owl", call('{"action": "drag", "coordinate": [0, 0], "coordinate2": [966, 546]}'), (act.Drag(0, 0, *MIDDLE),)),
    (
        "fara",
        'I will type.\n<tool_call>\n{"name": "computer_use", "arguments": {"action": "type", "coordinate": [966, 546], "text": "x"}}\n'
        "</tool_call>",
        (act.Click(*MIDDLE), act.Type("x", submit=True)),
    ),
    ("fara", call('{"action": "type", "text": "x", "press_enter": false}'), (act.Type("x"),)),
    (
        "fara",
        call('{"action": "visit_url", "url": "example.org"}'),
        (act.Hotkey(("ctrl", "l")), act.Type("https://example.org", True)),
    ),
    (
        "fara",
        call('{"action": "web_search", "query": "a b"}'),
        (act.Hotkey(("ctrl", "l")), act.Type("https://www.bing.com/search?q=a+b&FORM=QBLH", True)),
    ),
    ("fara", call('{"action": "pause_and_memorize_fact", "fact": "x"}'), (act.Wait(0.0),)),
    # fara_agent.py: page_down and page_up, 400 pixels of the page whatever the number
    *(("fara", call(f'{{"action": "scroll", "pixels": {n}}}'), (act.Scroll(*MIDDLE, "down", clicks=8),)) for n in (-1, -546)),
    ("fara", call('{"action": "scroll", "pixels": 5000}'), (act.Scroll(*MIDDLE, "up", clicks=8),)),
    (
        "fara-1.5",
        'I should click.\n<tool_call>\n{"name": "computer_use", "arguments": {"action": "left_click", "coordinate": [500, 500]}}\n'
        "</tool_call>",
        (act.Click(*MIDDLE),),
    ),
    ("fara-1.5", '<tool_call>{"name":"computer_use","arguments":{"action":"wait"}}</tool_call>', (act.Wait(),)),
    ("fara-1.5", '```json\n{"name":"computer_use","arguments":{"action":"wait"}}\n```', (act.Wait(),)),
    ("fara-1.5", "<tool_call>{'name': 'computer_use', 'arguments': {'action': 'wait'}}</tool_call>", (act.Wait(),)),
    ("fara-1.5", call('{"action": "type", "text": "x"}'), (act.Type("x"),)),
    ("fara-1.5", call('{"action": "scroll", "pixels": -500}'), (act.Scroll(*MIDDLE, "down", clicks=10),)),  # half of the screen
    ("fara-1.5", call('{"action": "hscroll", "pixels": 500}'), (act.Scroll(*MIDDLE, "right", clicks=18),)),
    ("fara-1.5", call('{"action": "left_click_drag", "coordinate": [500, 0]}'), (act.Drag(*MIDDLE, 960.0, 0.0),)),
    ("fara-1.5", call('{"action": "terminate", "answer": "42"}'), (act.Finished("42"),)),
    (
        "mai-ui",
        '<thinking>\nHm\n</thinking>\n<tool_call>\n{"name":"mobile_use","arguments":{"action":"swipe","direction":"up"}}\n</tool_call>',
        (act.Scroll(*MIDDLE, "down"),),
    ),
    (
        "mai-ui",
        'Hm</think>\n<tool_call>\n{"name":"mobile_use","arguments":{"action":"open","text":"Clock"}}',
        (act.OpenApp("Clock"),),
    ),
    ("mai-ui", call('{"action":"system_button","button":"back"}', "mobile_use"), (act.PressBack(),)),
    ("mai-ui", call('{"action":"terminate","status":"fail"}', "mobile_use"), (act.Fail(""),)),
    ("mai-ui", call('{"action":"answer","text":"5"}', "mobile_use"), (act.Answer("5"),)),
    ("opencua", code("pyautogui.hotkey('ctrl', 'c')"), (act.Hotkey(("ctrl", "c")),)),
    ("opencua", code("computer.terminate(status='failure')"), (act.Fail(""),)),
    ("opencua", code("computer.wait()"), (act.Wait(),)),
    ("opencua-v1", code("computer.triple_click(x=966, y=546)"), (act.TripleClick(*MIDDLE),)),
    ("opencua-v1", code("pyautogui.write(message='hi\\n')"), (act.Type("hi", submit=True),)),
    ("opencua-v1", code("pyautogui.press('backspace', presses=3)"), (act.Hotkey(("backspace",)),) * 3),
    # model/README.md: "x=0.5 means 50% from left edge"
    ("opencua-relative", code("pyautogui.click(x=0.5, y=0.3)"), (act.Click(960.0, 324.0),)),
    (
        "opencua-relative",
        code("pyautogui.moveTo(0.5, 0.5)\npyautogui.dragTo(1, 1)"),
        (act.Hover(*MIDDLE), act.Drag(*MIDDLE, 1919, 1079)),
    ),
    ("opencua-v1", code("pyautogui.moveTo(966, 546)\npyautogui.dragTo(0, 0)"), (act.Hover(*MIDDLE), act.Drag(*MIDDLE, 0, 0))),
    ("ui-venus-1.5", "<think>T</think>\n<action>Click(box=(500,500))</action>\n<conclusion>c</conclusion>", (act.Click(*MIDDLE),)),
    ("ui-venus-1.5", "<think>T</think><action>Type(content='a, b')</action>", (act.Type("a, b", submit=True),)),
    ("ui-venus-1.5", "<think>T</think><action>Hotkey(keys=['ctrl', 'c'])</action>", (act.Hotkey(("ctrl", "c")),)),
    ("ui-venus-1.5", "<think>T</think><action>Scroll(direction='down')</action>", (act.Scroll(*MIDDLE, "down"),)),
    ("ui-venus-1.5", "<think>T</think><action>Scroll(start=(), end=(), direction='up')</action>", (act.Scroll(*MIDDLE, "up"),)),
    ("ui-venus-1.5", "<think>T</think><action>Finished(content='ok')</action>", (act.Finished("ok"),)),
    ("plain", "Thought: go\nAction: click(start_box='(500,500)')", (act.Click(*MIDDLE),)),
]


@pytest.mark.parametrize(("family", "reply", "actions"), OFFICIAL, ids=[f"{f}-{i}" for i, (f, *_) in enumerate(OFFICIAL)])
def test_official_replies_become_the_official_actions(family, reply, actions):
    assert read(family, reply) == actions


def test_every_family_has_official_replies():
    assert {family for family, *_ in OFFICIAL} == set(NAMES)


# -- what models write besides the protocol --------------------------------------------------------------------------------------

ODD = [
    ("ui-tars-1", "Action: type(content='hello', point='(500,500)')", (act.Click(*MIDDLE), act.Type("hello"))),
    ("ui-tars-1", "Action: type(content='hello\\n', start_box='(500,500)')", (act.Click(*MIDDLE), act.Type("hello", True))),
    ("ui-tars-1", "Action: hotkey(key='ctrl a', start_box='(500,500)')", (act.Click(*MIDDLE), act.Hotkey(("ctrl", "a")))),
    ("ui-tars-1", "Action: select(start_box='(500,500)')", (act.Click(*MIDDLE),)),
    ("ui-tars-1", "Action: click>point>point>500 500", (act.Click(*MIDDLE),)),
    ("ui-tars-1", "Action: click><point>500 500</point>", (act.Click(*MIDDLE),)),
    ("ui-tars-1", "Action: click(start_box='(500,500)'", (act.Click(*MIDDLE),)),
    ("ui-tars-1", "Action: click(start_box='<|box_start|>(500,500)<|box_end|>", (act.Click(*MIDDLE),)),
    ("ui-tars-1", "Action: click(start_box=(500,500)", (act.Click(*MIDDLE),)),
    ("ui-tars-1", "Action: type(content='hello'", (act.Type("hello"),)),
    ("ui-tars-1", "Action: drag(start_box='(0,0)', end_box='(500,500)'", (act.Drag(0, 0, *MIDDLE),)),
    ("ui-tars-1", "Action: move_to(start_box='(500,500)')", (act.Hover(*MIDDLE),)),
    ("ui-tars-1", "Action: mouse_down(start_box='(500,500)')", (act.MouseDown(*MIDDLE),)),
    ("ui-tars-1", "Action: mouse_up(point='<point>500 500</point>')", (act.MouseUp(*MIDDLE),)),
    ("ui-tars-1", "Action: press(key='ctrl')", (act.KeyDown(("ctrl",)),)),
    ("ui-tars-1", "Action: release(key='ctrl')", (act.KeyUp(("ctrl",)),)),
    ("ui-tars-1", "Action: press(key='enter')", (act.Hotkey(("enter",)),)),
    ("ui-tars-1", "Action: hotkey(key='apps')", (act.Hotkey(("menu",)),)),
    ("ui-tars-1", "Action: hotkey(key='ctrlright c')", (act.Hotkey(("ctrl", "c")),)),
    ("ui-tars-1", "Action: hotkey(key='volume_up')", (act.Hotkey(("volumeup",)),)),
    ("ui-tars-1", "Action: wait(time='5')", (act.Wait(5.0),)),
    ("ui-tars-1", "Action: long_press(start_box='(500,500)', time='3')", (act.LongPress(*MIDDLE, 3.0),)),
    ("ui-tars-1", "Action: swipe(start_box='(500,500)', direction='up')", (act.Scroll(*MIDDLE, "down"),)),
    ("ui-tars-1", "Action: swipe(start_box='(500,500)', end_box='(500,0)')", (act.Scroll(*MIDDLE, "down", 960.0, 0.0),)),
    ("evocua", '{"name": "computer_use", "arguments": {"action": "wait", "time": 2}}', (act.Wait(2.0),)),
    ("evocua", '<tool_call>\n{"name": "computer_use", "arguments": {"action": "wait"', (act.Wait(),)),
    ("evocua", "<tool_call>\n{'name': 'computer_use', 'arguments': {'action': 'wait'}}\n</tool_call>", (act.Wait(),)),
    ("evocua", call('{"action": "left click", "coordinate": "(499.5, 499.5)"}'), (act.Click(*MIDDLE),)),
    ("evocua", call('{"action": "click", "coordinate": [499, 499, 500, 500]}'), (act.Click(*MIDDLE),)),
    ("evocua", call('{"action": "key", "keys": "ctrl+shift+t"}'), (act.Hotkey(("ctrl", "shift", "t")),)),
    ("evocua", call('{"action": "key", "keys": ["keys=[\'ctrl\'", "c"]}'), (act.Hotkey(("ctrl", "c")),)),
    ("evocua", call('{"action": "key", "keys": ["Return"]}'), (act.Hotkey(("enter",)),)),
    ("evocua", call('{"action": "hscroll", "pixels": 3}'), (act.Scroll(*MIDDLE, "right", clicks=3),)),
    (
        "evocua",
        call('{"action": "wait"}') + call('{"action": "terminate"}') + call('{"action": "wait"}'),
        (act.Wait(), act.Finished("")),
    ),
    ("opencua", "```\npyautogui.click(966, 546)", (act.Click(*MIDDLE),)),
    *((family, code("pyautogui.click(0.5, 0.5)"), (act.Click(*MIDDLE),)) for family in ("evocua-s1", "opencua", "opencua-v1")),
    ("evocua-s1", code("pyautogui.click(0.5, 546)"), (act.Click(0.5 * 1920 / 1932, 540.0),)),
    ("opencua", "pyautogui.click(966, 546", (act.Click(*MIDDLE),)),
    ("opencua", code("import pyautogui\npyautogui.click(966, 546, clicks=2)"), (act.DoubleClick(*MIDDLE),)),
    ("opencua", code("pyautogui.click(966, 546, button='right')"), (act.RightClick(*MIDDLE),)),
    ("opencua", code("for _ in range(2):\n    pyautogui.press('tab')"), (act.Hotkey(("tab",)),) * 2),
    (
        "opencua",
        code("with pyautogui.hold('shift'):\n    pyautogui.click(966, 546)"),
        (act.KeyDown(("shift",)), act.Click(*MIDDLE), act.KeyUp(("shift",))),
    ),
    ("opencua", code("pyautogui.typewrite(['a', 'enter'])"), (act.Hotkey(("a",)), act.Hotkey(("enter",)))),
    ("ui-tars-1", "Action: hotkey('ctrl', 'c')", (act.Hotkey(("ctrl", "c")),)),
    ("ui-tars-1", "Action: hotkey(key='ctrl', 'c')", (act.Hotkey(("ctrl", "c")),)),
    ("ui-tars-1", "Action: hotkey(key=['ctrl', 'c'])", (act.Hotkey(("ctrl", "c")),)),
    ("ui-tars-1", "Action: hotkey(key='ctrl [')", (act.Hotkey(("ctrl", "[")),)),
    ("ui-tars-1", "Action: click(start_box='(500,500)'), type(content='x')", (act.Click(*MIDDLE), act.Type("x"))),
    ("ui-tars-1", "Action: type(content='a, b), c(d)')", (act.Type("a, b), c(d)"),)),
    ("ui-tars-doubao", "<think>Or\nAction: wait()\n</think>\nAction: click(point='<point>500 500</point>')", (act.Click(*MIDDLE),)),
    ("evocua", "<think>Or " + call('{"action": "wait"}') + "</think>" + call('{"action": "terminate"}'), (act.Finished(""),)),
    ("evocua", "<think>I write <tool_call> later.</think>" + call('{"action": "wait"}'), (act.Wait(),)),
    ("evocua", '{"action": "wait"}', (act.Wait(),)),
    ("evocua", '<tool_call>{"name": "left_click", "arguments": {"coordinate": [499.5, 499.5]}}', (act.Click(*MIDDLE),)),
    ("evocua", call('{"action": "click", "coordinate": [499.5, 499.5], "button": "right"}'), (act.RightClick(*MIDDLE),)),
    ("evocua", call('{"action": "click", "coordinate": [499.5, 499.5], "clicks": 2}'), (act.DoubleClick(*MIDDLE),)),
    ("evocua", call('{"action": "drag", "start_coordinate": [0, 0], "coordinate": [499.5, 499.5]}'), (act.Drag(0, 0, *MIDDLE),)),
    ("evocua", call('{"action": "drag", "path": [[0, 0], [9, 9], [499.5, 499.5]]}'), (act.Drag(0, 0, *MIDDLE),)),
    ("evocua", call('{"action": "scroll", "scroll_direction": "up", "scroll_amount": 3}'), (act.Scroll(*MIDDLE, "up", clicks=3),)),
    ("opencua", code("DONE"), (act.Finished(""),)),
    ("opencua", code("pyautogui.sleep(seconds=2)"), (act.Wait(2.0),)),
    ("ui-venus-1.5", "<think>Or <action>PressHome()</action></think><action>Click(500,500)</action>", (act.Click(*MIDDLE),)),
    ("ui-venus-1.5", "<action>Drag((0,0), (500,500))</action>", (act.Drag(0, 0, *MIDDLE),)),
]


@pytest.mark.parametrize(("family", "reply", "actions"), ODD, ids=[f"{f}-{i}" for i, (f, *_) in enumerate(ODD)])
def test_what_models_write_besides_the_protocol(family, reply, actions):
    assert read(family, reply) == actions


def test_home_and_back_are_buttons_of_a_phone_and_keys_of_a_computer():
    for family, reply in [("ui-tars-1", "Action: hotkey(key='{}')"), ("gui-owl-1.5", call('{{"action": "key", "text": "{}"}}'))]:
        home, back = (reply.replace("{{", "{").replace("}}", "}").replace("{}", key) for key in ("home", "back"))
        assert (read(family, home, "mobile"), read(family, back, "mobile")) == ((act.PressHome(),), (act.PressBack(),))
        assert read(family, home, "computer") == (act.Hotkey(("home",)),)


def test_an_action_without_a_place_is_done_where_the_pointer_is():
    assert read("evocua", call('{"action": "left_click"}'), pointer=(7.0, 8.0)) == (act.Click(7.0, 8.0),)
    assert read("evocua", call('{"action": "left_click_drag", "coordinate": [0, 0]}'), pointer=(7.0, 8.0)) == (
        act.Drag(7.0, 8.0, 0, 0),
    )
    assert read("opencua", code("pyautogui.scroll(-3)"), pointer=(7.0, 8.0)) == (act.Scroll(7.0, 8.0, "down", clicks=3),)


@pytest.mark.parametrize("text", ["__import__('os').system('true')", "open('/tmp/x', 'w')", "x = 1", "pyautogui.click(x=1+1, y=len('a'))",
                                  "while True:\n    pass", "pyautogui.click(*range(2))", "os.remove('x')", "lambda: 0"])  # fmt: skip
def test_code_is_never_run(text):
    with pytest.raises(InvalidActionError):
        read("opencua", code(text))


@pytest.mark.parametrize(("family", "reply"), [
    ("opencua", code("pyautogui.mouseDown(button='right')")),
    ("opencua", code("pyautogui.dragTo(966, 546, button='right')")),
    ("evocua", "<think>Or " + call('{"action": "wait"}') + "</think>"),
    ("ui-tars-doubao", "<think>Or\nAction: wait()\n</think>\nNo."),
    ("ui-tars-1", "Action: click(start_box='(500,50"),
])  # fmt: skip
def test_another_action_than_the_one_meant_is_never_done(family, reply):
    with pytest.raises(InvalidActionError):
        read(family, reply)


@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize(
    "text", ["", " ", "Thought: I am not sure.", "I will click the button.", "<tool_call>", "```", "{}", "[" * 500]
)
def test_what_is_no_action_says_so_shortly(family, text):
    with pytest.raises(InvalidActionError) as caught:
        read(family, text)
    assert 5 < len(caught.value.message) < 200
    known = families()[family]
    reply = read_reply(known, text, SCREEN, (1932, 1092), known.defaults, known.platforms[0])
    assert not reply.parsable


# -- pictures --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("screen", "settings"), [((4001, 20), {}), ((100, 100), {"min_pixels": 9, "max_pixels": 8})])
def test_screens_that_cannot_be_shown_are_refused_in_words(screen, settings):
    with pytest.raises(UsageError, match=r"elongated|min_pixels"):
        seen_size(screen, FamilySettings(**settings), 28)


def test_reading_a_reply_needs_no_torch():
    script = "import sys; from policies.families.session import seen_size; from policies.families.registry import families\n"
    script += "seen_size((9, 9), families()['fara'].defaults, 28); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


# -- names -----------------------------------------------------------------------------------------------------------------------


def test_every_named_checkpoint_is_of_the_family_that_names_it():
    for family in families().values():
        for name, source in family.checkpoints.items():
            assert choose(name) is choose(source) is family
            assert choose(f"/data/{source.split('/')[1]}/") is family
    assert checkpoints()["ui-tars-1.5-7b"] == "ByteDance-Seed/UI-TARS-1.5-7B"


def test_a_fine_tune_is_asked_as_what_it_was_made_from_unless_that_is_a_general_model():
    assert choose("/runs/my-model", said=["ByteDance-Seed/UI-TARS-1.5-7B"]).name == "ui-tars-1.5"
    assert choose("/hub/snapshots/0123", said=["meituan/EvoCUA-8B-20260105"]).name == "evocua"
    with pytest.raises(UsageError, match="No family"):  # EvoCUA, GUI-Owl-1.5, MAI-UI and UI-Venus-1.5 all come from it
        choose("/runs/my-model", said=["Qwen/Qwen3-VL-8B-Instruct"])
    assert choose("Qwen/Qwen3-VL-8B-Instruct").name == "qwen3-vl"
    assert [choose(f"microsoft/Fara{name}").name for name in ("1.5-9B", "-1.5-27B", "-7B")] == ["fara-1.5", "fara-1.5", "fara"]
    for name, family in {"7B": "opencua-v1", "32B": "opencua-v1", "72B": "opencua", "72B-preview": "opencua"}.items():
        assert choose(f"xlangai/OpenCUA-{name}").name == family
    assert [choose(f"OpenCUA-{name}").name for name in ("Qwen2-7B", "A3B")] == ["opencua-relative"] * 2
    assert choose("/runs/my-model", asked="qwen3-vl", said=["ByteDance-Seed/UI-TARS-1.5-7B"]).name == "qwen3-vl"
    assert choose("/runs/UI-TARS-1.5-7B", declared="plain").name == "plain"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Hcompany/Holo-3.1-9B", "which tools"), ("Hcompany/Holo1.5-7B", "which tools"), ("holo3-1-35b-a3b", "which tools"),
        ("UI-Venus-Navi-7B", "UI-Venus-1.5"),
        ("ui-tars-2", "not open"), ("Qwen/Qwen2.5-VL-7B-Instruct", "No family"), ("gpt-5", "No family"), ("ui-tars", "No family"),
        ("xlangai/OpenCUA-4B", "No family"),
    ],
)  # fmt: skip
def test_models_that_no_family_is_right_for_are_refused_with_the_list(name, reason):
    with pytest.raises(UsageError, match=reason) as caught:
        choose(name)
    assert all(family in caught.value.hint for family in NAMES) and "model.family" in caught.value.hint


def test_a_family_of_the_wrong_name_is_corrected():
    with pytest.raises(UsageError, match="ui-tars-15") as caught:
        choose("x", asked="ui-tars-15")
    assert "ui-tars-1.5" in caught.value.hint


def test_recipes_name_policies_settings_and_sources():
    from policies.checkpoint import settings_of
    from policies.sampling import SamplingConfig

    assert recipes()["evocua-8b@osworld-verified"].score == 46.06
    for name, recipe in recipes().items():
        family = choose(recipe.policy.removeprefix("openai:"))
        settings_of(family, None, {k: v for k, v in recipe.model.items() if k not in ("family", "platform")})
        SamplingConfig(**recipe.sampling)
        assert name == f"{recipe.policy}@{recipe.setting}" and recipe.source.repository.count("/") == 1
        assert recipe.benchmark in ("osworld", "androidworld", "miniwob")


def test_every_family_names_its_sources_and_its_devices():
    for family in families().values():
        assert isinstance(family, Family) and family.platforms
        assert family.name == "plain" or all(family.source_of(device) for device in family.platforms)

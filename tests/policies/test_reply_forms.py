"""Replies in other words than the protocol's, of every family's kind: what is meant is done, and nothing of it is lost."""

import pytest

from envs import actions as act
from envs.errors import InvalidActionError
from policies.families.registry import families
from policies.families.reply import Frame
from policies.families.session import seen_size

SCREEN = (1920, 1080)
MIDDLE = (960.0, 540.0)
CLICK = act.Click(*MIDDLE)


def call(arguments, name="computer_use"):
    return f'Action: Do it.\n<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def code(text):
    return f"## Action:\nDo it.\n\n## Code:\n```python\n{text}\n```"


FORMS = [
    ("ui-tars-1", "Action: hotkey('ctrl','c')", (act.Hotkey(("ctrl", "c")),)),
    ("ui-tars-1", "Action: hotkey(keys=['ctrl','c'])", (act.Hotkey(("ctrl", "c")),)),
    ("ui-tars-1", "Action: hotkey(key='ctrl', 'c')", (act.Hotkey(("ctrl", "c")),)),
    ("ui-tars-1", "Action: hotkey(key=['ctrl', 'shift', 't'])", (act.Hotkey(("ctrl", "shift", "t")),)),
    ("ui-tars-1", "Action: hotkey(key='ctrl_c')", (act.Hotkey(("ctrl", "c")),)),
    ("ui-tars-1", "Action: hotkey(key='<ctrl>+<c>')", (act.Hotkey(("ctrl", "c")),)),
    ("ui-tars-1", "Action: hotkey(key='Ctrl+Shift+Esc')", (act.Hotkey(("ctrl", "shift", "esc")),)),
    ("ui-tars-1", "Action: hotkey(key='num1')", (act.Hotkey(("1",)),)),
    ("ui-tars-1", "Action: hotkey(key='kp_add')", (act.Hotkey(("+",)),)),
    ("ui-tars-1", "Action: hotkey(key='alt_gr')", (act.Hotkey(("alt",)),)),
    ("ui-tars-1", "Action: click(start_box=500,500)", (CLICK,)),
    ("ui-tars-1", "Action: click(start_box=500, 500)", (CLICK,)),
    ("ui-tars-1", "Action: click(500 500)", (CLICK,)),
    ("ui-tars-1", "Action: click(start_box='500 500')", (CLICK,)),
    ("ui-tars-1", "Action: click(start_box={'x': 500, 'y': 500})", (CLICK,)),
    ("ui-tars-1", "Action: click(start_box='<|box_start|>(500,500)')", (CLICK,)),
    ("ui-tars-1", "Action: click(start_box='<|box_start|>(500,500)<|box_end|>')<|im_end|>", (CLICK,)),
    ("ui-tars-1", "Action: click(coordinate=[500, 500])", (CLICK,)),
    ("ui-tars-1", "Action: click(point='<point>500,500</point>')", (CLICK,)),
    ("ui-tars-1", "Action: click(start_box='((500,500))')", (CLICK,)),
    ("ui-tars-1", "<think>I click.</think>\nAction: click(start_box='(500,500)')", (CLICK,)),
    ("ui-tars-1", "Thought: x\nAction:\n```python\nclick(start_box='(500,500)')\n```", (CLICK,)),
    ("ui-tars-1", "Thought: x\nAction: `click(start_box='(500,500)')`", (CLICK,)),
    ("ui-tars-1", "Thought: x\nAction: 1. click(start_box='(500,500)')", (CLICK,)),
    ("ui-tars-1", "Action: type(content='hi', press_enter=True)", (act.Type("hi", True),)),
    ("ui-tars-1", "Action: type(content='hi', submit='false')", (act.Type("hi"),)),
    ("ui-tars-1", "Action: type(start_box='(500,500)', content='it\\'s')", (CLICK, act.Type("it's"))),
    ("ui-tars-1", "Action: type('hi')", (act.Type("hi"),)),
    ("ui-tars-1", "Action: input(text='hi')", (act.Type("hi"),)),
    ("ui-tars-1", "Action: type(content='click(start_box=\\'(1,1)\\')')", (act.Type("click(start_box='(1,1)')"),)),
    ("ui-tars-1", "Action: type(content='a')\nAction: hotkey(key='enter')", (act.Type("a"), act.Hotkey(("enter",)))),
    ("ui-tars-1", "Action: wait(5)", (act.Wait(5.0),)),
    ("ui-tars-1", "Action: wait(time=5s)", (act.Wait(5.0),)),
    ("ui-tars-1", "Action: scroll(start_box='(500,500)', direction=down)", (act.Scroll(*MIDDLE, "down"),)),
    ("ui-tars-1", "Action: scroll('down')", (act.Scroll(*MIDDLE, "down"),)),
    ("ui-tars-1", "Action: scroll_down(start_box='(500,500)')", (act.Scroll(*MIDDLE, "down"),)),
    ("ui-tars-1", "Action: drag(start_box='(0,0)', end_box='(500,500)', duration=1)", (act.Drag(0, 0, *MIDDLE),)),
    ("ui-tars-1", "Action: drag((0,0), (500,500))", (act.Drag(0, 0, *MIDDLE),)),
    ("ui-tars-1", "Action: drag(0, 0, 500, 500)", (act.Drag(0, 0, *MIDDLE),)),
    ("ui-tars-1", "Action: drag(start_box='(0,0)', end_box='<|box_start|>(500,500)<|box_end|>", (act.Drag(0, 0, *MIDDLE),)),
    ("ui-tars-1", "Action: finished(content='done'", (act.Finished("done"),)),
    ("ui-tars-1", "Action: finished", (act.Finished(""),)),
    ("ui-tars-1", "Action: press_home()\n", (act.PressHome(),), "mobile"),
    ("ui-tars-1", "Action: navigate_back()", (act.PressBack(),), "mobile"),
    ("ui-tars-1", "Action: keyup(key='shift')", (act.KeyUp(("shift",)),)),
    ("ui-tars-1", "Action: left_double(start_box='<bbox>500 500 500 500</bbox>')", (act.DoubleClick(*MIDDLE),)),
    ("ui-tars-1.5", "Action: click(start_box='<|box_start|>(966, 546)<|box_end|>')", (CLICK,)),
    ("ui-tars-1.5", "Action：click（start_box=“(966,546)”）", (CLICK,)),
    ("ui-tars-doubao", "Action: click(point='<point>500 500')", (CLICK,)),
    ("ui-tars-doubao", "Action: scroll(direction='down', point='<point>500 500</point>')", (act.Scroll(*MIDDLE, "down"),)),
    (
        "gui-owl-1.5",
        "<tool_call>\n<function=computer_use>\n<parameter=action>\nleft_click\n</parameter>\n"
        "<parameter=coordinate>\n[500, 500]\n</parameter>\n</function>\n</tool_call>",
        (CLICK,),
    ),
    (
        "fara-1.5",
        "<tool_call>\n<function=computer_use>\n<parameter=action>\ntype\n</parameter>\n"
        '<parameter=text>\na <b> "c"\n</parameter>\n</function>\n</tool_call>',
        (act.Type('a <b> "c"'),),
    ),
    ("fara-1.5", '<tool_call>\n```json\n{"name":"computer_use","arguments":{"action":"wait"}}\n```\n</tool_call>', (act.Wait(),)),
    (
        "gui-owl-1.5",
        '<tool_call>{"function": {"name":"computer_use","arguments":{"action":"left_click","coordinate":[500,500]}}}</tool_call>',
        (CLICK,),
    ),
    ("gui-owl-1.5", '<tool_call>{"name":"left_click","arguments":{"coordinate":[500,500]}}</tool_call>', (CLICK,)),
    (
        "gui-owl-1.5",
        '<tool_call>[{"name":"computer_use","arguments":{"action":"left_click","coordinate":[500,500]}}]</tool_call>',
        (CLICK,),
    ),
    ("gui-owl-1.5", 'Action: x\n{"action":"left_click","coordinate":[500,500]}', (CLICK,)),
    ("gui-owl-1.5", 'Action: x\n{"arguments":{"action":"left_click","coordinate":[500,500]},"name":"computer_use"}', (CLICK,)),
    (
        "gui-owl-1.5",
        'I use <tool_call> now.\n<tool_call>{"name":"computer_use","arguments":{"action":"left_click","coordinate":[500,500]}}</tool_call>',
        (CLICK,),
    ),
    (
        "gui-owl-1.5",
        '<think>Maybe <tool_call>{"name":"computer_use","arguments":{"action":"terminate"}}</tool_call>? No.</think>\n'
        '<tool_call>{"name":"computer_use","arguments":{"action":"left_click","coordinate":[500,500]}}</tool_call>',
        (CLICK,),
    ),
    (
        "gui-owl-1.5",
        '<tool_call>{"name":"computer_use","arguments":{"action":"left_click","coordinate":[500,500]}}\n{"name":"computer_use","arguments":{"action":"wait"}}</tool_call>',
        (CLICK, act.Wait()),
    ),
    (
        "gui-owl-1.5",
        "<tool_call>{'name': 'computer_use', 'arguments': {'action': 'type', 'text': 'a', 'enter': true}}</tool_call>",
        (act.Type("a", True),),
    ),
    ("gui-owl-1.5", call('{"action":"left_click","coordinate":[500,500,]}'), (CLICK,)),
    ("gui-owl-1.5", call('{"action":"left_click","x":"500","y":"500"}'), (CLICK,)),
    ("gui-owl-1.5", call('{"action":"left_click","coordinate":{"x":500,"y":500}}'), (CLICK,)),
    ("gui-owl-1.5", call('{"action":"left_click","point_2d":[500,500]}'), (CLICK,)),
    ("gui-owl-1.5", call('{"action":"left_click","bbox_2d":[400,400,600,600]}'), (CLICK,)),
    ("gui-owl-1.5", call('{"action":"left_click","coordinate":["500","500"]}'), (CLICK,)),
    ("gui-owl-1.5", call('{"action":"left_click","coordinate":"500, 500"}'), (CLICK,)),
    ("gui-owl-1.5", call('{"action":"left_click","coordinate":"the button"}'), None),
    (
        "gui-owl-1.5",
        call('{"action":"scroll","direction":"down","amount":5,"coordinate":[500,500]}'),
        (act.Scroll(*MIDDLE, "down", clicks=5),),
    ),
    (
        "gui-owl-1.5",
        call('{"action":"scroll","scroll_direction":"down","scroll_amount":5,"coordinate":[500,500]}'),
        (act.Scroll(*MIDDLE, "down", clicks=5),),
    ),
    ("gui-owl-1.5", call('{"action":"scroll_down","coordinate":[500,500]}'), (act.Scroll(*MIDDLE, "down"),)),
    ("gui-owl-1.5", call('{"action":"key","keys":"ctrl, c"}'), (act.Hotkey(("ctrl", "c")),)),
    ("gui-owl-1.5", call('{"action":"key","keys":["Ctrl+Shift","T"]}'), (act.Hotkey(("ctrl", "shift", "t")),)),
    ("gui-owl-1.5", call('{"action":"key","key":"Page Down"}'), (act.Hotkey(("pagedown",)),)),
    ("gui-owl-1.5", call('{"action":"type","text":"hi","submit":true}'), (act.Type("hi", True),)),
    ("gui-owl-1.5", call('{"action":"type","text":5}'), (act.Type("5"),)),
    ("gui-owl-1.5", call('{"action":"type","text":"a\\nb\\n"}'), (act.Type("a\nb", True),)),
    ("gui-owl-1.5", call('{"action":"answer","answer":"42"}'), (act.Finished("42"),)),
    ("gui-owl-1.5", call('{"action":"finished","content":"x"}'), (act.Finished("x"),)),
    (
        "gui-owl-1.5",
        call('{"action":"left_click_drag","start_coordinate":[0,0],"end_coordinate":[500,500]}'),
        (act.Drag(0, 0, *MIDDLE),),
    ),
    ("gui-owl-1.5", call('{"action":"drag","from":[0,0],"to":[500,500]}'), (act.Drag(0, 0, *MIDDLE),)),
    ("gui-owl-1.5", call('{"action":"drag","path":[[0,0],[500,500]]}'), (act.Drag(0, 0, *MIDDLE),)),
    ("gui-owl-1.5", call('{"action":"wait","time":"5 seconds"}'), (act.Wait(5.0),)),
    ("gui-owl-1.5", call('{"action":"Left_Click","coordinate":[500,500]}'), (CLICK,)),
    ("gui-owl-1.5", call('{"action":"leftClick","coordinate":[500,500]}'), (CLICK,)),
    (
        "gui-owl-1.5",
        call('{"action":"left_click","coordinate":[500,500]}') + "<|im_end|>\n<|im_start|>user\n<tool_response>ok</tool_response>",
        (CLICK,),
    ),
    ("gui-owl-1.5", call('{"action":"system_button","button":"Recents"}', "mobile_use"), (act.Hotkey(("recents",)),), "mobile"),
    ("gui-owl-1.5", call('{"action":"open_app","app_name":"Clock"}', "mobile_use"), (act.OpenApp("Clock"),), "mobile"),
    (
        "mai-ui",
        '<thinking>x</thinking><tool_call>{"name":"mobile_use","arguments":{"action":"long_press","coordinate":[499.5,499.5],"time":2}}</tool_call>',
        (act.LongPress(*MIDDLE, 2.0),),
    ),
    ("evocua", call('{"action":"key_down","keys":"shift"}'), (act.KeyDown(("shift",)),)),
    (
        "fara",
        call('{"action":"type","text":"x","coordinate":[966,546],"press_enter":"False","delete_existing_text":"true"}'),
        (CLICK, act.Hotkey(("ctrl", "a")), act.Hotkey(("backspace",)), act.Type("x")),
    ),
    ("opencua", code("pyautogui.PAUSE = 0.5\npyautogui.click(966, 546)"), (CLICK,)),
    ("opencua", code("pyautogui.FAILSAFE = False\npyautogui.click(966, 546)"), (CLICK,)),
    ("opencua", code("from time import sleep\npyautogui.click(966, 546)\nsleep(2)"), (CLICK, act.Wait(2.0))),
    ("opencua", code("pyautogui.click(966, 546)\nprint('done')"), (CLICK,)),
    ("opencua", code("computer.wait(3)"), (act.Wait(3.0),)),
    ("opencua", code("computer.wait(seconds=3)"), (act.Wait(3.0),)),
    ("opencua", code("computer.terminate('success')"), (act.Finished(""),)),
    ("opencua", code("for i in range(0, 2):\n    pyautogui.press('tab')"), (act.Hotkey(("tab",)),) * 2),
    ("opencua", code("pyautogui.click(x='966', y='546')"), (CLICK,)),
    ("opencua", code("pyautogui.hotkey('ctrl+c')"), (act.Hotkey(("ctrl", "c")),)),
    (
        "opencua",
        code("pyautogui.write(\"it's\", interval=0.1); pyautogui.press('enter')"),
        (act.Type("it's"), act.Hotkey(("enter",))),
    ),
    (
        "opencua",
        code("pyautogui.mouseDown(966, 546)\npyautogui.moveTo(0, 0)\npyautogui.mouseUp()"),
        (act.MouseDown(*MIDDLE), act.Hover(0, 0), act.MouseUp(0, 0)),
    ),
    ("opencua", code("pyautogui.click(966, 546)  # the button"), (CLICK,)),
    ("opencua", code("'''do it'''\npyautogui.click(966, 546)"), (CLICK,)),
    ("opencua", "## Code:\npyautogui.click(966, 546)\n", (CLICK,)),
    ("opencua", "```code\npyautogui.click(966, 546)\n```\n", (CLICK,)),
    ("opencua", "```Python\npyautogui.click(966, 546)\n```\nDone.", (CLICK,)),
    ("opencua", code("pyautogui.scroll(-5, 966, 546)"), (act.Scroll(*MIDDLE, "down", clicks=5),)),
    ("opencua", code("pyautogui.dragTo(966, 546, duration=0.5, button='left')"), (act.Drag(*MIDDLE, *MIDDLE),)),
    ("opencua", code("pyautogui.write('''a\nb''')"), (act.Type("a\nb"),)),
    ("opencua", code("pyautogui.press('num1')"), (act.Hotkey(("1",)),)),
    (
        "opencua",
        code("pyautogui.keyDown('ctrl')\npyautogui.press('c')\npyautogui.keyUp('ctrl')"),
        (act.KeyDown(("ctrl",)), act.Hotkey(("c",)), act.KeyUp(("ctrl",))),
    ),
    ("ui-venus-1.5", "<action>Click(500,500)</action>", (CLICK,)),
    ("ui-venus-1.5", "<action>\nClick(box=[500, 500])\n</action>", (CLICK,)),
    ("ui-venus-1.5", "<action>Click(box=(500,500)", (CLICK,)),
    ("ui-venus-1.5", "Click(box=(500,500))", (CLICK,)),
    ("ui-venus-1.5", "<think>t</think>Click(box=(500,500))", (CLICK,)),
    ("ui-venus-1.5", "<action>Click(box='(500,500)')</action>", (CLICK,)),
    ("ui-venus-1.5", "<action>Drag(start=(0,0), end=(500,500))</action>", (act.Drag(0, 0, *MIDDLE),)),
    (
        "ui-venus-1.5",
        "<action>Scroll(start=(500,500), end=(500,0), direction='down')</action>",
        (act.Scroll(*MIDDLE, "down", 960.0, 0.0),),
        "mobile",
    ),
    ("ui-venus-1.5", "<action>Wait(time=5)</action>", (act.Wait(5.0),)),
    ("ui-venus-1.5", "<action>PressBack()</action>", (act.PressBack(),), "mobile"),
    ("ui-venus-1.5", "<action>PressBack</action>", (act.PressBack(),), "mobile"),
    ("ui-venus-1.5", "<action>Launch(app='Clock', url='')</action>", (act.OpenApp("Clock"),), "mobile"),
    ("ui-venus-1.5", "<action>Type(content='it's')</action>", (act.Type("it's"),), "mobile"),
    ("ui-venus-1.5", "<action>Hotkey(keys=['ctrl','shift','t'])</action>", (act.Hotkey(("ctrl", "shift", "t")),)),
    ("ui-venus-1.5", "<action>Hotkey(keys='ctrl+c')</action>", (act.Hotkey(("ctrl", "c")),)),
]


@pytest.mark.parametrize("form", FORMS, ids=[f"{form[0]}-{n}" for n, form in enumerate(FORMS)])
def test_what_is_meant_is_done(form):
    family, reply, actions, *platform = form
    known = families()[family]
    seen = seen_size(SCREEN, known.defaults, known.factor)
    frame = Frame(*SCREEN, *known.units(SCREEN, seen, known.defaults), None, *(platform or known.platforms[:1]))
    if actions is None:
        with pytest.raises(InvalidActionError):
            known.parse(reply, frame)
    else:
        assert known.parse(reply, frame).actions == actions

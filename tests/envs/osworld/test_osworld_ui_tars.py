"""From the text that UI-TARS writes to what a real application on the desktop got: a web page that notes every event."""

import json
import time

import pytest

from envs.base import TaskSpec
from envs.osworld.env import OSWorldEnv
from policies.families.reply import Frame
from policies.families.ui_tars.parse import parse_reply

pytestmark = pytest.mark.docker

SCREEN = Frame(1920, 1080)  # the models of version 1 count 0-1000 in both directions
PAGE = """<!doctype html><meta charset="utf-8"><title>[]</title>
<style>body { margin: 0; width: 4000px; height: 4000px; background: #ddd }
textarea { position: fixed; left: 960px; top: 540px; width: 800px; height: 400px; font: 20px monospace }</style>
<textarea></textarea>
<script>
const seen = [];
let over = 0;
const note = (...what) => { seen.push(what); document.title = JSON.stringify({ over, seen: seen.slice(-12) }); };
for (const kind of ['click', 'dblclick', 'contextmenu', 'mousedown', 'mouseup'])
  addEventListener(kind, (e) => { note(kind, e.clientX, e.clientY); if (kind === 'contextmenu') e.preventDefault(); });
addEventListener('keydown', (e) => {
  if (document.activeElement === document.body) { note('key', e.key, e.ctrlKey, e.shiftKey); e.preventDefault(); } });
addEventListener('scroll', () => { over += 1; note('scroll', scrollX, scrollY); });
addEventListener('input', (e) => note('input', e.target.value));
addEventListener('load', () => note('load'));
</script>
"""


def reply(text):
    return parse_reply(f"Thought: Let me try.\nAction: {text}", SCREEN).actions


@pytest.fixture(scope="module")
def page(env):
    """Performs replies over a page that fills the screen, and returns what the page noted meanwhile."""
    client = env.guest.client
    client.upload("/home/user/events.html", PAGE.encode())
    client.launch(["chromium", "--kiosk", "file:///home/user/events.html"])

    def seen():
        title = next((row for row in client.execute(["wmctrl", "-l"]).output.splitlines() if '"seen"' in row), "")
        return json.loads(title[title.index("{") : title.rindex("}") + 1])["seen"] if title else []

    def settled(wanted):
        end = time.monotonic() + 60.0
        while not wanted(noted := seen()) and time.monotonic() < end:
            time.sleep(0.3)
        return noted

    assert settled(bool), "the browser shows the page"

    def perform(text, wanted):
        """What was noted since, once ``wanted`` is content with it or a minute has passed."""
        for action in reply(text):
            assert "invalid" not in env.step(action)[4]
        return settled(wanted)

    yield perform
    client.execute(["pkill", "chromium"])


def last(*kinds):
    return lambda noted: [event[0] for event in noted][-len(kinds) :] == list(kinds)


POINT, (X, Y) = "<|box_start|>(250,250)<|box_end|>", (480, 270)


def test_click(page):
    kinds = ("mousedown", "mouseup", "click")
    assert page(f"click(start_box='{POINT}')", last(*kinds))[-3:] == [[kind, X, Y] for kind in kinds]


def test_double_click(page):
    """Elsewhere than the click before it, which the browser would count as its first where less than half a second lies between."""
    kinds = ("mousedown", "mouseup", "click", "mousedown", "mouseup", "click", "dblclick")
    assert page("left_double(start_box='<|box_start|>(125,125)<|box_end|>')", last(*kinds))[-7:] == [
        [kind, 240, 135] for kind in kinds
    ]


def test_right_click(page):
    noted = page(f"right_single(start_box='{POINT}')", lambda noted: any(event[0] == "contextmenu" for event in noted[-3:]))
    assert ["contextmenu", X, Y] in noted[-3:] and not any(event[0] == "click" for event in noted[-3:])


def test_drag_begins_and_ends_where_it_should(page):
    noted = page(f"drag(start_box='{POINT}', end_box='<|box_start|>(375,400)<|box_end|>')", last("mousedown", "mouseup", "click"))
    assert noted[-3:-1] == [["mousedown", X, Y], ["mouseup", 720, 432]]


def test_hotkeys(page):
    noted = page("hotkey(key='ctrl shift k')", lambda noted: noted[-1][:2] == ["key", "K"])
    assert noted[-3:] == [["key", "Control", True, False], ["key", "Shift", True, True], ["key", "K", True, True]]
    assert page("hotkey(key='ctrl+e')", lambda noted: noted[-1][:2] == ["key", "e"])[-1] == ["key", "e", True, False]
    assert page("hotkey(key='pagedown')", lambda noted: noted[-1][1] == "PageDown")[-1] == ["key", "PageDown", False, False]


def test_scrolling_moves_the_page_in_four_directions(page):
    def at(direction, moved):
        text = f"scroll(start_box='{POINT}', direction='{direction}')"
        return page(text, lambda noted: noted[-1][0] == "scroll" and moved(*noted[-1][1:]))[-1]

    assert at("down", lambda x, y: y > 100)[1] == 0
    assert at("right", lambda x, y: x > 100)[2] > 100
    assert at("left", lambda x, y: x == 0)[1] == 0
    assert at("up", lambda x, y: y == 0)[1:] == [0, 0]


TEXTS = {
    "multi-line": (r"first\nsecond\n\nfourth", "first\nsecond\n\nfourth"),
    "less than": ("if (a < b && b > a) { <tag> }", "if (a < b && b > a) { <tag> }"),
    "quotes": (r"it\'s \"quoted\" \\ and `so` $(on)", 'it\'s "quoted" \\ and `so` $(on)'),
    "as many characters as there are spare keys": ((HAN := "".join(map(chr, range(0x4E00, 0x4E00 + 80)))), HAN),
    "Unicode": ("Grüße, 你好, Привет, naïve ½ – “€ 5” 😀", "Grüße, 你好, Привет, naïve ½ – “€ 5” 😀"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_typed_text_arrives_exactly(page, name):
    content, expected = TEXTS[name]
    page("click(start_box='<|box_start|>(700,650)<|box_end|>')", last("mousedown", "mouseup", "click"))
    page("hotkey(key='ctrl a')\n\nhotkey(key='delete')", bool)
    noted = page(f"type(content='{content}')", lambda noted: noted[-1] == ["input", expected])
    assert noted[-1] == ["input", expected]


def test_waiting_changes_nothing(page):
    before = page("hotkey(key='esc')", bool)
    assert page("wait()", bool) == before


@pytest.mark.parametrize(("text", "ended_by"), [("finished(content='All done.')", "finished"), ("call_user()", "fail")])
def test_the_end(provider, env, text, ended_by):
    visitor = OSWorldEnv(provider=provider, timing=env._timing)
    task = TaskSpec("agentlab/osworld-v0", "end", 0, max_steps=3, options={"instruction": "End."})
    visitor.reset(options={"task": task})
    _, reward, terminated, truncated, info = visitor.step(reply(text))
    assert (reward, terminated, truncated, info["ended_by"]) == (0.0, True, False, ended_by)
    visitor.close()

"""Every action on a real desktop, read back from what applications and the X server got."""

import re
import time

import pytest

from envs import actions as act
from envs.errors import InfrastructureError
from envs.osworld.address import AddressProvider
from envs.osworld.env import OSWorldEnv
from envs.osworld.ports import SERVER

pytestmark = pytest.mark.docker

TEXT = "Hello a < b > c & \"q\" 'x' \\ ~ ^ `\nsecond line\ttab é ß € Привет 你好 😀 naïve ½\nend $(touch /tmp/pwned); `id`"
WAIT_SECONDS = 120.0
ACTIVE_TITLE = "xprop -id $(xprop -root _NET_ACTIVE_WINDOW | grep -o '0x[0-9a-f]*' | head -1) _NET_WM_NAME"
XEV = (100, 150, 700, 500)  # x, y, width, height
HOLD_A = """
import time
from Xlib import X, XK, display
from Xlib.ext import xtest
d = display.Display()
code = d.keysym_to_keycode(XK.XK_a)
for event in (X.KeyPress, X.KeyRelease):
    xtest.fake_input(d, event, code)
    d.sync()
    time.sleep(1.5)
"""


def shell(client, line):
    return client.execute(["sh", "-c", line]).output


def until(what, seconds=WAIT_SECONDS):
    end = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < end:
        time.sleep(0.3)
    return found


def open_editor(client, name):
    shell(client, f"touch ~/{name}")
    client.open_file(f"/home/user/{name}")
    assert until(lambda: name in shell(client, ACTIVE_TITLE))
    client.wait_for_rest(WAIT_SECONDS)


def save(env, client, name):
    """Saves once the editor's title says that its text has changed: what goes through the clipboard arrives when it arrives."""
    assert until(lambda: re.search(rf"\*.*{name}", shell(client, ACTIVE_TITLE))), shell(client, ACTIVE_TITLE)
    client.wait_for_rest(WAIT_SECONDS)
    env.step(act.Hotkey(("ctrl", "s")))


def saved(client, path, expected):
    """The text of a file, once it is the expected one or it has been waited for."""

    def content():
        return (client.download(path) or b"").decode(errors="replace").removesuffix("\n")

    until(lambda: content() == expected)
    return content()


def close_all(client):
    shell(client, "pkill xev; pkill mousepad; pkill -x thunar; pkill -i xfce4-terminal; pkill chrome; true")
    assert until(lambda: "Mousepad" not in shell(client, "wmctrl -l"))


@pytest.fixture
def arrives(env, client):
    """Performs actions over a window that records every event, and asserts what ``read`` makes of the record: (event, detail, x, y)."""
    geometry = f"{XEV[2]}x{XEV[3]}+{XEV[0]}+{XEV[1]}"
    client.launch(["sh", "-c", f"xev -geometry {geometry} -event button -event keyboard > /tmp/xev.log"])
    assert until(lambda: "Event Tester" in shell(client, "wmctrl -l"))
    client.wait_for_rest(WAIT_SECONDS)

    def record():
        found = []
        for block in shell(client, "cat /tmp/xev.log").split("\n\n"):
            event = re.search(r"(ButtonPress|ButtonRelease|KeyPress|KeyRelease) event", block)
            at = re.search(r"root:\((\d+),(\d+)\)", block)
            detail = re.search(r"button (\d+)", block) or re.search(r"keysym 0x\w+, (\w+)\)", block)
            if event and at and detail:
                found.append((event[1], detail[1], int(at[1]), int(at[2])))
        return found

    def check(read, expected, action):
        before = len(record())
        assert "invalid" not in env.step(action)[4]
        until(lambda: read(record()[before:]) == expected)
        assert read(record()[before:]) == expected

    point = XEV[0] + 350, XEV[1] + 400
    check(buttons, [("Press", 1, *point), ("Release", 1, *point)], act.Click(*point))  # it has the focus from now on
    yield check
    close_all(client)


def buttons(found):
    return [(event.removeprefix("Button"), int(detail), x, y) for event, detail, x, y in found if event.startswith("Button")]


def keys(found):
    return [(event.removeprefix("Key"), detail.lower()) for event, detail, _, _ in found if event.startswith("Key")]


def test_clicks_arrive_where_and_as_often_as_asked(arrives):
    x, y = 400, 500
    arrives(buttons, [("Press", 1, x, y), ("Release", 1, x, y)], act.Click(x, y))
    arrives(buttons, [("Press", 1, x, y), ("Release", 1, x, y)] * 2, act.DoubleClick(x, y))
    arrives(buttons, [("Press", 3, x, y), ("Release", 3, x, y)], act.RightClick(x, y))
    arrives(buttons, [], act.Hover(x, y))
    arrives(buttons, [("Press", 1, x, y), ("Release", 1, x + 100, y - 50)], act.Drag(x, y, x + 100, y - 50))


def test_scroll_in_four_directions(arrives):
    for direction, button in (("up", 4), ("down", 5), ("left", 6), ("right", 7)):
        arrives(buttons, [("Press", button, 400, 500), ("Release", button, 400, 500)] * 5, act.Scroll(400, 500, direction))


def test_hotkeys_press_in_order_and_let_go_in_the_opposite(arrives):
    pressed = ["control_l", "shift_l", "k"]
    expected = [*(("Press", key) for key in pressed), *(("Release", key) for key in reversed(pressed))]
    arrives(keys, expected, act.Hotkey(("ctrl", "shift", "k")))


@pytest.mark.parametrize("own_route", [True, False], ids=["own guest", "any guest"])
def test_text_reaches_an_application_exactly(env, client, own_route):
    """Multi-line, ``<``, quotes, other scripts and emoji; and a shell's syntax stays text."""
    client._takes_operations = own_route
    try:
        open_editor(client, f"text-{own_route}.txt")
        env.step((act.Type(TEXT), act.Wait()))
        save(env, client, f"text-{own_route}.txt")
        assert saved(client, f"/home/user/text-{own_route}.txt", TEXT) == TEXT
        assert client.download("/tmp/pwned") is None
    finally:
        client._takes_operations = None
        close_all(client)


def test_a_key_that_a_busy_machine_lets_go_late_is_typed_once(env, client):
    open_editor(client, "held.txt")
    assert client.execute(["python3", "-c", HOLD_A]).returncode == 0
    save(env, client, "held.txt")
    assert saved(client, "/home/user/held.txt", "a") == "a"
    close_all(client)


def test_more_exotic_characters_than_spare_keys(env, client):
    text = "".join(chr(point) for point in range(0x4E00, 0x4E00 + 150))
    open_editor(client, "han.txt")
    env.step(act.Type(text))
    save(env, client, "han.txt")
    assert saved(client, "/home/user/han.txt", text) == text
    close_all(client)


@pytest.fixture(params=[True, False], ids=["own guest", "any guest"])
def either(request, client):
    """Input by our own guest's route, and as any other guest is given it."""
    client._takes_operations = request.param
    yield
    client._takes_operations = None
    close_all(client)


def test_submit_presses_enter_in_a_terminal(env, client, either):
    """O10: what is not ASCII was pasted with Ctrl+V, which a terminal does not take."""
    shell(client, "rm -f ~/out.txt")
    client.launch(["xfce4-terminal"])
    assert until(lambda: "Terminal" in shell(client, ACTIVE_TITLE))
    client.wait_for_rest(WAIT_SECONDS)
    env.step(act.Type("echo 'a<b|éПπ' > ~/out.txt", submit=True))
    assert saved(client, "/home/user/out.txt", "a<b|éПπ") == "a<b|éПπ"
    assert until(lambda: "a<b|éПπ" in (client.terminal() or ""))


def test_hotkeys_of_any_character(arrives, client, either):
    """O10: `<` was `>`, and an accented letter nothing."""
    for key, keysym in (("<", "less"), ("ç", "ccedilla"), ("+", "plus"), ("я", "u044f")):
        arrives(
            lambda found, keysym=keysym: [d for e, d in keys(found) if e == "Press" and d == keysym], [keysym], act.Hotkey((key,))
        )


def test_submit_goes_to_an_address_with_characters_beyond_ascii(env, client, either):
    """O10: Enter was never pressed."""
    page = "<title>Ünïcode page arrived</title>"
    client.upload("/home/user/pâge.html", f"<meta charset=utf-8>{page}".encode())
    client.launch(["google-chrome", "--new-window", "about:blank"])
    assert until(lambda: "Chromium" in shell(client, ACTIVE_TITLE))
    client.wait_for_rest(WAIT_SECONDS)
    env.step(act.Hotkey(("ctrl", "l")))
    env.step(act.Type("file:///home/user/pâge.html", submit=True))
    assert until(lambda: "Ünïcode page arrived" in shell(client, "wmctrl -l"), 60)
    shell(client, "pkill chrome; true")
    assert until(lambda: "Chromium" not in shell(client, "wmctrl -l"))


def test_double_click_opens_and_drag_moves_a_window(env, client):
    env.step(act.DoubleClick(73, 185))  # the home folder's icon
    assert until(lambda: "user - Thunar" in shell(client, ACTIVE_TITLE))
    client.wait_for_rest(WAIT_SECONDS)
    before = geometry(client, "Thunar")
    x, y = before[0] + before[2] // 2, before[1] - 10  # its title bar
    env.step(act.Drag(x, y, x + 120, y + 90))

    def moved():
        after = geometry(client, "Thunar")
        return after[0] - before[0], after[1] - before[1]

    until(lambda: moved() == (120, 90))
    assert moved() == (120, 90)
    close_all(client)


def geometry(client, title):
    line = next(row for row in shell(client, "wmctrl -lG").splitlines() if title in row)
    window = line.split()[0]
    info = shell(client, f"xwininfo -id {window}")
    values = (
        re.search(rf"{name}: +(-?\d+)", info)[1] for name in ("Absolute upper-left X", "Absolute upper-left Y", "Width", "Height")
    )
    return tuple(int(value) for value in values)


def test_right_click_opens_a_menu(env, client):
    before = client.accessibility_tree().count("<menu-item")
    env.step(act.RightClick(960, 700))
    assert until(lambda: client.accessibility_tree().count("<menu-item") > before)
    env.step(act.Hotkey(("esc",)))


def test_impossible_actions_cost_a_step_and_do_nothing(env):
    _, reward, terminated, _, info = env.step(act.Hotkey(("hyperdrive",)))
    assert "hyperdrive" in info["invalid"] and (reward, terminated) == (0.0, False)
    assert "invalid" in env.step(act.Click(5000, 5))[4]


def test_a_guest_at_an_address_is_used_as_it_is(env, guest):
    provider = AddressProvider(f"{guest.host}:{guest.ports[SERVER]}")
    visitor = OSWorldEnv(provider=provider, timing=env._timing)
    observation, _ = visitor.reset(seed=0)
    assert observation["screenshot"].shape == (1080, 1920, 3)
    visitor.close()
    assert guest.client.screen_size() == (1920, 1080), "it goes on"
    with pytest.raises(InfrastructureError, match="not usable"):
        AddressProvider("127.0.0.1:1", patience=0.0).acquire()

"""A black screen and a frozen one are failures of the machinery, whatever the episode came to; a plain page and a silent tree are not."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import httpx
import numpy as np
import pytest
import servers

from envs import actions as act
from envs.androidworld import addresses, sight
from envs.androidworld import upstream as upstream_client
from envs.androidworld.adb import SideDoor
from envs.androidworld.env import AndroidWorldEnv
from envs.androidworld.suite import make_spec
from envs.androidworld.upstream import UpstreamDevice
from envs.errors import InfrastructureError

WIFI_OFF = ((18, 24), (50, 16), (50, 18))
MOMENTS = ("before the attempt", "after its first look", "between two actions", "before the last one", "before it is declared done")
PHONE_FAULTS = ("blank", "frozen", "dead")
PLAIN = ([0, 0, 0], [255, 255, 255], [18, 52, 86])


@pytest.fixture(scope="module")
def brisk(tmp_path_factory):
    """Our server with a tenth of its bounds: a phone has half a second to draw a mark."""
    with servers.StandinServer("ours", tmp_path_factory.mktemp("brisk") / "phone", GUEST_PATIENCE="0.1") as server:
        yield server


@pytest.fixture(params=["brisk", "small_upstream"])
def server(request):
    made = request.getfixturevalue(request.param)
    made.control()
    yield made
    made.control()


def make(server, **options):
    return AndroidWorldEnv(provider=f"127.0.0.1:{server.port}", screen=server.size, **({"settle": "none"} | options))


def start(env, name="SystemWifiTurnOff"):
    return env.reset(options={"task": make_spec("android_world", name, 30)})


def episode(env, *, solve=True, trouble=None, moment=""):
    """The reward of an attempt at switching Wi-Fi off, with trouble from ``moment`` on."""

    def now(name):
        if trouble is not None and moment == name:
            trouble()

    now(MOMENTS[0])
    start(env)
    now(MOMENTS[1])
    for number, (x, y) in enumerate(WIFI_OFF if solve else (*WIFI_OFF[:2], (50, 99))):
        if number:
            now(MOMENTS[1 + number])
        env.step(act.Click(x * env.action_space.width / 100, y * env.action_space.height / 100))
    now(MOMENTS[4])
    return env.step(act.Finished())[1]


@pytest.mark.parametrize("solve", [True, False], ids=["solved", "unsolved"])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("fault", PHONE_FAULTS)
def test_a_phone_that_cannot_be_seen_is_machinery_and_is_used_again(server, fault, moment, solve, monkeypatch):
    """Neither a reward nor a zero comes of it, and once it has passed the same device goes on at once."""
    monkeypatch.setattr(addresses, "RESTART_SECONDS", 1.0)
    env = make(server)
    try:
        if (server.kind, fault, moment, solve) == ("upstream", "frozen", MOMENTS[4], True):
            # The agent has seen every step as it was, and the device itself is asked for the score.
            assert episode(env, trouble=lambda: server.control(frozen=True), moment=moment) == 1.0
            return
        with pytest.raises(InfrastructureError) as caught:
            episode(env, solve=solve, trouble=lambda: server.control(**{fault: True}), moment=moment)
        assert caught.value.component in ("emulator", "guest", "task", "grader"), caught.value
        server.control()
        assert episode(env) == 1.0
        assert episode(env, solve=False) == 0.0
    finally:
        env.close()


def test_how_many_troubles_of_the_phone_there_are():
    """With the 56 faults of the network before the servers (test_androidworld_faults.py) more than a hundred."""
    assert len(PHONE_FAULTS) * len(MOMENTS) * 2 * 2 + 56 >= 100


@pytest.mark.parametrize("colour", PLAIN, ids=["black", "white", "blue"])
def test_a_plain_page_is_a_page(server, colour):
    """In mid-episode and at its end: the attempt counts as it would, and the next one starts without a wait."""
    env = make(server)
    try:
        server.control(colour=colour)
        assert episode(env) == 1.0
        assert episode(env, solve=False) == 0.0
        env.close()
        env = make(server)  # a new run at the same address finds the phone with the plain page in front
        started = time.monotonic()
        assert episode(env) == 1.0
        assert time.monotonic() - started < 30
    finally:
        env.close()


def test_a_plain_page_left_behind_does_not_make_a_device_sick(brisk):
    env = make(brisk)
    start(env)
    env.step(act.OpenApp("Contacts"))
    brisk.control(colour=[0, 0, 0])
    assert httpx.get(f"{brisk.url}/screenshot", timeout=20, trust_env=False).status_code == 200
    health = httpx.get(f"{brisk.url}/health", timeout=20, trust_env=False).json()
    assert (health["state"], health["device"]["screen_drawn"]) == ("ready", False)
    env.close()
    brisk.control()


def test_an_agent_that_does_nothing_of_use_scores_zero_and_no_machinery_fails(server):
    """Pictures that no action changes are questioned, and found to be the phone's."""
    env = make(server)
    try:
        start(env)
        for _ in range(5):
            env.step(act.Click(env.action_space.width - 1, env.action_space.height - 1))
        assert env.step(act.Finished())[1] == 0.0
        start(env)
        assert env.step(act.Finished())[1] == 0.0
    finally:
        env.close()


def test_a_screen_that_timed_out_is_woken(brisk):
    env = make(brisk)
    try:
        first, _ = start(env)
        brisk.control(asleep=True)
        httpx.post(f"{brisk.url}/step", json={"actions": [{"type": "wait", "seconds": 0.0}]}, timeout=20, trust_env=False)
        seen = env.step(act.Wait())[0]["screenshot"]
        assert np.array_equal(seen, first["screenshot"]), "what the agent sees is what it left"
    finally:
        brisk.control()
        env.close()


def test_the_mark_leaves_no_trace_and_an_agents_own_setting_stays(brisk):
    env = make(brisk)
    try:
        first, _ = start(env)
        for setting in ("0", "1"):
            brisk.control(line=setting)
            before = env.step(act.Click(1, 399))[0]["screenshot"]
            after = env.step(act.Click(1, 399))[0]["screenshot"]
            assert np.array_equal(before, after), setting
            assert np.array_equal(first["screenshot"], after) == (setting == "0")
        again, _ = start(env)
        assert np.array_equal(first["screenshot"], again["screenshot"]), "an attempt begins without it"
    finally:
        brisk.control()
        env.close()


def test_the_line_that_android_env_switches_on_is_not_on_what_an_agent_sees(tmp_path):
    """Upstream's agents switch it off before they look; a server that was just started has it on."""
    with servers.StandinServer("ours", tmp_path / "phone", GUEST_PATIENCE="0.1") as server:
        assert picture_of(server)[0, 0].tolist() == [230, 230, 230], "the first attempt is still to begin"
        env = make(server)
        seen = start(env)[0]["screenshot"]
        env.close()
        assert seen[0, 0].tolist() != [230, 230, 230]


def picture_of(server):
    answer = httpx.get(f"{server.url}/screenshot", params={"format": "raw"}, timeout=20, trust_env=False)
    return np.frombuffer(answer.content, np.uint8).reshape(server.size[1], server.size[0], 3)


# -- a silent accessibility service ------------------------------------------------------------------------------------------------
def test_looks_need_no_accessibility_service(brisk):
    """A policy that sees pictures plays as if nothing had happened (upstream's own look takes 10-23 s and fails)."""
    env = make(brisk, settle="stable")
    try:
        took = {}
        for silent in (False, True):
            brisk.control(no_tree=silent)
            started = time.monotonic()
            assert episode(env) == 1.0
            took[silent] = time.monotonic() - started
        assert took[True] < took[False] + 0.5 * 5, took  # five looks
    finally:
        brisk.control()
        env.close()


def test_a_look_at_a_silent_tree_is_over_in_half_a_second(brisk):
    brisk.control(no_tree=True)
    started = time.monotonic()
    query = {"stable": False, "tree": True, "format": "none"}
    error = httpx.get(f"{brisk.url}/observation", params=query, timeout=20, trust_env=False).json()["error"]
    assert error["code"] == "tree_failed" and time.monotonic() - started < 0.5 + 0.5
    env = make(brisk, accessibility=True)
    monkeyed = pytest.MonkeyPatch()
    monkeyed.setattr("envs.androidworld.ours.TREE_PAUSE_SECONDS", 0.05)
    try:
        with pytest.raises(InfrastructureError, match="tree_failed"):
            start(env)  # the policy wants the elements: without them it is the machinery that fails
        brisk.control()
        assert "Settings" in start(env)[0]["accessibility_tree"]
    finally:
        monkeyed.undo()
        brisk.control()
        env.close()


# -- the parts ---------------------------------------------------------------------------------------------------------------------
def test_one_odd_pixel_anywhere_is_a_drawn_screen():
    """On both sides of the wire; the guest's module needs OpenCV only to encode."""
    script = (
        "import sys, types; sys.modules['cv2'] = types.SimpleNamespace(**dict.fromkeys("
        "['IMWRITE_PNG_COMPRESSION', 'IMWRITE_PNG_STRATEGY', 'IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY', 'IMWRITE_WEBP_QUALITY'], 0))\n"
        "import numpy as np\nfrom guest.screens import is_drawn\n"
        "plain = np.full((2400, 1080, 3), 7, np.uint8); odd = plain.copy(); odd[1203, 541, 2] = 8\n"
        "print(is_drawn(plain), is_drawn(odd), is_drawn(None), is_drawn(plain[:0]))"
    )
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(servers.GUEST), *sys.path])}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["False", "True", "False", "False"], done.stderr
    plain = np.full((2400, 1080, 3), 7, np.uint8)
    odd = plain.copy()
    odd[1203, 541, 2] = 8
    assert sight.one_colour(plain) and not sight.one_colour(odd)


class Inside:
    """A container with upstream's server: its adb, over a phone that may be black, frozen or asleep."""

    def __init__(self, **state):
        self.state = {"mark": "0", "asleep": False, "blank": False, "frozen": False} | state
        self.commands = []

    def execute(self, command, seconds):
        words = command[4:] if command[3] == "shell" else command[3:]
        self.commands.append(words)
        state = self.state
        out = b""
        if words[0] == "exec-out":
            out = self.picture()
        elif words[:2] == ["dumpsys", "power"]:
            out = b"  mWakefulness=Asleep\n" if state["asleep"] else b"  mWakefulness=Awake\n"
        elif words[:2] == ["settings", "get"]:
            out = state["mark"].encode() + b"\n"
        elif words[:2] == ["settings", "put"]:
            state["mark"] = words[-1]
        elif words == ["input", "keyevent", "KEYCODE_WAKEUP"]:
            state["asleep"] = False
        return 0, out, b""

    def picture(self):
        import io

        from PIL import Image

        state, shown = self.state, Image.new("RGB", (6, 9))
        if not (state["blank"] or state["asleep"]):
            shown.putpixel((2, 3), (255, 0, 0))
            if state["mark"] == "1" and not state["frozen"]:
                shown.putpixel((0, 0), (9, 9, 9))
        buffer = io.BytesIO()
        shown.save(buffer, "PNG")
        return buffer.getvalue()


@pytest.mark.parametrize("fault", ["blank", "frozen"])
def test_behind_the_side_door_the_phone_is_asked_at_once(monkeypatch, fault):
    monkeypatch.setattr(sight, "MARK_SECONDS", 0.3)
    inside = Inside()
    device = UpstreamDevice("127.0.0.1", 1, SideDoor(inside))
    look = device.look(tree=False, settle=False)
    assert not any("settings" in words for words in inside.commands), "a picture that nobody doubts costs nothing more"
    inside.state[fault] = True
    device.perform({"type": "key", "key": "KEYCODE_BACK"})
    with pytest.raises(InfrastructureError, match="single colour" if fault == "blank" else "frozen"):
        device.look(tree=False, settle=False)
    assert inside.state["mark"] == "0"
    inside.state[fault] = False
    device.perform({"type": "key", "key": "KEYCODE_BACK"})
    assert np.array_equal(device.look(tree=False, settle=False).screenshot, look.screenshot)
    device.attest()
    inside.state["asleep"] = True
    assert np.array_equal(device.look(tree=False, settle=False).screenshot, look.screenshot) and not inside.state["asleep"]


def test_before_a_bare_upstream_server_doubts_wait_for_the_end(small_upstream, monkeypatch):
    asked = []
    real = upstream_client.UpstreamDevice._slow_picture

    def counted(self, settle):
        asked.append(settle)
        return real(self, settle)

    monkeypatch.setattr(upstream_client.UpstreamDevice, "_slow_picture", counted)
    env = make(small_upstream)
    assert episode(env) == 1.0
    assert len(asked) == 5, "four steps and a start; nothing was in doubt"
    env.close()

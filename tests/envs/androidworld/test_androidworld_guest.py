"""Our guest server over the stand-in phone: what it shows, what it does, what it refuses."""

import base64
import io
import threading

import httpx
import numpy as np
import pytest
from PIL import Image

WIFI_SWITCH = [{"type": "open_app", "name": "Settings"}, {"type": "tap", "x": 90, "y": 64}, {"type": "tap", "x": 90, "y": 72}]
"""Settings, its first row, its switch, on a screen of 180x400."""


class Guest(httpx.Client):
    """The server with a few words for what the tests do all the time."""

    def ok(self, path, **body):
        reply = self.post(path, json=body)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def do(self, *actions, tree=True, **more):
        return self.ok("/step", actions=list(actions), observe={"format": "none", "stable": False, "tree": tree}, **more)[
            "observation"
        ]

    def refused(self, path, status, code, **body):
        reply = self.post(path, json=body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (status, code), reply.text
        return reply.json()["error"]

    def texts(self):
        elements = self.get("/observation", params={"format": "none", "stable": False, "tree": True}).json()["ui_elements"]
        return [element.get("text", element.get("hint_text", "")) for element in elements]

    def form(self):
        self.do({"type": "open_app", "name": "contacts"}, {"type": "tap", "x": 156, "y": 360})

    def typed(self, **text):
        """What stands in the first field after an action of type text."""
        self.form()
        elements = self.do({"type": "text", **text})["ui_elements"]
        return next(e for e in elements if e.get("hint_text") == "First name").get("text", "")


@pytest.fixture
def guest(ours):
    ours.control()
    with Guest(base_url=ours.url, timeout=120, trust_env=False) as client:
        client.ok("/task/tear_down")
        client.ok("/restore", name="clean")
        yield client


def picture(data):
    return np.asarray(Image.open(io.BytesIO(data)))


# -- looking ---------------------------------------------------------------------------------------------------------------------
def test_who_it_is(guest):
    version = guest.get("/version")
    assert version.headers["x-agentlab-guest"] == "androidworld/1"
    assert version.json()["upstream"] == {"revision": "d9c569f764b3a5629321858de03ff653d0f24056", "android_env": "1.2.3"}
    health = guest.get("/health").json()
    assert (health["state"], health["phase"], health["code"], health["attempt"]) == ("ready", "ready", "", None)
    assert health["device"]["answers"] and health["device"]["screen_drawn"] and health["boot"] == version.json()["boot"]
    assert guest.get("/screen").json() == {
        "width": 180, "height": 400, "orientation": 0, "device_width": 180, "device_height": 400,
        "foreground": {"activity": "com.google.android.apps.nexuslauncher/.NexusLauncherActivity",
                       "package": "com.google.android.apps.nexuslauncher", "app": ""},
    }  # fmt: skip


def test_pictures_are_the_screen_without_loss(guest):
    png, webp, raw = (guest.get("/screenshot", params={"format": f}) for f in ("png", "webp", "raw"))
    assert (png.headers["content-type"], webp.headers["content-type"]) == ("image/png", "image/webp")
    assert png.headers["x-screen-width"] == "180" and picture(png.content).shape == (400, 180, 3)
    assert np.array_equal(picture(png.content), picture(webp.content))
    assert np.array_equal(picture(png.content), np.frombuffer(raw.content, np.uint8).reshape(400, 180, 3))
    assert picture(png.content).std() > 20


def test_an_observation_has_what_was_asked_for(guest):
    plain = guest.get("/observation", params={"stable": False}).json()
    assert plain["ui_elements"] is None and plain["stable"] is None and plain["screenshot"]["format"] == "png"
    assert picture(base64.b64decode(plain["screenshot"]["data"])).shape == (400, 180, 3)
    full = guest.get("/observation", params={"format": "webp", "tree": True}).json()
    assert full["stable"] is True and full["screen"]["width"] == 180
    settings = next(e for e in full["ui_elements"] if e.get("text") == "Settings")
    assert settings["bbox_pixels"] == {"x_min": 18, "x_max": 47, "y_min": 80, "y_max": 116} and settings["is_clickable"]
    assert [e["index"] for e in full["ui_elements"]] == list(range(len(full["ui_elements"])))


def test_a_silent_accessibility_service_does_not_cost_the_picture(guest, ours):
    ours.control(no_tree=True)
    look = guest.get("/observation", params={"stable": False}).json()
    assert look["screenshot"]["height"] == 400


# -- doing -----------------------------------------------------------------------------------------------------------------------
def test_a_tap_goes_to_what_is_there(guest):
    look = guest.do({"type": "tap", "x": 33, "y": 98})
    assert look["screen"]["foreground"] == {
        "activity": "com.android.settings/.Settings",
        "package": "com.android.settings",
        "app": "settings",
    }
    assert "Network & internet" in guest.texts()


def test_keys(guest):
    guest.do({"type": "open_app", "name": "settings"}, {"type": "tap", "x": 90, "y": 64})
    assert "Wi-Fi" in guest.texts()
    assert "Network & internet" in [e.get("text") for e in guest.do({"type": "key", "key": "back"})["ui_elements"]][:4]
    assert guest.do({"type": "key", "key": "KEYCODE_HOME"})["screen"]["foreground"]["package"].endswith("launcher")


def test_scroll_shows_what_lies_in_its_direction(guest):
    guest.do({"type": "open_app", "name": "settings"})
    assert "Network & internet" in guest.texts() and "System" not in guest.texts()
    guest.do(*[{"type": "scroll", "direction": "down"}] * 2)
    assert "System" in guest.texts() and "Network & internet" not in guest.texts()
    guest.do(*[{"type": "scroll", "direction": "up", "x": 90, "y": 100, "distance": 0.7}] * 3)
    assert "Network & internet" in guest.texts()


def test_a_swipe_moves_the_finger_as_told(guest):
    guest.do(
        {"type": "open_app", "name": "settings"},
        {"type": "swipe", "x": 90, "y": 300, "end_x": 90, "end_y": 100, "duration_ms": 400},
    )
    assert "Network & internet" not in guest.texts()


def test_long_press_double_tap_and_drag(guest):
    about = guest.do({"type": "long_press", "x": 33, "y": 98})
    assert "about" in about["screen"]["foreground"]["activity"] or "Welcome to Settings" in guest.texts()
    guest.form()
    guest.do({"type": "text", "text": "wrong"}, {"type": "double_tap", "x": 90, "y": 76}, {"type": "text", "text": "right"})
    assert "right" in guest.texts() and "wrongright" not in guest.texts()
    guest.do({"type": "key", "key": "home"}, {"type": "drag", "x": 33, "y": 98, "end_x": 72, "end_y": 98})
    assert guest.do({"type": "tap", "x": 72, "y": 98})["screen"]["foreground"]["app"] == "settings"


@pytest.mark.parametrize(
    "text",
    [
        "plain words",
        "100%s of it",
        "%",
        "a 'b' \"c\" $HOME `x` \\ ; | & < > ( ) # * ? ~",
        "-n 5",
        "x" * 150,
        "Grüße",
        "日本語 ok",
        "🙂 %s",
    ],
)
def test_any_text_arrives(guest, text):
    assert guest.typed(text=text) == text


def test_typing_ends_with_enter_only_when_told(guest):
    guest.form()
    guest.do({"type": "text", "text": "Ann\nLee"}, {"type": "text", "text": "x", "submit": True}, {"type": "text", "text": "5"})
    assert {"Ann", "Leex", "5"} <= set(guest.texts())
    assert guest.typed(text="one") == "one"
    elements = guest.do({"type": "text", "text": "two", "clear": True})["ui_elements"]
    assert next(e for e in elements if e.get("hint_text") == "First name")["text"] == "two"


def test_pasting_leaves_the_clipboard_as_it_was(guest):
    guest.form()
    guest.do({"type": "text", "text": "é"}, {"type": "text", "text": "ü"}, {"type": "key", "key": "paste"})
    assert "éü" in guest.texts()  # what stood on the clipboard before, nothing, was pasted last


@pytest.mark.parametrize(
    "name", ["Settings", "settings app", "Simple Calendar Pro", "SIMPLE  gallery pro", "tasks", "com.android.settings"]
)
def test_applications_by_the_names_people_use(guest, name):
    package = guest.do({"type": "open_app", "name": name})["screen"]["foreground"]["package"]
    assert package.split(".")[-1] in {"settings", "pro", "tasks"}


@pytest.mark.parametrize("name", ["Wallet", "Igloo", "Screen Recorder", "VLC", "Calendar"])
def test_an_application_that_is_not_there_is_refused(guest, name):
    error = guest.refused(
        "/step", 400, "unknown_app", actions=[{"type": "tap", "x": 33, "y": 98}, {"type": "open_app", "name": name}]
    )
    assert name in error["message"]
    assert "Network & internet" not in guest.texts()  # the tap before it was not executed either


BAD = [
    {"type": "fly"}, {}, "tap", {"type": "tap", "x": 1}, {"type": "tap", "x": 180, "y": 5}, {"type": "tap", "x": -1, "y": 5},
    {"type": "tap", "x": "5", "y": 5}, {"type": "tap", "x": True, "y": 5}, {"type": "tap", "x": 1, "y": 1, "z": 1},
    {"type": "swipe", "x": 1, "y": 1, "end_x": 1, "end_y": 400},
    {"type": "swipe", "x": 1, "y": 1, "end_x": 2, "end_y": 2, "duration_ms": 0},
    {"type": "scroll", "direction": "sideways"}, {"type": "scroll", "direction": "up", "distance": 2}, {"type": "key", "key": "power"},
    {"type": "key", "key": "KEYCODE_POWER"}, {"type": "key", "key": "KEYCODE_A; rm -rf /"}, {"type": "keys", "keys": []},
    {"type": "text", "text": 5}, {"type": "text", "text": "\x00"}, {"type": "wait", "seconds": 1e9}, {"type": "open_app", "name": ""},
    {"type": "upstream", "action": {"action_type": "drag_and_drop"}}, {"type": "upstream", "action": {"nonsense": 1}},
]  # fmt: skip


@pytest.mark.parametrize("action", BAD, ids=str)
def test_a_bad_action_is_the_callers_mistake_and_does_nothing(guest, action):
    before = guest.texts()
    guest.refused("/step", 400, "bad_action", actions=[{"type": "open_app", "name": "settings"}, action])
    assert guest.texts() == before


def test_upstreams_own_actions(guest):
    guest.do({"type": "upstream", "action": {"action_type": "open_app", "app_name": "settings"}})
    guest.do({"type": "upstream", "action": {"action_type": "scroll", "direction": "down"}})
    assert "Network & internet" not in guest.texts()
    guest.refused("/step", 400, "bad_action", actions=[{"type": "upstream", "action": {"action_type": "click", "index": 999}}])


def test_bad_requests(guest):
    guest.refused("/reset", 400, "bad_request")
    guest.refused("/step", 400, "bad_request", actions=[])
    guest.refused("/step", 400, "bad_request", actions=[{"type": "wait"}] * 17)
    guest.refused("/snapshot", 400, "bad_request", name="../etc")
    guest.refused("/snapshot", 400, "bad_request", name="clean")
    guest.refused("/restore", 404, "unknown_snapshot", name="nothing")
    guest.refused("/task/initialize", 404, "unknown_task", task="SystemWifiTurnOf")
    guest.refused("/task/initialize", 404, "unknown_family", task="SystemWifiTurnOff", family="ios")
    guest.refused("/task/initialize", 400, "bad_request", task="SystemWifiTurnOff", index=-1)
    assert guest.post("/step", content=b"{").json()["error"]["code"] == "bad_request"
    assert guest.get("/screenshot", params={"format": "bmp"}).status_code == 400
    assert guest.get("/nowhere").json()["error"]["code"] == "unknown_route"
    assert guest.get("/step").status_code == 405
    assert "SystemWifiTurnOff" in guest.get("/task", params={"task": "SystemWifiTurnOf"}).json()["error"]["detail"]["near"]


def test_snapshots(guest):
    attempt = guest.ok("/task/initialize", task="SystemWifiTurnOff")["attempt"]
    guest.do({"type": "open_app", "name": "settings"})
    guest.ok("/snapshot", name="in-settings")
    guest.do({"type": "key", "key": "home"})
    assert {"clean", "in-settings"} <= set(guest.get("/snapshots").json()["snapshots"])
    guest.ok("/restore", name="in-settings")
    assert "Network & internet" in guest.texts()
    guest.refused("/task/score", 409, "no_task", attempt=attempt)


def test_requests_at_the_same_time_wait_for_each_other(guest):
    replies = []

    def look():
        replies.append(guest.get("/observation", params={"stable": False}).status_code)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies == [200] * 8


def test_health_answers_while_the_phone_is_busy(guest):
    step = threading.Thread(target=guest.ok, args=("/step",), kwargs={"actions": [{"type": "wait", "seconds": 4.0}]})
    step.start()
    seen = []
    while step.is_alive():
        seen.append(guest.get("/health").json())
    step.join()
    busy = [health["operation"]["name"] for health in seen if health["operation"]]
    assert "step" in busy and all(health["state"] == "ready" for health in seen)

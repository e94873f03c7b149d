"""Upstream's environment interface over the stand-in phone: pictures, UI elements, actions."""

from __future__ import annotations

import dataclasses
import re
import shlex
import time
import unicodedata
from types import SimpleNamespace
from typing import Any

from standin.state import APPS, Node
from standin.world import CommandError, World

ACTIVITIES = {
    "google chrome|chrome": APPS["Chrome"], "settings|system settings": APPS["Settings"],
    "youtube|yt": "com.google.android.youtube/.Main", "gmail|gemail|google mail": "com.google.android.gm/.Main",
    "google maps|gmaps|maps|google map": "com.google.android.apps.maps/.Main",
    "google photos|gphotos|photos": "com.google.android.apps.photos/.Main", "google calendar|gcal": "com.google.android.calendar/.Main",
    "camera": APPS["Camera"], "audio recorder": "com.dimowner.audiorecorder/.Main",
    "google drive|drive": "com.google.android.apps.docs/.Main",
    "clock": APPS["Clock"], "google search|google": "com.google.android.googlequicksearchbox/.Main", "contacts": APPS["Contacts"],
    "wa": "com.whatsapp/.Main", "android world": "com.example.androidworld/.Main", "files": APPS["Files"], "markor": APPS["Markor"],
    "clipper": APPS["Clipper"], "messages": "com.google.android.apps.messaging/.Main",
    "simple sms messenger|simple sms": "com.simplemobiletools.smsmessenger/.Main", "dialer|phone": "com.google.android.dialer/.Main",
    "simple calendar pro|simple calendar": APPS["Calendar"], "simple gallery pro|simple gallery": APPS["Gallery"],
    "miniwob": "com.google.androidenv.miniwob/.Main", "simple draw pro": "com.simplemobiletools.draw.pro/.Main",
    "pro expense": "com.arduia.expense/.Main", "broccoli": "com.flauschcode.broccoli/.Main", "osmand": APPS["OsmAnd"],
    "tasks|task": APPS["Tasks"], "open tracks|opentracks": "de.dennisguse.opentracks/.Main", "joplin": "net.cozic.joplin/.Main",
    "vlc": "org.videolan.vlc/.Main", "retro music|retro": "code.name.monkey.retromusic/.Main",
}  # fmt: skip
"""The form of upstream's table: names that may begin with this -> activity.  Most of these applications are not on the phone."""
TYPES = (
    "click", "double_tap", "scroll", "swipe", "input_text", "navigate_home", "navigate_back", "keyboard_enter", "open_app", "status",
    "wait", "long_press", "answer", "unknown",
)  # fmt: skip


SILENT_READS = 5


class AdbControllerError(Exception):
    """Called like the error of android_env that upstream's tasks raise."""


class Controller:
    """The phone's adb and its pictures."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.env = self._original_env = self
        self._picture: Any = None
        world.phone.state.settings["system"]["pointer_location"] = "1"  # so android_env leaves a phone that it connects to

    def reset(self) -> None:
        """android_env's: a new episode on the same phone."""

    def accumulate_new_extras(self) -> dict[str, Any]:
        """What the accessibility service has sent: nothing, where it is silent."""
        self.world.misbehave()
        return {} if self.world.control().get("no_tree") else {"accessibility_tree": [self.world.phone]}

    def get_ui_elements(self) -> list[Element]:
        """As `uiautomator dump`, which needs no service."""
        return elements_of(self.world.phone)

    def step(self, action: Any) -> Any:
        """android_env's: a picture, or the last one again in a step that calls itself the last."""
        try:
            self._picture, ended = self.world.picture(), False
        except CommandError:
            ended = True
        return SimpleNamespace(last=lambda: ended, observation={"pixels": self._picture})

    def adb(self, *arguments: str) -> str:
        """What a task calls: output, or an error that nobody catches."""
        try:
            return self.world.execute(list(arguments))
        except CommandError as error:
            raise AdbControllerError(str(error)) from error


@dataclasses.dataclass
class Element:
    """A UI element; fields that are None are not there."""

    text: str | None
    content_description: str | None
    hint_text: str | None
    is_clickable: bool
    is_editable: bool
    is_checked: bool
    bbox_pixels: Any

    @classmethod
    def of(cls, node: Node) -> Element:
        left, top, right, bottom = node.box
        box = SimpleNamespace(x_min=left, x_max=right, y_min=top, y_max=bottom)
        clickable, editable = node.tap is not None, node.kind == "field"
        return cls(node.text or None, node.desc or None, node.hint or None, clickable, editable, node.checked, box)


def elements_of(phone: Any, exclude_invisible_elements: bool = True) -> list[Element]:
    """Upstream's ``forest_to_ui_elements``, with the phone for a forest."""
    return [Element.of(node) for node in phone.nodes()]


@dataclasses.dataclass
class JSONAction:
    """Upstream's action: what it takes, what it refuses and how it prints, by its recorded answers."""

    action_type: str | None = None
    index: Any = None
    x: Any = None
    y: Any = None
    text: Any = None
    direction: str | None = None
    goal_status: str | None = None
    app_name: str | None = None
    keycode: str | None = None
    clear_text: bool | None = None

    def __post_init__(self) -> None:
        if self.action_type not in TYPES:
            raise ValueError(f"no action type {self.action_type!r}")
        if self.index is not None and (self.x is not None or self.y is not None):
            raise ValueError("an index or a place, not both")
        if self.direction and self.direction not in ("left", "right", "down", "up"):
            raise ValueError(f"no direction {self.direction!r}")

    def __repr__(self) -> str:
        given = {k: f"{v:.3f}" if isinstance(v, float) else v for k, v in dataclasses.asdict(self).items() if v is not None}
        return f"JSONAction({', '.join(f'{name}={value!r}' for name, value in given.items())})"


class AsyncEnv:
    """What upstream's tasks and servers are given."""


class AsyncAndroidEnv(AsyncEnv):
    """Upstream's environment over :class:`Controller`."""

    orientation = 0

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.interaction_cache = ""
        phone = controller.world.phone
        self.device_screen_size = self.logical_screen_size = (phone.width, phone.height)

    @property
    def foreground_activity_name(self) -> str:
        focus = self.controller.adb("shell", "dumpsys window | grep mCurrentFocus")
        return focus.split()[-1].rstrip("}") if focus else ""

    def reset(self, go_home: bool = False) -> Any:
        if go_home:
            self.controller.adb("shell", "input keyevent KEYCODE_HOME")
        self.interaction_cache = ""
        return self.get_state()

    def get_state(self, wait_to_stabilize: bool = False) -> Any:
        timestep = self.controller.step(None)
        if timestep.last():
            raise RuntimeError("no picture")
        for _ in range(SILENT_READS):
            if not self.controller.world.control().get("no_tree"):
                elements = elements_of(self.controller.world.phone)
                return SimpleNamespace(pixels=timestep.observation["pixels"], ui_elements=elements)
            time.sleep(1.0)  # as upstream waits for a silent service
        raise RuntimeError("no accessibility tree")

    def close(self) -> None: ...

    def execute_action(self, action: JSONAction) -> None:
        """As upstream's actuation: coordinates for taps, the whole screen for strokes, Enter after every text."""
        if action.action_type == "answer":
            self.interaction_cache = action.text
        elif action.action_type == "wait":
            time.sleep(1.0)
        elif action.action_type not in ("status", "unknown"):
            self.get_state()  # upstream's reads the elements before every action
            for command in self._commands(action):
                self.controller.adb("shell", command)

    def _commands(self, action: JSONAction) -> list[str]:
        kind = action.action_type
        if kind in ("click", "double_tap", "long_press"):
            x, y = self._place(action)
            stroke = f"input swipe {x} {y} {x} {y} 1000"
            return [stroke] if kind == "long_press" else [f"input tap {x} {y}"] * (2 if kind == "double_tap" else 1)
        if kind in ("scroll", "swipe"):
            return [self._stroke(action)]
        if kind == "input_text":
            return [*self._focus(action), *typing(action.text or ""), _ENTER]
        if kind == "open_app":
            return [launch(action.app_name)]
        return [f"input keyevent {_KEYS[kind or '']}"]

    def _focus(self, action: JSONAction) -> list[str]:
        return [] if action.x is None else [f"input tap {int(action.x)} {int(action.y)}"]

    def _place(self, action: JSONAction) -> tuple[int, int]:
        if action.index is not None:
            box = self.get_state().ui_elements[int(action.index)].bbox_pixels
            return (box.x_min + box.x_max) // 2, (box.y_min + box.y_max) // 2
        if action.x is None or action.y is None:
            raise ValueError("a place has an x and a y")
        return int(action.x), int(action.y)

    def _stroke(self, action: JSONAction) -> str:
        """A scroll goes from the middle to an edge, against its direction; a swipe from edge to edge."""
        width, height = self.logical_screen_size
        x, y = width // 2, height // 2
        if action.action_type == "scroll":
            ends = {"up": (x, height), "down": (x, 0), "left": (width, y), "right": (0, y)}
            return "input swipe {} {} {} {}".format(x, y, *ends[action.direction or ""])
        edges = {"up": (x, height, x, 0), "down": (x, 0, x, height), "left": (0, y, width, y), "right": (width, y, 0, y)}
        return "input swipe {} {} {} {} 500".format(*edges[action.direction or ""])


_ENTER = "input keyevent KEYCODE_ENTER"
_KEYS = {"navigate_home": "KEYCODE_HOME", "navigate_back": "KEYCODE_BACK", "keyboard_enter": "KEYCODE_ENTER"}


def typing(text: str) -> list[str]:
    """Commands that type what of a text is ASCII, word by word; the rest is dropped, as upstream's is."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    words = [word for word in re.split(r"([\n ])", plain) if word]
    return [_ENTER if word == "\n" else f"input text {'%s' if word == ' ' else shlex.quote(word)}" for word in words]


def launch(name: str | None) -> str:
    """Upstream's matcher: the first pattern that the name begins with; where none is, a package of that name, or nothing."""
    if not name:
        raise ValueError("no application is named")
    for pattern, activity in ACTIVITIES.items():
        if name.lower().startswith(tuple(pattern.split("|"))):
            return f"am start -n {activity}"
    return f"monkey -p {name} 1"

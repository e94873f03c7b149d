"""The phone: what it shows and what is done to it, over upstream's environment interface.

Screens come from the environment below upstream's wrappers and need no accessibility service: a policy that sees pictures waits for
none, and a screen comes to rest by its pictures.  UI elements are read from the service only where they are asked for.  Nothing here is
safe to call from two threads: :mod:`guest.worker` sees to it.
"""

from __future__ import annotations

import base64
import dataclasses
import time
from typing import Any

import numpy as np
from android_env.components import action_type
from android_env.proto import adb_pb2
from android_world.env import adb_utils, interface, json_action, representation_utils

from guest import actions as act
from guest import apps, screens, typing_text
from guest.errors import GuestError
from guest.sight import GLANCE_MARK_S, Sight

STABLE_READS, STABLE_PAUSE_S, STABLE_TIMEOUT_S = 3, 0.5, 6.0
"""Upstream's notion of a screen at rest: this many equal reads, this far apart, at most this long."""
STABLE_SHARE = 0.001
"""Two pictures of which at most this share of the pixels differs are equal: a cursor blinks, a clock moves on."""
TREE_S, TREE_POLL_S = 0.4, 0.1
"""How long one look waits for a silent accessibility service.  (Upstream: five times a second, then it reconnects, 10-23 s.)"""


@dataclasses.dataclass(frozen=True)
class Look:
    """What an observation is to hold."""

    image_format: str = "png"  # "none" for no picture
    stable: bool = True
    tree: bool = False


class Device:
    """Everything the server does with the phone.

    Args:
        env: Upstream's environment.
        clipboard: For text that is not ASCII.
        ui_tree: "none" if UI elements are unavailable.
        patience: Factor of every bound.
    """

    def __init__(self, env: interface.AsyncEnv, clipboard: typing_text.Clipboard, ui_tree: str, patience: float = 1.0) -> None:
        self.env = env
        self.clipboard = clipboard
        self._ui_tree = ui_tree
        self._installed: set[str] | None = None
        self.sight = Sight(self, patience)
        self.frame: Any = None
        self.frame_at = float("-inf")

    # -- what it shows ---------------------------------------------------------------------------------------------------------
    def pixels(self) -> Any:
        """The screen now, uint8 RGB, shape [height, width, 3]."""
        lift = {
            "action_type": np.array(action_type.ActionType.LIFT, dtype=np.int32),
            "touch_position": np.array((0.0, 0.0), dtype=np.float32),
        }
        timestep = self.env.controller._original_env.step(lift)  # the wrapper above it fetches UI elements too
        if timestep.last():  # android_env gives its last picture again when it gets none
            raise GuestError("action_failed", "The phone gave no new picture.")
        self.frame, self.frame_at = timestep.observation["pixels"], time.monotonic()
        return self.frame

    def look(self, stable: bool) -> Any:
        """The picture for a client: at rest, if ``stable``, and certainly the phone's own.

        Raises:
            GuestError: screen_blank, screen_frozen.
        """
        return self.sight.vouch(self.at_rest(with_tree=False)[0] if stable else self.pixels())

    def glance(self) -> bool:
        """Whether the screen is drawn, found out within a second or two."""
        if not screens.is_drawn(self.pixels()):
            self.sight.prove(GLANCE_MARK_S)
        return True

    def observe(self, look: Look) -> dict[str, Any]:
        """The reply of /observation: picture (base64, as bytes), size, foreground and, when asked for, UI elements."""
        started = time.monotonic()
        with_tree = look.tree and self._ui_tree != "none"
        pixels, elements, stable = self.at_rest(with_tree) if look.stable else (*self._read(with_tree), None)
        pixels = self.sight.vouch(pixels)
        height, width = pixels.shape[:2]
        screenshot = None
        if look.image_format != "none":
            data = base64.b64encode(screens.encode(pixels, look.image_format))
            screenshot = {"format": look.image_format, "width": width, "height": height, "data": data}
        return {
            "screenshot": screenshot,
            "screen": {"width": width, "height": height, "foreground": self.foreground()},
            "ui_elements": [_element(index, e) for index, e in enumerate(elements)] if look.tree and elements is not None else None,
            "stable": stable,
            "seconds": round(time.monotonic() - started, 4),
        }

    def _read(self, with_tree: bool) -> tuple[Any, list[Any] | None]:
        return self.pixels(), self._elements() if with_tree else None

    def _elements(self) -> list[Any]:
        """Upstream's UI elements now.

        Raises:
            GuestError: tree_failed, after :data:`TREE_S` of silence.
        """
        if self._ui_tree == "uiautomator":
            return self.env.controller.get_ui_elements()
        deadline = time.monotonic() + TREE_S
        while True:
            try:
                forest = self.env.controller.env.accumulate_new_extras()["accessibility_tree"][-1]
            except (KeyError, IndexError):
                if time.monotonic() + TREE_POLL_S > deadline:
                    raise GuestError("tree_failed", f"The accessibility service gave no UI elements in {TREE_S:g} s.") from None
                time.sleep(TREE_POLL_S)
                continue
            return representation_utils.forest_to_ui_elements(forest, exclude_invisible_elements=True)

    def at_rest(self, with_tree: bool) -> tuple[Any, list[Any] | None, bool]:
        """(pixels, elements or None, whether the screen came to rest): reads until several in a row are equal."""
        deadline = time.monotonic() + STABLE_TIMEOUT_S
        equal, before, pixels, elements = 0, None, None, None
        while True:
            started = time.monotonic()
            pixels, elements = self._read(with_tree)
            now: Any = elements if with_tree else pixels
            alike = now == before if with_tree else screens.same(now, before, STABLE_SHARE)
            equal = equal + 1 if before is not None and alike else 1
            before = now
            if equal >= STABLE_READS or time.monotonic() >= deadline:
                return pixels, elements, equal >= STABLE_READS
            time.sleep(max(0.0, min(STABLE_PAUSE_S - (time.monotonic() - started), deadline - time.monotonic())))

    def foreground(self) -> dict[str, str]:
        """Activity, package and, where the benchmark knows one, name of the application in front."""
        activity = self.env.foreground_activity_name
        return {"activity": activity, "package": activity.split("/")[0], "app": apps.name_of(activity)}

    def screen(self) -> dict[str, Any]:
        """The reply of /screen."""
        width, height = self.env.logical_screen_size
        device_width, device_height = self.env.device_screen_size
        return {
            "width": width,
            "height": height,
            "orientation": self.env.orientation,
            "device_width": device_width,
            "device_height": device_height,
            "foreground": self.foreground(),
        }

    def size(self) -> tuple[int, int]:
        """(width, height) of the picture, pixels."""
        height, width = (self.pixels() if self.frame is None else self.frame).shape[:2]
        return width, height

    # -- what is done to it ----------------------------------------------------------------------------------------------------
    def shell(self, command: str, timeout_s: float = 20.0) -> str:
        """Run a command in the phone's shell and return its output.

        Raises:
            GuestError: action_failed, if the command fails.
        """
        reply = adb_utils.issue_generic_request(["shell", command], self.env.controller, timeout_sec=timeout_s)
        if reply.status != adb_pb2.AdbResponse.Status.OK:
            reason = reply.error_message.strip().splitlines()
            raise GuestError("action_failed", f"The phone refused {command.split()[0]!r}: {reason[0] if reason else reply.status}")
        return reply.generic.output.decode("utf-8", "replace")

    def check(self, actions: list[Any]) -> None:
        """Refuse what cannot be executed here, before anything is.

        Raises:
            GuestError: bad_action, unknown_app.
        """
        width, height = self.size()
        for action in actions:
            act.check_on_screen(action, width, height)
            if isinstance(action, act.OpenApp):
                self._activity_of(action.name)
            elif isinstance(action, act.Upstream):
                _upstream(action)

    def execute(self, action: Any) -> None:
        """Execute one checked action.

        Raises:
            GuestError: action_failed; bad_action for an element index that upstream does not have.
        """
        if not isinstance(action, act.Answer):
            self.sight.acted()
        if isinstance(action, act.Scroll):
            action = action.stroke(*self.size())
        command = _command(action)
        if command is not None:
            self.shell(command)
        elif isinstance(action, act.Text):
            if action.clear:
                self.shell("input keycombination KEYCODE_CTRL_LEFT KEYCODE_A && input keyevent KEYCODE_DEL")
            typing_text.type_text(action.text + ("\n" if action.submit else ""), self.shell, self.clipboard)
        elif isinstance(action, act.OpenApp):
            self._open(self._activity_of(action.name))
        elif isinstance(action, act.Wait):
            time.sleep(action.seconds)
        elif isinstance(action, act.Answer):
            self.env.execute_action(json_action.JSONAction(action_type=json_action.ANSWER, text=action.text))
        else:
            self._execute_upstream(action)

    def _execute_upstream(self, action: act.Upstream) -> None:
        try:
            self.env.execute_action(_upstream(action))
        except (ValueError, IndexError) as error:  # what upstream raises for an index that is not on the screen
            raise GuestError("bad_action", f"Upstream refuses the action: {error}") from error

    def _activity_of(self, name: str) -> str:
        """Asks the phone for its packages once, and again before a name is refused."""
        try:
            return apps.activity_of(name, self._installed or set())
        except GuestError:
            self._installed = set(adb_utils.get_all_package_names(self.env.controller))
            return apps.activity_of(name, self._installed)

    def _open(self, activity: str) -> None:
        if "/" not in activity:
            self.shell(f"monkey -p {activity} -c android.intent.category.LAUNCHER 1")
            return
        reply = adb_utils.start_activity(activity, extra_args=[], env=self.env.controller, timeout_sec=15)
        if reply.status != adb_pb2.AdbResponse.Status.OK:
            raise GuestError("action_failed", f"The phone did not start {activity}: {reply.error_message}")

    def reset(self, home: bool) -> None:
        """As upstream's reset: the home key, if ``home``, and no answer; without upstream's wait for UI elements, which may be silent."""
        if home:
            self.shell("input keyevent KEYCODE_HOME")
        self.env.interaction_cache = ""
        self.env.controller.env.reset()
        self.sight.begin()


def _command(action: Any) -> str | None:
    """The shell command of an action that is one: whole numbers and key names only."""
    points = " ".join(f"{x} {y}" for x, y in action.points()) if isinstance(action, act.Pointed) else ""
    if isinstance(action, act.Tap):
        return f"input tap {points}"
    if isinstance(action, act.DoubleTap):
        return f"input tap {points} && input tap {points}"
    if isinstance(action, act.LongPress):
        return f"input swipe {points} {points} {action.duration_ms}"
    if isinstance(action, act.Swipe):
        return f"input swipe {points} {action.duration_ms}"
    if isinstance(action, act.Drag):
        return f"input draganddrop {points} {action.duration_ms}"
    if isinstance(action, act.Key):
        return f"input keyevent {act.keycode(action.key)}"
    if isinstance(action, act.Keys):
        return f"input keycombination {' '.join(act.keycode(k) for k in action.keys)}"
    return None


def _upstream(action: act.Upstream) -> json_action.JSONAction:
    try:
        return json_action.JSONAction(**action.action)
    except (TypeError, ValueError, AttributeError) as error:
        raise GuestError("bad_action", f"Upstream's JSONAction refuses the fields: {error}") from error


def _element(index: int, element: Any) -> dict[str, Any]:
    """Upstream's UIElement as JSON, without what is not set."""
    fields = {
        k: v for k, v in dataclasses.asdict(element).items() if v is not None and k not in ("bbox", "metadata", "bbox_pixels")
    }
    box = element.bbox_pixels
    if box is not None:
        fields["bbox_pixels"] = {"x_min": box.x_min, "x_max": box.x_max, "y_min": box.y_min, "y_max": box.y_max}
    return {"index": index, **fields}

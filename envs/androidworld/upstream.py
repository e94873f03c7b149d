"""Client of upstream's own server (``server/android_server.py``), with its traps closed where that can be done from outside.

What stays open: without a side door a picture costs 35 MB of JSON and about half a minute, text always ends with Enter and loses what
is not ASCII (refused here), and there is no swipe between points.  Every error but a malformed query is "500 Internal Server Error",
so whatever is sent is checked here first, and a 500 always is a failure of the machinery.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np

from envs.androidworld import sight
from envs.androidworld.adb import SideDoor
from envs.androidworld.device import Device, Instance, Look
from envs.androidworld.gestures import FINGER, Operation, sendable
from envs.base import Screenshot
from envs.connection import Connection, Response
from envs.errors import InfrastructureError, InvalidActionError, UsageError

SECONDS = {
    "/health": 60.0, "/reset": 60.0, "/screenshot": 180.0, "/execute_action": 60.0, "/task/initialize": 310.0, "/task/tear_down": 130.0,
    "/task/score": 130.0, "/suite/reinitialize": 60.0,
}  # fmt: skip
"""Generous: its handlers block each other, so that even /health waits behind a picture."""
SETTLE_SECONDS = 6.0
"""As long as upstream itself waits for a screen to come to rest."""
SETTLE_POLL_SECONDS = 0.5
SAME_SHARE = 0.001
"""Two pictures of which less than this share of the pixels differs are equal: a cursor blinks, a clock moves on."""
SLOW = "a picture takes about half a minute"
NO_STROKES = "no swipe between two points: every stroke becomes a scroll over the whole screen"
PRESSES = "a long press takes a second, whatever is asked for"
ENTER = "every text ends with Enter"
ASCII = "only ASCII can be typed"


class UpstreamDevice(Device):
    """An emulator behind upstream's server; with ``door`` it is in a container of ours."""

    kind = "upstream"

    def __init__(self, host: str, port: int, door: SideDoor | None = None) -> None:
        self._connection = Connection(host, port, keep_alive=False)  # after each of its 500s it hangs up
        self.address = self._connection.address
        self._door = door
        self._active: dict[str, Any] | None = None
        self._suite: dict[str, Any] | None = None
        self._doubts = sight.Doubts()
        self.limits = (ASCII,) if door else (SLOW, NO_STROKES, PRESSES, ENTER, ASCII)

    def missing(self) -> str:
        try:
            answer = self._connection.send("GET", "/health", seconds=SECONDS["/health"])
            known = answer.status == 200 and self._connection.json(answer, "/health").get("status") == "success"
        except InfrastructureError as error:
            return error.message
        return "" if known else f"it does not answer like an AndroidWorld server (HTTP {answer.status}: {answer.text(80)})"

    def alive(self) -> str:
        """Its /health answers for a dead emulator too; going home needs a living one."""
        try:
            self._ask("POST", "/reset", {"go_home": "true"})
        except InfrastructureError as error:
            return error.message
        return ""

    def begin(self, instance: Instance, *, restore: bool) -> str:
        if restore:
            raise UsageError("Upstream's server cannot restore a snapshot.", "Leave androidworld.restore at never.")
        self.end()
        # Information-retrieval tasks reword their own parameters when they are initialised: the same object is not the same
        # instance twice, a new one is.  Of the others the object is kept, because MarkorCreateFolder's has the time of its making
        # in it.  Index i does not depend on how many instances there are.
        suite = {"n_task_combinations": instance.index + 1, "seed": instance.seed, "task_family": instance.family}
        if suite != self._suite or instance.task.answers:
            self._suite = None
            self._ask("GET", "/suite/reinitialize", suite)
            self._suite = suite
        task = {"task_type": instance.name, "task_idx": instance.index}
        self._doubts.acted()
        self._active = task  # a task that raises half-way counts as initialised: it must be torn down
        try:
            self._ask("POST", "/task/initialize", task, component="task")
            self._ask("POST", "/reset", {"go_home": str(not instance.task.miniwob).lower()})
            if self._door is not None:  # its environment has switched the line of coordinates on, which its agents switch off
                self._door.shell(["settings", "put", *sight.MARK, "0"])
            goal = self._ask("GET", "/task/goal", task).get("goal")  # tasks reword their goal when they are initialised
        except InfrastructureError:
            self._end_quietly()
            raise
        if not isinstance(goal, str):
            raise self._connection.failed("/task/goal", f"no goal but {goal!r}")
        return goal

    def look(self, *, tree: bool, settle: bool) -> Look:
        door = self._door
        picture = self._slow_picture(settle) if door is None else self._at_rest(door) if settle else door.screenshot()
        if self._doubts.look(picture) and door is not None:
            picture = sight.prove(door.shell, door.screenshot)
        return Look(picture, "[]" if tree else None)

    def attest(self) -> None:
        """Without a side door nothing can be asked of the phone while an episode goes on: doubts are settled here."""
        if self._door is not None:
            sight.prove(self._door.shell, self._door.screenshot)
            return
        doubted, self._doubts.last = self._doubts.last, None
        if doubted is None:
            return
        self._ask("POST", "/reset", {"go_home": "true"})
        home = self._slow_picture(False)
        if sight.one_colour(home):
            raise sight.not_drawn(home)
        if np.array_equal(home, doubted):  # it may have been at home all the time
            self._ask("POST", "/execute_action", {}, json={"action_type": "open_app", "app_name": "settings"})
            if np.array_equal(self._slow_picture(True), home):
                raise sight.not_drawn(home)

    def _slow_picture(self, settle: bool) -> Screenshot:
        reply = self._ask("GET", "/screenshot", {"wait_to_stabilize": str(settle).lower()})
        try:
            picture = np.asarray(reply["pixels"])
            if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype.kind not in "iu":
                raise ValueError(f"shape {picture.shape}")
        except (KeyError, ValueError) as error:
            raise self._connection.failed("/screenshot", f"no picture ({error})") from error
        return picture.astype(np.uint8)

    @staticmethod
    def _at_rest(door: SideDoor) -> Screenshot:
        until = time.monotonic() + SETTLE_SECONDS
        before = door.screenshot()
        while time.monotonic() < until:
            time.sleep(SETTLE_POLL_SECONDS)
            now = door.screenshot()
            if now.shape == before.shape and float(np.mean(np.any(now != before, axis=2))) < SAME_SHARE:
                return now
            before = now
        return before

    def perform(self, operation: Operation) -> None:
        self._doubts.acted()
        if operation["type"] == "wait":
            time.sleep(float(operation["seconds"]))  # its own wait is one second, always
            return
        if self._door is not None and self._door.perform(operation):
            return
        self._ask("POST", "/execute_action", {}, json=to_json_action(operation))

    def answer(self, text: str) -> None:
        self._ask("POST", "/execute_action", {}, json={"action_type": "answer", "text": sendable(text)})

    def over(self) -> bool:
        return self._scored() == 1.0  # a page that ended in failure cannot be told from one that goes on

    def score(self) -> float:
        score = self._scored()
        # Upstream's checks take an emulator that is gone for a task that is not done; /reset needs a living one.
        self._ask("POST", "/reset", {"go_home": "true"})
        return score

    def _scored(self) -> float:
        if self._active is None:
            raise InfrastructureError("No task is initialised.", component="grader")
        score = self._ask("GET", "/task/score", self._active, component="grader").get("score")
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            raise self._connection.failed("/task/score", f"no score in [0, 1] but {score!r}", "grader")
        return float(score)

    def end(self) -> None:
        active, self._active = self._active, None
        if active is not None:
            suite, self._suite = self._suite, None  # objects that could not be torn down are not used again
            self._ask("POST", "/task/tear_down", active)
            self._suite = suite

    def close(self) -> None:
        self._connection.close()

    # -- HTTP ------------------------------------------------------------------------------------------------------------------
    def _end_quietly(self) -> None:
        try:
            self.end()
        except InfrastructureError:
            return  # what made the task fail is what to report; the next attempt makes new objects anyway

    def _ask(self, method: str, route: str, query: dict[str, Any], *, component: str = "", **request: Any) -> dict[str, Any]:
        answer: Response = self._connection.send(method, route, seconds=SECONDS.get(route, 30.0), params=query, **request)
        if answer.status != 200:
            raise self._connection.failed(route, f"HTTP {answer.status}: {answer.text()}", component)
        return self._connection.json(answer, route)


def to_json_action(operation: Operation) -> dict[str, Any]:
    """Upstream's JSONAction for an operation.

    Raises:
        InvalidActionError: it has none.
    """
    match operation:
        case {"type": "tap", "x": x, "y": y}:
            return {"action_type": "click", "x": x, "y": y}
        case {"type": "double_tap" | "long_press" as kind, "x": x, "y": y}:
            return {"action_type": kind, "x": x, "y": y}
        case {"type": "swipe", "x": x, "y": y, "end_x": end_x, "end_y": end_y}:
            return {"action_type": "scroll", "direction": _shown(end_x - x, end_y - y)}
        case {"type": "text", "text": "", "submit": True}:
            return {"action_type": "keyboard_enter"}
        case {"type": "text", "text": text}:
            return _input_text(str(text))
        case {"type": "key", "key": key} if key in _KEYS:
            return {"action_type": _KEYS[str(key)]}
        case {"type": "open_app", "name": name}:
            return {"action_type": "open_app", "app_name": name}
    raise InvalidActionError(f"Upstream's server has no action for {json.dumps(operation)[:100]}.")


_KEYS = {"KEYCODE_HOME": "navigate_home", "KEYCODE_BACK": "navigate_back", "KEYCODE_ENTER": "keyboard_enter"}


def _shown(dx: float, dy: float) -> str:
    """The direction whose content a finger that moves by (dx, dy) brings into view: the longer axis decides."""
    wanted = (0, (dy > 0) - (dy < 0)) if abs(dy) >= abs(dx) else ((dx > 0) - (dx < 0), 0)
    for direction, finger in FINGER.items():
        if finger == wanted:
            return direction
    raise InvalidActionError("A swipe that ends where it begins goes nowhere.")


def _input_text(text: str) -> dict[str, Any]:
    if not text.isascii():
        bad = " ".join(sorted({c for c in text if not c.isascii()}))
        raise InvalidActionError(f"Upstream's server cannot type {bad[:60]!r}: it would be dropped.")
    if "%s" in text:
        raise InvalidActionError("Upstream's server cannot type '%s': it would be a blank.")
    return {"action_type": "input_text", "text": text}

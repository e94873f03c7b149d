"""Client of our own guest server (``dockerfiles/androidworld``): exact gestures, lossless pictures, errors that say whose they are."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import numpy as np

from envs.androidworld.device import Device, Instance, Look
from envs.androidworld.gestures import Operation, sendable
from envs.base import Screenshot
from envs.connection import Connection, Response
from envs.errors import InfrastructureError, InvalidActionError, UsageError

HEADER = "X-Agentlab-Guest"
PROTOCOL = 1
SECONDS = {
    "/health": 8.0, "/screenshot": 35.0, "/observation": 35.0, "/step": 70.0, "/task/initialize": 310.0, "/task/score": 130.0,
    "/task/tear_down": 130.0, "/version": 10.0,
}  # fmt: skip
"""How long each route may take: a little longer than the server's own bound, so that its reason arrives."""
BUSY_SECONDS = 60.0
"""How long an operation of an earlier, given-up request is waited for."""
AGENT_ERRORS = ("bad_action", "unknown_app")
COMPONENTS = {"task_setup_failed": "task", "task_score_failed": "grader", "no_task": "grader"}
EMULATOR_ERRORS = ("starting", "boot_failed", "device_dead", "device_stalled", "screen_blank", "screen_frozen", "closed")
TREE_LOOKS, TREE_PAUSE_SECONDS = 5, 1.0
"""How often UI elements that are wanted are asked for, where the accessibility service is silent: as often as upstream's does."""


class OurDevice(Device):
    """An emulator behind our guest server."""

    kind = "ours"

    def __init__(self, host: str, port: int) -> None:
        self._connection = Connection(host, port)
        self.address = self._connection.address
        self._attempt = ""
        self._patience = 1.0

    def missing(self) -> str:
        try:
            status, health = self._health()
        except InfrastructureError as error:
            return error.message
        if status == 200 and health.get("state") == "ready":
            return ""
        return str(health.get("detail") or f"the emulator is {health.get('state', 'in an unknown state')}")

    def alive(self) -> str:
        return self.revive()

    def revive(self) -> str:
        """A phone that was left with a black or plain screen is brought home: what an application shows is not a failure of the device."""
        try:
            state = self._health()[1].get("state")
            if state in ("blank", "frozen"):
                self._ask("/reset", {"home": True})
        except InfrastructureError as error:
            return error.message
        return self.missing()

    def begin(self, instance: Instance, *, restore: bool) -> str:
        self._attempt = ""
        request = {
            "family": instance.family, "task": instance.name, "seed": instance.seed, "index": instance.index,
            "restore": "clean" if restore else None,
        }  # fmt: skip
        reply = self._ask("/task/initialize", request)
        goal, attempt = reply.get("goal"), reply.get("attempt")
        if not isinstance(goal, str) or not isinstance(attempt, str) or not attempt:
            raise self._connection.failed("/task/initialize", f"no goal or no attempt: {json.dumps(reply)[:200]}")
        if reply.get("index") != instance.index or reply.get("task") != instance.name:
            raise self._connection.failed("/task/initialize", f"another instance: {reply.get('task')} {reply.get('index')}")
        self._attempt = attempt
        return goal

    def look(self, *, tree: bool, settle: bool) -> Look:
        query = {"format": "raw", "stable": str(settle).lower()}
        route = "/observation" if tree else "/screenshot"
        try:
            if not tree:
                return Look(_pixels(self._send(route, query, method="GET")))
            reply = self._with_tree(route, query | {"tree": "true"})  # both of one moment, the picture in base64
            return Look(_decoded(reply["screenshot"]), json.dumps(reply.get("ui_elements") or []))
        except (KeyError, TypeError, ValueError) as error:
            raise self._connection.failed(route, f"no picture ({error})") from error

    def _with_tree(self, route: str, query: dict[str, str]) -> dict[str, Any]:
        for _ in range(TREE_LOOKS - 1):
            try:
                return self._ask(route, query, method="GET")
            except InfrastructureError as error:
                if "tree_failed" not in error.message:
                    raise
                time.sleep(TREE_PAUSE_SECONDS)
        return self._ask(route, query, method="GET")

    def perform(self, operation: Operation) -> None:
        reply = self._ask("/step", {"actions": [operation], "observe": None, "attempt": self._attempt})
        if reply.get("executed") != 1:
            raise self._connection.failed("/step", f"executed {reply.get('executed')!r} of 1 actions")

    def answer(self, text: str) -> None:
        self.perform({"type": "answer", "text": sendable(text)})

    def over(self) -> bool:
        return bool(self._scored().get("terminated"))

    def score(self) -> float:
        score = self._scored().get("score")
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            raise self._connection.failed("/task/score", f"no score in [0, 1] but {score!r}", "grader")
        return float(score)

    def attest(self) -> None:
        # The server asks the phone after every score; a later death, or an episode that is not scored, is seen here.
        reason = self.missing()
        if reason:
            raise self._connection.failed("/health", f"{reason}: the end of the episode says nothing", "emulator")

    def _scored(self) -> dict[str, Any]:
        reply = self._ask("/task/score", {"attempt": self._attempt})
        if reply.get("attempt") != self._attempt:
            raise self._connection.failed("/task/score", "the score of another attempt", "grader")
        return reply

    def end(self) -> None:
        attempt, self._attempt = self._attempt, ""
        if attempt:
            self._ask("/task/tear_down", {"attempt": attempt})

    def close(self) -> None:
        self._connection.close()

    def _health(self) -> tuple[int, dict[str, Any]]:
        answer = self._connection.send("GET", "/health", seconds=SECONDS["/health"])
        health = self._connection.json(answer, "/health")
        patience = health.get("patience", 1.0)
        if isinstance(patience, int | float) and 1 <= patience <= 1000:  # a server whose bounds are longer is waited for as long
            self._patience = float(patience)
        return answer.status, health

    # -- HTTP ------------------------------------------------------------------------------------------------------------------
    def _ask(self, route: str, content: dict[str, Any], *, method: str = "POST") -> dict[str, Any]:
        """As :meth:`_send`, for a reply that is a JSON object."""
        return self._connection.json(self._send(route, content, method=method), route)

    def _send(self, route: str, content: dict[str, Any], *, method: str) -> Response:
        """A reply of status 200; a busy server is asked again until its operation is over."""
        until = time.monotonic() + BUSY_SECONDS
        request = {"params": content} if method == "GET" else {"json": content}
        while True:
            answer = self._connection.send(method, route, seconds=SECONDS.get(route, 30.0) * self._patience, **request)
            if answer.status == 200:
                return answer
            code, message = self._error(answer)
            if code != "busy" or time.monotonic() > until:
                raise self._typed(route, answer.status, code, message)
            time.sleep(0.5)

    def _error(self, answer: Response) -> tuple[str, str]:
        try:
            error = json.loads(answer.body)["error"]
            return str(error["code"]), str(error["message"])
        except (ValueError, KeyError, TypeError):
            return "", answer.text()

    def _typed(self, route: str, status: int, code: str, message: str) -> Exception:
        if status == 400 and code in AGENT_ERRORS:
            return InvalidActionError(message)
        if code == "unknown_snapshot":
            return UsageError(message, "The emulator behind this server has no snapshot; leave androidworld.restore at never.")
        component = COMPONENTS.get(code, "emulator" if code in EMULATOR_ERRORS else "guest")
        return self._connection.failed(route, f"HTTP {status} {code}: {message}", component)


def _pixels(answer: Response) -> Screenshot:
    """The picture of /screenshot: bare bytes, which cost a copy on the loopback interface where PNG costs 0.1 s.

    Raises:
        KeyError, ValueError: it is not a picture.
    """
    if answer.headers.get("Content-Type") != "application/octet-stream":
        raise ValueError(f"{answer.headers.get('Content-Type')}: {answer.text(80)!r}")
    height, width = int(answer.headers["X-Screen-Height"]), int(answer.headers["X-Screen-Width"])
    return np.frombuffer(answer.body, np.uint8).reshape(height, width, 3)


def _decoded(screenshot: dict[str, Any]) -> Screenshot:
    """The picture of an observation, in base64.

    Raises:
        KeyError, TypeError, ValueError: it is not a picture.
    """
    data = base64.b64decode(screenshot["data"], validate=True)
    return np.frombuffer(data, np.uint8).reshape(int(screenshot["height"]), int(screenshot["width"]), 3)


def protocol_of(host: str, port: int) -> str:
    """``ours`` or ``upstream``: which server listens there.

    Raises:
        InfrastructureError: nothing that speaks HTTP does.
        UsageError: our server, of another version of the protocol.
    """
    connection = Connection(host, port)
    try:
        answer = connection.send("GET", "/health", seconds=SECONDS["/health"])
        spoken = answer.headers.get(HEADER, "")
        if spoken and spoken != f"androidworld/{PROTOCOL}":
            raise UsageError(
                f"The guest at {connection.address} speaks {spoken}; this agentlab speaks androidworld/{PROTOCOL}.",
                "Build its image again: `agentlab fetch androidworld`.",
            )
        return "ours" if spoken else "upstream"
    finally:
        connection.close()

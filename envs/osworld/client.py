"""The host half of OSWorld's guest protocol: one HTTP connection to one guest, every wait bounded, every failure typed.

Whatever goes wrong between here and the guest is :class:`InfrastructureError` (component ``guest``): a guest that does not answer
says nothing about the agent.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from envs.base import Screenshot
from envs.connection import CONNECT_SECONDS, Connection, Response
from envs.errors import InfrastructureError

SCREENSHOT_SECONDS = 20.0
TREE_SECONDS = 90.0
COMMAND_SECONDS = 130.0
"""The guest itself ends commands after 120 s."""
OPEN_SECONDS = 150.0
TRANSFER_SECONDS = 600.0
POLL_SECONDS = 0.5
FREE_BYTES = 1 << 20
"""With less, applications fail to save."""


@dataclass(frozen=True)
class CommandResult:
    """What a command in the guest said."""

    returncode: int
    output: str
    error: str


class GuestClient:
    """Client of the guest server at ``host:port``.  Threads may share it; ``close`` can be called twice."""

    def __init__(self, host: str, port: int) -> None:
        self._connection = Connection(host, port)
        self.address = self._connection.address
        self._takes_operations: bool | None = None
        self._tells_rest = True

    # -- looking ---------------------------------------------------------------------------------------------------------------
    def screenshot(self) -> Screenshot:
        """The screen with the pointer, RGB, shape [height, width, 3], uint8."""
        body = self._ask("GET", "/screenshot").body
        try:
            return np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise self._connection.failed("/screenshot", f"{len(body)} bytes that are no image") from error

    def accessibility_tree(self) -> str:
        """OSWorld's XML of the accessibility tree.  Takes seconds with an office document open."""
        return str(self._json("GET", "/accessibility", seconds=TREE_SECONDS)["AT"])

    def terminal(self) -> str | None:
        """The text of the terminal in front, or None."""
        output = self._json("GET", "/terminal", seconds=TREE_SECONDS)["output"]
        return None if output is None else str(output)

    def screen_size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        size = self._json("POST", "/screen_size")
        return int(size["width"]), int(size["height"])

    def wait_for_rest(self, seconds: float) -> bool | None:
        """Wait until no program on the desktop has anything to do, at most ``seconds``: whether that came to pass.

        None, at once, of a guest that cannot tell; only ours can.

        Raises:
            InfrastructureError: also when the guest's disk is full: what is not written then is no fault of the agent's.
        """
        if not self._tells_rest:
            return None
        route = "/agentlab/rest"
        answer = self._connection.send("GET", route, params={"seconds": seconds}, seconds=seconds + SCREENSHOT_SECONDS)
        if answer.status == 404:
            self._tells_rest = False
            return None
        told = self._connection.json(self._good(answer, route), route)
        if told["free_bytes"] < FREE_BYTES:
            raise InfrastructureError(f"The disk of the guest at {self.address} is full.", component="guest")
        return not told["busy"]

    def missing(self, timeout: float = CONNECT_SECONDS) -> str:
        """What keeps the guest from being usable right now, or an empty string: one question, for polling.

        Our own guest knows when its desktop is drawn.  Of any other, a picture that is more than a bare screen is asked for.
        """
        try:
            answer = self._connection.send("GET", "/agentlab/ready", seconds=timeout)
            if answer.status == 404:
                return self._missing_by_picture(timeout)
            if answer.status not in (200, 503):
                return f"HTTP {answer.status}"
            missing = self._connection.json(answer, "/agentlab/ready").get("missing")
            return ", ".join(map(str, missing)) if isinstance(missing, list) else "it is no server of a guest that answers"
        except InfrastructureError as error:
            return f"the guest server does not answer ({error.message})"

    def missing_after(self, seconds: float) -> str:
        """What still keeps the guest from being usable after at most ``seconds``; asked at least once."""
        until = time.monotonic() + seconds
        while (missing := self.missing()) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        return missing

    def _missing_by_picture(self, timeout: float) -> str:
        answer = self._connection.send("GET", "/screenshot", seconds=timeout)
        if answer.status != 200:
            return f"screenshot: HTTP {answer.status}"
        try:
            picture = Image.open(io.BytesIO(answer.body)).convert("RGB").resize((320, 180))
        except (UnidentifiedImageError, OSError):
            return "screenshot: no image"
        return "the desktop is not drawn" if picture.getcolors(64) is not None else ""

    # -- acting ----------------------------------------------------------------------------------------------------------------
    def takes_operations(self) -> bool:
        """Whether the guest has our route for exact input; asked once."""
        if self._takes_operations is None:
            answer = self._connection.send("POST", "/agentlab/input", json={"operations": []}, seconds=SCREENSHOT_SECONDS)
            self._takes_operations = answer.status == 200
        return self._takes_operations

    def operate(self, operations: Sequence[dict[str, Any]]) -> None:
        """Do pointer and keyboard operations (``envs.osworld.operations``) through our own guest's route."""
        self._ask("POST", "/agentlab/input", json={"operations": list(operations)}, seconds=COMMAND_SECONDS)

    def execute(self, command: Sequence[str]) -> CommandResult:
        """Run a program with arguments in the guest, no shell in between, and wait for it (at most two minutes)."""
        done = self._json("POST", "/execute", json={"command": list(command), "shell": False}, seconds=COMMAND_SECONDS)
        return CommandResult(int(done["returncode"]), str(done["output"]), str(done["error"]))

    def launch(self, command: Sequence[str]) -> None:
        """Start a program in the guest without waiting for it."""
        self._ask("POST", "/setup/launch", json={"command": list(command), "shell": False})

    def open_file(self, path: str) -> None:
        """Open a file with its application and wait for the window."""
        self._ask("POST", "/setup/open_file", json={"path": path}, seconds=OPEN_SECONDS)

    def activate_window(self, name: str, *, strict: bool = False, by_class: bool = False) -> None:
        self._ask("POST", "/setup/activate_window", json={"window_name": name, "strict": strict, "by_class": by_class})

    def close_window(self, name: str, *, strict: bool = False, by_class: bool = False) -> None:
        self._ask("POST", "/setup/close_window", json={"window_name": name, "strict": strict, "by_class": by_class})

    # -- files -----------------------------------------------------------------------------------------------------------------
    def upload(self, path: str, data: bytes) -> None:
        """Write a file in the guest; folders are made."""
        self._ask("POST", "/setup/upload", data={"file_path": path}, files={"file_data": data}, seconds=TRANSFER_SECONDS)

    def download(self, path: str) -> bytes | None:
        """A file of the guest, or None when there is none."""
        answer = self._connection.send("POST", "/file", data={"file_path": path}, seconds=TRANSFER_SECONDS)
        return None if answer.status == 404 else bytes(self._good(answer, "/file").body)

    # -- HTTP ------------------------------------------------------------------------------------------------------------------
    def close(self) -> None:
        self._connection.close()

    def _json(self, method: str, route: str, **request: Any) -> dict[str, Any]:
        return self._connection.json(self._ask(method, route, **request), route)

    def _ask(self, method: str, route: str, *, seconds: float = SCREENSHOT_SECONDS, **request: Any) -> Response:
        return self._good(self._connection.send(method, route, seconds=seconds, **request), route)

    def _good(self, answer: Response, route: str) -> Response:
        if answer.status != 200:
            raise self._connection.failed(route, f"HTTP {answer.status}: {answer.text()}")
        return answer

"""The host half of OSWorld's guest protocol: one HTTP connection to one guest, every wait bounded, every failure typed.

Whatever goes wrong between here and the guest is :class:`InfrastructureError` (component ``guest``): a guest that does not answer
says nothing about the agent.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from envs.base import Screenshot
from envs.connection import CONNECT_SECONDS, Connection, Response
from envs.errors import InfrastructureError
from envs.osworld.grader.probes import TREE

T = TypeVar("T")
SCREENSHOT_SECONDS = 20.0
TREE_SECONDS = 90.0
HANGS_SECONDS = 20.0
"""A guest that says only after this long that it cannot read the tree has waited for an application."""
COMMAND_SECONDS = 130.0
"""The guest itself ends commands after 120 s."""
OPEN_SECONDS = 150.0
TRANSFER_SECONDS = 600.0
POLL_SECONDS = 0.5
READS = 3
"""How often a question that changes nothing is asked when no answer comes; as often as OSWorld's own host asks."""
AGAIN_SECONDS = 0.5
FREE_BYTES = 1 << 20
"""Free disk space that a guest must have; with less, applications fail to save."""


@dataclass(frozen=True)
class CommandResult:
    """What a command in the guest said."""

    returncode: int
    output: str
    error: str


class GuestClient:
    """Client of the guest server at ``host:port``.  Threads may share it; ``close`` can be called twice.

    Args:
        patience: Factor on every wait for an answer, for slow guests.
    """

    def __init__(self, host: str, port: int, *, patience: float = 1.0) -> None:
        self._patience = patience
        self._connection = Connection(host, port)
        self.address = self._connection.address
        self._takes_operations: bool | None = None
        self._tells_rest = True

    # -- looking ---------------------------------------------------------------------------------------------------------------
    def screenshot(self) -> Screenshot:
        """The screen with the pointer, RGB, shape [height, width, 3], uint8."""
        return self._read("GET", "/screenshot", self._picture)

    def _picture(self, answer: Response) -> Screenshot:
        try:
            return np.asarray(Image.open(io.BytesIO(answer.body)).convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise self._connection.failed("/screenshot", f"{len(answer.body)} bytes that are not an image") from error

    def accessibility_tree(self) -> str:
        """OSWorld's XML of the accessibility tree.  Takes seconds with an office document open.

        Empty while an application keeps the guest from reading it: what hangs on the desktop is the agent's doing, and grading takes it
        so, too.
        """
        route, refused = "/accessibility", False

        def ask() -> str:
            nonlocal refused
            refused, began = False, time.monotonic()
            answer = self._connection.send("GET", route, seconds=TREE_SECONDS * self._patience)
            refused = answer.status == 500
            if refused and time.monotonic() - began > HANGS_SECONDS and self._has_tree():
                return ""  # the guest has waited for the application itself; to ask again takes as long again
            return str(self._field(self._good(answer, route), route, "AT") or "")

        try:
            return self._again(ask)
        except InfrastructureError:
            if refused and self._has_tree():
                return ""
            raise

    def _has_tree(self) -> bool:
        """Whether the guest can run programs, and its accessibility bus is there."""
        with contextlib.suppress(InfrastructureError):
            return self.execute(["python3", "-c", TREE]).output.strip() == "there"
        return False

    def terminal(self) -> str | None:
        """The text of the terminal in front, or None."""
        output = self._read("GET", "/terminal", lambda answer: self._field(answer, "/terminal", "output"), seconds=TREE_SECONDS)
        return None if output is None else str(output)

    def screen_size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self._read("POST", "/screen_size", self._size)

    def _size(self, answer: Response) -> tuple[int, int]:
        return int(self._field(answer, "/screen_size", "width")), int(self._field(answer, "/screen_size", "height"))

    def wait_for_rest(self, seconds: float) -> bool | None:
        """Wait until no program on the desktop has anything to do, at most ``seconds``; returns whether that happened.

        None, at once, if the guest cannot tell; only ours can.

        Raises:
            InfrastructureError: also when the guest's disk is full: what is not written then is not the agent's fault.
        """
        if not self._tells_rest:
            return None
        route = "/agentlab/rest"
        answer = self._again(lambda: self._rest(route, seconds))
        if answer.status == 404:
            self._tells_rest = False
            return None
        told = self._connection.json(answer, route)
        if told["free_bytes"] < FREE_BYTES:
            raise InfrastructureError(f"The disk of the guest at {self.address} is full.", component="guest")
        return not told["busy"]

    def _rest(self, route: str, seconds: float) -> Response:
        answer = self._connection.send(
            "GET", route, params={"seconds": seconds}, seconds=seconds + SCREENSHOT_SECONDS * self._patience
        )
        return answer if answer.status == 404 else self._good(answer, route)

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
            return ", ".join(map(str, missing)) if isinstance(missing, list) else "it does not answer as the server of a guest does"
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
            answer = self._connection.send(
                "POST", "/agentlab/input", json={"operations": []}, seconds=SCREENSHOT_SECONDS * self._patience
            )
            if answer.status >= 500:
                raise self._connection.failed("/agentlab/input", f"HTTP {answer.status}: {answer.text()}")
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
        """A file of the guest, or None if it does not exist."""
        answer = self._again(lambda: self._file(path))
        return None if answer.status == 404 else bytes(answer.body)

    def _file(self, path: str) -> Response:
        answer = self._connection.send("POST", "/file", data={"file_path": path}, seconds=TRANSFER_SECONDS * self._patience)
        return answer if answer.status == 404 else self._good(answer, "/file")

    # -- HTTP ------------------------------------------------------------------------------------------------------------------
    def close(self) -> None:
        self._connection.close()

    def _json(self, method: str, route: str, **request: Any) -> dict[str, Any]:
        return self._connection.json(self._ask(method, route, **request), route)

    def _field(self, answer: Response, route: str, name: str) -> Any:
        told = self._connection.json(answer, route)
        if name not in told:
            raise self._connection.failed(route, f"no {name!r} but {answer.text(80)!r}")
        return told[name]

    def _read(self, method: str, route: str, understand: Callable[[Response], T], *, seconds: float | None = None) -> T:
        """What the guest answers to a question that changes nothing, and can be asked again."""
        limit = SCREENSHOT_SECONDS if seconds is None else seconds
        return self._again(lambda: understand(self._ask(method, route, seconds=limit)))

    def _again(self, ask: Callable[[], T]) -> T:
        for _ in range(READS - 1):
            with contextlib.suppress(InfrastructureError):
                return ask()
            time.sleep(AGAIN_SECONDS)
        return ask()

    def _ask(self, method: str, route: str, *, seconds: float | None = None, **request: Any) -> Response:
        limit = (SCREENSHOT_SECONDS if seconds is None else seconds) * self._patience
        return self._good(self._connection.send(method, route, seconds=limit, **request), route)

    def _good(self, answer: Response, route: str) -> Response:
        if answer.status != 200:
            raise self._connection.failed(route, f"HTTP {answer.status}: {answer.text()}")
        return answer

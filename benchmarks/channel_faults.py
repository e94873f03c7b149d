"""Faults in the channels between a run and its desktops, while a task is set up and while it is graded: for ``osworld_faults.py``.

The run's desktops are reached through a proxy in the run's own process.  A fault that is wanted is a file in a folder; the proxy that
sees a fitting request takes the file away and does it.  So a fault hits the moment that it is meant for, and is counted when it did.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

from envs.osworld.client import GuestClient
from envs.osworld.grading import OfficialGrader
from envs.osworld.ports import CHROMIUM, SERVER
from envs.osworld.providers import Guest, LightProvider

HOST = "127.0.0.1"
SET_UP, GRADING = "prepare", "score"
BROWSER_BYTES = 3000
"""After so many of the browser's answer its connection is cut."""
LASTING = 3
"""How often the same is asked for by OSWorld's code, and by ours; fewer failures are made good."""

SERVER_FAULTS = {
    "set-up answer dropped": (SET_UP, lambda route: True),
    "set-up answer an error": (SET_UP, lambda route: route.startswith("/setup")),
    "set-up command failed": (SET_UP, lambda route: route == "/setup/execute"),
    "grading answer dropped once": (GRADING, lambda route: route in ("/file", "/accessibility")),
    "grading answers dropped": (GRADING, lambda route: route in ("/file", "/execute", "/accessibility", "/setup/execute")),
    "grading answers an error": (GRADING, lambda route: route in ("/file", "/execute", "/accessibility", "/setup/execute")),
    "grading answers garbled": (GRADING, lambda route: route in ("/file", "/execute", "/accessibility", "/setup/execute")),
}  # fmt: skip
BROWSER_FAULTS = ("browser port refused", "browser connection cut", "browser's driver killed")
CHANNEL_FAULTS = (*SERVER_FAULTS, *BROWSER_FAULTS)


class Faults:
    """The faults that are wanted, as files in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def want(self, kind: str) -> None:
        (self.folder / kind).touch()

    def wanted(self, kind: str) -> bool:
        return (self.folder / kind).exists()

    def take(self, kind: str) -> bool:
        """Whether the caller is the one to do it."""
        try:
            (self.folder / kind).unlink()
        except FileNotFoundError:
            return False
        return True


class Tap:
    """The proxies in front of one desktop.  ``phase`` is what is being done to it."""

    def __init__(self, faults: Faults, ports: dict[int, int]) -> None:
        self.faults, self.real, self.phase = faults, ports, ""
        self.lasting: dict[str, list[str]] = {}
        self.browser = ""
        handler = type("TapHandler", (ServerHandler,), {"tap": self})
        self._server = ThreadingHTTPServer((HOST, 0), handler)
        self._server.daemon_threads = True
        self._browser = socket.create_server((HOST, 0))
        self.ports = {SERVER: self._server.server_port, CHROMIUM: self._browser.getsockname()[1]}
        for target in (self._server.serve_forever, self._accept):
            threading.Thread(target=target, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._browser.close()

    def begin(self, phase: str) -> None:
        self.phase, self.browser = phase, ""
        self.lasting = {}

    def fault(self, route: str) -> str:
        """What is to happen to this request, or nothing."""
        if self.lasting.get(route):
            return self.lasting[route].pop()
        for kind, (phase, fits) in SERVER_FAULTS.items():
            if phase == self.phase and fits(route) and self.faults.take(kind):
                if kind.startswith("grading answers") or kind.startswith("set-up answer"):
                    self.lasting[route] = [kind] * (LASTING - 1)
                return kind
        return ""

    # -- the browser's port ----------------------------------------------------------------------------------------------------
    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._browser.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        if not self.browser and self.phase:
            self.browser = next((kind for kind in BROWSER_FAULTS if self.faults.take(kind)), "")
        if self.browser == "browser port refused":
            client.close()
            return
        if self.browser == "browser's driver killed":
            self.browser = "done"
            if not kill_children("node"):  # a look at the port before the driver runs: the next connection is the driver's
                self.browser = ""
                self.faults.want("browser's driver killed")
        cut = self.browser == "browser connection cut"
        with contextlib.suppress(OSError), client, socket.create_connection((HOST, self.real[CHROMIUM]), 10) as there:
            there.settimeout(None)
            threading.Thread(target=pump, args=(client, there, None), daemon=True).start()
            pump(there, client, BROWSER_BYTES if cut else None)


def pump(source: socket.socket, sink: socket.socket, most: int | None) -> None:
    """Pass on what comes until it ends, or until so many bytes."""
    passed = 0
    with contextlib.suppress(OSError):
        while chunk := source.recv(1 << 16):
            sink.sendall(chunk if most is None else chunk[: max(most - passed, 0)])
            passed += len(chunk)
            if most is not None and passed >= most:
                break
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def kill_children(name: str) -> int:
    """Kill the children of this process, and of its graders, that run the program ``name``; how many there were."""
    killed = 0
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if Path(child.exe()).name == name:  # node calls its main thread, and so its process, something else
                child.kill()
                killed += 1
    return killed


class ServerHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    tap: Tap

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.tap.fault(self.path.split("?")[0])
        if fault.endswith("an error"):
            self.say(502, b"<html>Bad gateway</html>", "text/html")
            return
        if "dropped" in fault:
            self.close_connection = True
            return
        try:
            status, kind, answer = self.forward(body)
        except OSError:
            self.close_connection = True
            return
        if fault == "set-up command failed":
            answer = json.dumps(json.loads(answer) | {"returncode": 1, "error": "failed on demand"}).encode()
        if "garbled" in fault:
            self.say(
                200,
                b"<html>Please wait</html>" if kind == "application/json" else answer[: len(answer) // 2],
                kind,
                len(answer) + 1,
            )
            self.close_connection = True
            return
        self.say(status, answer, kind)

    do_POST = do_GET

    def forward(self, body: bytes) -> tuple[int, str, bytes]:
        there = http.client.HTTPConnection(HOST, self.tap.real[SERVER], timeout=600)
        try:
            there.request(self.command, self.path, body, {k: v for k, v in self.headers.items() if k.lower() != "connection"})
            answer = there.getresponse()
            return answer.status, answer.getheader("Content-Type", ""), answer.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            there.close()

    def say(self, status: int, body: bytes, kind: str, length: int | None = None) -> None:
        with contextlib.suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(length or len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def tapped(folder: Path) -> Iterator[None]:
    """Every light desktop of this process is reached through a tap; faults are wanted in ``folder``."""
    faults, taps = Faults(folder), dict[str, Tap]()
    acquire, release = LightProvider.acquire, LightProvider.release
    asks: dict[str, Callable[..., Any]] = {phase: getattr(OfficialGrader, phase) for phase in (SET_UP, GRADING)}

    def acquired(self: LightProvider) -> Guest:
        guest = acquire(self)
        tap = Tap(faults, guest.ports)
        guest.client.close()
        client = GuestClient(HOST, tap.ports[SERVER], patience=self.patience)
        taps[client.address] = tap
        return replace(guest, client=client, ports=tap.ports)

    def released(self: LightProvider, guest: Guest) -> None:
        taps.pop(guest.client.address).close()
        release(self, guest)

    def asked(phase: str) -> Callable[..., Any]:
        def ask(self: OfficialGrader, task: Any, guest: Guest, *rest: Any) -> Any:
            tap = taps[guest.client.address]
            tap.begin(phase)
            try:
                return asks[phase](self, task, guest, *rest)
            finally:
                tap.begin("")

        return ask

    changes: list[tuple[Any, str, Any]] = [(LightProvider, "acquire", acquired), (LightProvider, "release", released)]
    changes += [(OfficialGrader, phase, asked(phase)) for phase in asks]
    kept = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    for owner, name, new in changes:
        setattr(owner, name, new)
    try:
        yield
    finally:
        for owner, name, old in kept:
            setattr(owner, name, old)

"""A guest that is not a desktop: OSWorld's protocol over a dictionary of files, and every failure on demand.  Needs no Docker."""

from __future__ import annotations

import email
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from PIL import Image

SIZE = (320, 180)
PICTURE = io.BytesIO()
Image.linear_gradient("L").resize(SIZE).convert("RGB").save(PICTURE, "PNG")


@dataclass
class Standin:
    """What the guest holds and how it fails.

    Attributes:
        files: Path -> content.
        draw: The screen now, as PNG.
        execute: Called with the command of ``/execute``; its answer is the command's output, or all fields of the answer, or what the
            server says when it could not run it (an exception).
        probe: What the guest says to questions about itself (programs for ``python3 -c``), by a word in the question.
        fail: Route -> ``drop`` (no answer), ``hang`` (silence until the end) or a status, for the next requests to it.
        delay: Route -> seconds before it answers.
        answers: Route -> the body of its answer, whatever was asked.
        asked: Routes in the order of the requests.
        launched: Commands of ``/setup/launch``.
        operations: What ``/agentlab/input`` got.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    execute: Callable[[Any], str | dict[str, Any]] = lambda command: ""
    probe: dict[str, str] = field(default_factory=dict)
    draw: Callable[[], bytes] = PICTURE.getvalue
    fail: dict[str, list[str | int]] = field(default_factory=dict)
    delay: dict[str, float] = field(default_factory=dict)
    answers: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    launched: list[Any] = field(default_factory=list)
    operations: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    standin: Standin

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        guest, route = self.standin, self.path.split("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        guest.asked.append(route)
        guest.ended.wait(guest.delay.get(route, 0.0))
        failure = guest.fail[route].pop(0) if guest.fail.get(route) else None
        if failure == "hang":
            guest.ended.wait(60)
        if failure in ("hang", "drop"):
            self.close_connection = True
        elif isinstance(failure, int):
            self.say(failure, b"failed on demand")
        else:
            self.answer(route, body)

    def answer(self, route: str, body: bytes) -> None:
        guest = self.standin
        if route in guest.answers:
            self.say(200, guest.answers[route])
        elif route == "/screenshot":
            self.say(200, guest.draw(), "image/png")
        elif route in ("/setup/execute", "/execute"):
            self.execute(json.loads(body)["command"])
        elif route == "/setup/launch":
            guest.launched.append(json.loads(body)["command"])
            self.say(200, b"launched successfully")
        elif route == "/file":
            content = guest.files.get(parse_qs(body.decode())["file_path"][0])
            self.say(404 if content is None else 200, content or b"{}", "application/octet-stream")
        elif route == "/setup/upload":
            form = email.message_from_bytes(b"Content-Type: " + self.headers["Content-Type"].encode() + b"\n\n" + body)
            parts = {
                part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in form.get_payload()
            }
            guest.files[parts["file_path"].decode()] = parts["file_data"]
            self.say(200, b"File Uploaded")
        elif route == "/agentlab/input":
            guest.operations += json.loads(body)["operations"]
            self.json(done=0)
        elif route in FIXED:
            self.json(**FIXED[route])
        else:
            self.say(404, b"no such route")

    def execute(self, command: Any) -> None:
        guest = self.standin
        try:
            if command[:2] == ["python3", "-c"]:
                said: Any = next((answer for word, answer in (PROBES | guest.probe).items() if word in command[2]), "")
            else:
                said = guest.execute(command)
        except ValueError as error:
            self.say(500, json.dumps({"status": "error", "message": str(error)}).encode(), "application/json")
            return
        self.json(
            **{"status": "success", "output": "", "error": "", "returncode": 0}
            | (said if isinstance(said, dict) else {"output": said})
        )

    def json(self, **fields: Any) -> None:
        self.say(200, json.dumps(fields).encode(), "application/json")

    def say(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


PROBES = {"S_ISREG": "plain", "create_connection": "answers", "pyatspi": "there", "yes": "yes"}
"""What a guest whose files and programs are in order says of itself."""

FIXED: dict[str, dict[str, Any]] = {
    "/terminal": {"output": None, "status": "success"},
    "/screen_size": {"width": SIZE[0], "height": SIZE[1]},
    "/agentlab/ready": {"drawn": True, "missing": []},
    "/agentlab/rest": {"busy": False, "free_bytes": 1 << 40},
    "/setup/open_file": {},
    "/setup/activate_window": {},
    "/setup/close_window": {},
    "/accessibility": {"AT": "<desktop-frame/>", "status": "success"},
}


@contextmanager
def standin() -> Iterator[Standin]:
    guest = Standin()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("GuestHandler", (Handler,), {"standin": guest}))
    server.daemon_threads = True
    guest.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield guest
    finally:
        guest.ended.set()
        server.shutdown()
        server.server_close()

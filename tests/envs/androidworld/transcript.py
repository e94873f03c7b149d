"""The recorded transcript of upstream's own server: exchanges, and a server that plays the answers again.

It lies beside the checkout (``shared/data``), not in it.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

NAME = "shared/data/androidworld_http_transcript.txt"
REVISION = "d9c569f764b3a5629321858de03ff653d0f24056"


def path() -> Path:
    """The file in the nearest folder above that has it; skips the test where none has."""
    for folder in Path(__file__).parents:
        if (folder / NAME).exists():
            return folder / NAME
    pytest.skip(f"reads the recorded transcript of upstream's server: put it at {NAME} beside the checkout")


@dataclass(frozen=True)
class Exchange:
    """One request and its answer; ``whole`` unless the transcript shows only the beginning of a long body."""

    title: str
    method: str
    target: str
    sent: str
    status: int
    content_type: str
    answer: str
    whole: bool

    @property
    def route(self) -> str:
        return self.target.split("?")[0]


def read() -> list[Exchange]:
    """Every exchange of the transcript, in order."""
    text = path().read_text(encoding="utf-8")
    assert REVISION in text.splitlines()[0]
    found = []
    for part in re.split(r"^### ?", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        sent = [line.removeprefix(">>> ") for line in lines if line.startswith(">>> ")]
        got = [line.removeprefix("<<< ") for line in lines if line.startswith("<<< ")]
        if not sent or not got:
            continue  # a remark
        method, target, _ = sent[0].split(" ")
        headers = dict(line.split(": ", 1) for line in got[1:-1])
        whole = len(got[-1].encode()) == int(headers["content-length"])
        body = "" if len(sent) == 1 else sent[-1]
        found.append(Exchange(lines[0], method, target, body, int(got[0].split()[1]), headers["content-type"], got[-1], whole))
    return found


class Player:
    """Answers each route with what upstream's server answered there, one after another; the last one again and again."""

    def __init__(self, exchanges: list[Exchange]) -> None:
        answers: dict[str, list[Exchange]] = defaultdict(list)
        for one in exchanges:
            answers[f"{one.method} {one.route}"].append(one)
        self.asked: list[str] = []
        player = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                player.asked.append(f"{self.command} {self.path}")
                waiting = answers[f"{self.command} {self.path.split('?')[0]}"]
                one = waiting.pop(0) if len(waiting) > 1 else waiting[0]
                body = one.answer.encode()
                self.send_response(one.status)
                self.send_header("Content-Type", one.content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, format: str, *arguments: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> Player:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

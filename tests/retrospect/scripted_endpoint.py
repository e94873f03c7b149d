"""An OpenAI-compatible server on localhost that answers from a script: what a critic's endpoint may do on a bad day."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Request = dict[str, Any]


@dataclass
class Answer:
    """One HTTP answer; ``text`` is wrapped into a chat completion, ``body`` is sent as it is."""

    text: str | None = None
    status: int = 200
    body: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0

    def payload(self) -> bytes:
        if self.body is not None:
            return self.body.encode()
        if self.status != 200:
            return json.dumps({"error": {"message": "scripted"}}).encode()
        message = {"role": "assistant", "content": self.text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        return json.dumps(
            {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
        ).encode()


class ScriptedEndpoint:
    """Calls ``script(request, number)`` for the answer to each request, numbered from 1; keeps the requests."""

    def __init__(self, script: Callable[[Request, int], Answer]) -> None:
        self.script = script
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> ScriptedEndpoint:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with endpoint._lock:
                    endpoint.requests.append(request)
                    answer = endpoint.script(request, len(endpoint.requests))
                time.sleep(answer.delay_s)
                payload = answer.payload()
                try:
                    self.send_response(answer.status)
                    for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(payload)))
                    self.end_headers()
                    self.wfile.write(payload)
                except (BrokenPipeError, ConnectionResetError):  # the client gave up waiting, as it should
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def role_of(request: Request) -> str:
    """Which of TextGrad's calls, or ours, a request is."""
    system = request["messages"][0]["content"]
    if "<IMPROVED_VARIABLE>" in system:
        return "update"
    if "gradient (feedback) engine" in system:
        return "gradient"
    return "judge" if "score the steps" in system else "memory" if "first person" in system else "loss"


def critic(guidance: str, critique: str = "Step 1 is to blame.") -> Callable[[Request, int], Answer]:
    """A well-behaved model that writes ``guidance``."""

    def script(request: Request, number: int) -> Answer:
        role = role_of(request)
        if role == "update":
            return Answer(f"<IMPROVED_VARIABLE>{guidance}</IMPROVED_VARIABLE>")
        return Answer({"loss": critique, "gradient": "Say what to avoid.", "judge": '{"1": -0.5}', "memory": guidance}[role])

    return script


def text_of(request: Request) -> str:
    """The user's text of a request, with or without images."""
    content = request["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def images_of(request: Request) -> int:
    content = request["messages"][-1]["content"]
    return 0 if isinstance(content, str) else sum(part["type"] == "image_url" for part in content)

"""A server on localhost that writes any bytes for an answer, at any pace: what an endpoint may do on a bad day."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

Reply = Callable[[bytes], Iterable[bytes]]
"""From the request, as it came, to the pieces of the answer."""


def http(body: bytes, status: int = 200, headers: str = "Content-Type: application/json\r\n") -> bytes:
    return f"HTTP/1.1 {status} X\r\n{headers}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def completion(content: Any = "Action: wait()", usage: Any = None) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


def said(data: Any) -> Reply:
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    return lambda request: [http(body)]


def dripped(whole: bytes, pause: float) -> Reply:
    def pieces(request: bytes) -> Iterable[bytes]:
        for byte in whole:
            yield bytes([byte])
            time.sleep(pause)

    return pieces


class RawEndpoint:
    """Answers every request by ``reply``, which may be changed."""

    def __init__(self, reply: Reply) -> None:
        self.reply, self.requests, self._over = reply, 0, False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def __enter__(self) -> RawEndpoint:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=(self._listener.accept()[0],), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536) or b"\r\n\r\n"
            head, _, body = request.partition(b"\r\n\r\n")
            length = next((int(h.split(b":")[1]) for h in head.lower().split(b"\r\n") if h.startswith(b"content-length")), 0)
            while len(body) < length and (more := connection.recv(65536)):
                body += more
            self.requests += 1
            for piece in self.reply(head):
                if self._over:
                    return
                connection.sendall(piece)

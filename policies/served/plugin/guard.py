"""What stands before every route, ours and OpenAI's: the token, bounds on bodies and on the queue, and the end of the server."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from envs.numerals import whole

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/health",)
"""Paths that need no token: they say no more than that the server is there."""


class Guard:
    """An ASGI application around another.

    Args:
        app: What is guarded.
        token: What a request must bring as ``Authorization: Bearer ...``.
        max_queue: POST requests at a time; more are told to come again (429).
        max_body_mb: Largest body of a request.
    """

    def __init__(self, app: App, *, token: str, max_queue: int = 256, max_body_mb: float = 1024) -> None:
        self.app, self._token = app, f"Bearer {token}".encode()
        self.max_queue, self._most = max_queue, int(max_body_mb * 2**20)
        self.running = 0
        self.draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, headers = scope["path"], dict(scope["headers"])
        if path.rstrip("/") in OPEN:
            if self.draining:
                await _refuse(send, 503, "draining", "The server is ending.")
            else:
                await self.app(scope, receive, send)
            return
        if not hmac.compare_digest(headers.get(b"authorization", b""), self._token):
            await _refuse(send, 401, "unauthorized", "The token is missing or wrong.", [(b"www-authenticate", b"Bearer")])
            return
        length = whole(headers.get(b"content-length", b"0").decode("latin-1"))
        if length is None or length > self._most:
            await _refuse(send, 413, "too_large", f"A body may have {self._most} bytes.")
            return
        if scope["method"] != "POST":  # what opens, closes and looks takes no place in the queue
            await self.app(scope, _bounded(receive, self._most), send)
            return
        if self.draining:
            await _refuse(send, 503, "draining", "The server is ending.")
            return
        if self.running >= self.max_queue:
            await _refuse(send, 429, "queue_full", f"{self.max_queue} requests are waiting already.", [(b"retry-after", b"1")])
            return
        self.running += 1
        self._idle.clear()
        try:
            await self.app(scope, _bounded(receive, self._most), send)
        finally:
            self.running -= 1
            if not self.running:
                self._idle.set()

    async def drain(self, seconds: float) -> bool:
        """Take no new requests; wait for those that run.  Whether all have ended in time."""
        self.draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return False
        return True


def _bounded(receive: Receive, most: int) -> Receive:
    """``receive``, of a body that said nothing of its size: a client that sends more is cut off."""
    got = 0

    async def bounded() -> Message:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b""))
        return {"type": "http.disconnect"} if got > most else message

    return bounded


async def _refuse(send: Send, status: int, code: str, message: str, more: list[tuple[bytes, bytes]] | None = None) -> None:
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *(more or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

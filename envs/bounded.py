"""Bounds on a whole HTTP exchange: its time and its bytes.

httpx bounds single reads only; a server that drips its answer (or the headers of it) byte by byte would be waited for without end.
Here the connections of a client look at a deadline and a count of bytes before every read, so that both hold for whatever is done
inside :func:`within`: looking for the server, TLS, headers, redirects, body.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx


@dataclass
class _Bounds:
    until: float
    bytes_left: int


_here = threading.local()


@contextlib.contextmanager
def within(seconds: float, most_bytes: int) -> Iterator[None]:
    """What clients made by :func:`bounded` do in this thread ends within ``seconds`` and reads at most ``most_bytes``.

    Raises:
        httpx.TimeoutException: the time is up.
        httpx.ReadError: there are more bytes than allowed.
    """
    before = getattr(_here, "bounds", None)
    _here.bounds = _Bounds(time.monotonic() + seconds, most_bytes)
    try:
        yield
    finally:
        _here.bounds = before


def bounded(client: httpx.Client) -> httpx.Client:
    """The same client, over connections that look at the bounds of the thread that uses them."""
    for transport in (client._transport, *client._mounts.values()):  # private: the reason for the pin of httpx in pyproject.toml
        if isinstance(transport, httpx.HTTPTransport):
            pool = transport._pool
            pool._network_backend = _Backend(pool._network_backend)
    return client


def endpoint_client() -> Any:
    """A bounded client for the endpoint of a model: redirects are followed.

    Its type is left open: newer openai clients are typed for httpx2, and take this one too.  Compression is not taken, since a
    small answer may unpack to any size.
    """
    return bounded(
        httpx.Client(
            timeout=600.0,  # every request brings its own
            follow_redirects=True,
            headers={"Accept-Encoding": "identity"},
            event_hooks={"response": [_refuse_packed]},
        )
    )


def _refuse_packed(answer: httpx.Response) -> None:
    if answer.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise httpx.DecodingError("the answer is compressed, though it was asked for as it is")


def _seconds(timeout: float | None, late: type[Exception]) -> float | None:
    bounds: _Bounds | None = getattr(_here, "bounds", None)
    if bounds is None:
        return timeout
    left = bounds.until - time.monotonic()
    if left <= 0:
        raise late("the time for the whole answer is over")
    return left if timeout is None else min(timeout, left)


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._inner.read(max_bytes, _seconds(timeout, httpcore.ReadTimeout))
        bounds: _Bounds | None = getattr(_here, "bounds", None)
        if bounds is not None:
            bounds.bytes_left -= len(data)
            if bounds.bytes_left < 0:
                raise httpcore.ReadError("the answer is larger than allowed")
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _seconds(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, _seconds(timeout, httpcore.ConnectTimeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Backend(httpcore.NetworkBackend):
    def __init__(self, inner: httpcore.NetworkBackend) -> None:
        self._inner = inner

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        limit = _seconds(timeout, httpcore.ConnectTimeout)
        return _Stream(self._inner.connect_tcp(host, port, limit, local_address, socket_options))

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.connect_unix_socket(path, _seconds(timeout, httpcore.ConnectTimeout), socket_options))

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)

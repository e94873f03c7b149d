"""One HTTP connection to one guest: every wait has an end, every failure of the machinery is typed.

The whole answer must be there within the time, and its size is bounded too (:mod:`envs.bounded`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx

from envs.bounded import bounded, within
from envs.errors import InfrastructureError

CONNECT_SECONDS = 5.0
IDLE_SECONDS = 2.0
"""How long an unused TCP connection is kept; servers drop one after five (uvicorn), and one dropped while it is written to is a failure."""
MOST_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Response:
    """A complete HTTP answer."""

    status: int
    headers: httpx.Headers
    body: bytes | bytearray

    def text(self, limit: int = 200) -> str:
        """The beginning of the body, for people, on one line."""
        return " ".join(self.body[:limit].decode(errors="replace").split())


class Connection:
    """A client of the server at ``host:port``.  Threads may share it; ``close`` can be called twice.

    Args:
        host: Name or address.
        port: TCP port.
        component: What an error blames.
        keep_alive: Use a TCP connection again; not with a server that drops it after its own errors.
    """

    def __init__(self, host: str, port: int, *, component: str = "guest", keep_alive: bool = True) -> None:
        self.address = f"{host}:{port}"
        self.component = component
        # Proxies of the environment are for the internet; a guest is next door.  Nor is there TLS, whose set-up costs tens of
        # milliseconds of every client that only polls once.
        limits = httpx.Limits(max_keepalive_connections=None if keep_alive else 0, keepalive_expiry=IDLE_SECONDS)
        plain = {"Accept-Encoding": "identity"}  # a copy on the loopback interface costs less than any compression
        self._http = bounded(
            httpx.Client(base_url=f"http://{self.address}", trust_env=False, verify=False, limits=limits, headers=plain)
        )

    def send(self, method: str, route: str, *, seconds: float, **request: Any) -> Response:
        """Ask, and take whatever status comes.

        Raises:
            InfrastructureError: no complete answer within ``seconds``.
        """
        timeout = httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))
        body = bytearray()
        try:
            with within(seconds, MOST_BYTES), self._http.stream(method, route, timeout=timeout, **request) as answer:
                for chunk in answer.iter_raw():
                    body += chunk
                return Response(answer.status_code, answer.headers, body)
        except httpx.TimeoutException as error:
            got = f"only {len(body)} bytes" if body else "nothing"
            raise self.failed(route, f"{got} in {seconds:g} s") from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise self.failed(route, f"nothing ({type(error).__name__}: {error})") from error

    def json(self, answer: Response, route: str) -> dict[str, Any]:
        """The JSON object that an answer is.

        Raises:
            InfrastructureError: it is not a JSON object.
        """
        try:
            found = json.loads(answer.body)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise self.failed(route, f"no JSON but {answer.text(80)!r}") from error
        if not isinstance(found, dict):
            raise self.failed(route, f"no JSON object but {answer.text(80)!r}")
        return found

    def failed(self, route: str, got: str, component: str = "") -> InfrastructureError:
        """The error to raise when ``route`` answered ``got``."""
        return InfrastructureError(
            f"The guest at {self.address} answered {route} with {got}.", component=component or self.component
        )

    def close(self) -> None:
        self._http.close()

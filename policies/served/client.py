"""Talking to a server: one request, bounded in time and bytes, tried again where that can help, its failures as typed errors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import httpx
import tenacity
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from envs.bounded import bounded, within
from envs.errors import AdaptationError, InfrastructureError, LabError, PolicyError, SetupError, UsageError
from envs.redaction import remember, remember_address
from policies.served import wire

MOST_BYTES = 8 * 2**30
COMPONENT = "server"
TYPES: Mapping[str, type[LabError]] = {"AdaptationError": AdaptationError, "PolicyError": PolicyError, "UsageError": UsageError}


class ServedOptions(BaseModel):
    """How a server (``served:URL``, or one that ``model.engine=vllm`` starts) is used."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    token_env: str = Field(default=wire.TOKEN_VARIABLE, description="Environment variable that holds the server's token.")
    timeout_s: float = Field(default=900.0, gt=0, le=604_800, description="Of one request: until the whole reply is there.")
    tries: int = Field(default=4, ge=1, le=1000, description="Times that a request is sent before the attempt is void.")
    max_wait_s: float = Field(default=20.0, ge=0, le=604_800, description="Longest pause between two of them.")
    update: str = Field(
        default="server",
        pattern="^(server|here)$",
        description="Where weight updates are computed: server (beside the head, on its device), or here (the head's weights are "
        "downloaded once; methods of your own are always computed here).",
    )


class Unknown(Exception):
    """The server does not know a session or an adapter (any more): it was restarted, or had no room.

    Attributes:
        code: ``unknown_session`` or ``unknown_adapter``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class MissingImages(Exception):
    """The server lacks pictures; their digests."""

    def __init__(self, digests: list[str]) -> None:
        super().__init__(f"{len(digests)} pictures")
        self.digests = digests


class _Transient(Exception):
    """Worth another try."""


class Client:
    """A connection pool to one server; safe to use from several threads.

    Args:
        url: Its address, ``http://HOST:PORT``.
        options: How it is used.
        token: What it wants to be brought; None: from the environment.

    Raises:
        UsageError: this is not an address.
        SetupError: there is no token.
    """

    def __init__(self, url: str, options: ServedOptions, token: str | None = None) -> None:
        self.url, self.options = url.rstrip("/"), options
        token = token or os.environ.get(options.token_env)
        if not token:
            raise SetupError(
                f"There is no token for the server {self.url}.", f"Set {options.token_env} to what `agentlab serve` printed."
            )
        remember(token)
        try:
            parsed = httpx.URL(self.url)
            if parsed.scheme not in ("http", "https") or not parsed.host:
                raise httpx.InvalidURL("no http address")
        except (httpx.InvalidURL, ValueError) as error:
            raise UsageError(f"{url!r} is not the address of a server.", "For example served:http://127.0.0.1:8000") from error
        remember_address(url)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
        self._http = bounded(httpx.Client(headers=headers, timeout=options.timeout_s, limits=limits))

    def json(self, method: str, path: str, *, tries: int | None = None) -> dict[str, Any]:
        """A request without a body, answered with a JSON object."""
        answer = self._tried(method, path, None, tries)
        try:
            found = answer.json()
        except ValueError as error:
            raise self._broken(f"its answer is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise self._broken("its answer is not a JSON object")
        return found

    def tensors(self, method: str, path: str, body: bytes | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """A request answered with a message.

        Raises:
            Unknown, MissingImages: for the caller to mend.
            InfrastructureError: it failed as often as it was tried.
            PolicyError, AdaptationError, UsageError: the server refuses it.
        """
        answer = self._tried(method, path, body)
        try:
            return wire.unpack(answer.content)
        except wire.WireError as error:
            raise self._broken(str(error)) from error

    def put(self, path: str, body: bytes) -> dict[str, Any]:
        """A message answered with a JSON object."""
        found: dict[str, Any] = self._tried("PUT", path, body).json()
        return found

    def _tried(self, method: str, path: str, body: bytes | None, tries: int | None = None) -> httpx.Response:
        tries = tries or self.options.tries
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(tries),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=self.options.max_wait_s),
            retry=tenacity.retry_if_exception_type(_Transient),
            reraise=True,
        )
        try:
            return retrying(self._once, method, path, body)
        except _Transient as error:
            raise InfrastructureError(
                f"The server {self.url} failed {tries} times: {error}", "Is it up? agentlab serve says what it does.",
                component=COMPONENT,
            ) from error  # fmt: skip

    def _once(self, method: str, path: str, body: bytes | None) -> httpx.Response:
        headers = {"Content-Type": wire.MEDIA} if body is not None else {}
        try:
            with within(self.options.timeout_s, MOST_BYTES):
                answer = self._http.request(method, f"{self.url}{wire.PREFIX}{path}", content=body, headers=headers)
        except (httpx.HTTPError, OSError) as error:
            raise _Transient(f"{type(error).__name__}: {error}") from error
        if answer.status_code == 200:
            return answer
        raise self._refusal(answer)

    def _refusal(self, answer: httpx.Response) -> Exception:
        try:
            error = answer.json()["error"]
            code, message, hint = str(error["code"]), str(error["message"]), str(error.get("hint", ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            error, code, message, hint = {}, "", answer.text[:200], ""
        status = answer.status_code
        if status == 404 and code in ("unknown_session", "unknown_adapter"):
            return Unknown(code, message)
        if status == 409 and isinstance(error.get("missing"), list):
            return MissingImages([str(one) for one in error["missing"]])
        if status in (408, 429) or status >= 500:
            return _Transient(f"HTTP {status}: {message}")
        if status == 401:
            return PolicyError(f"The server {self.url} does not take the token.", f"{self.options.token_env} must be the server's.")
        if status == 404:
            return PolicyError(
                f"{self.url} is not a server with the weights axis (no {wire.PREFIX}).", "Start one: agentlab serve MODEL"
            )
        return TYPES.get(code, PolicyError)(message or f"The server {self.url} refuses the request (HTTP {status}).", hint)

    def _broken(self, what: str) -> InfrastructureError:
        return InfrastructureError(f"The server {self.url} does not keep the protocol: {what}", component=COMPONENT)

    def close(self) -> None:
        self._http.close()

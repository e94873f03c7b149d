"""The routes with the weights axis, beside OpenAI's: sessions and their adapters, generation with H, scoring, updates.

Over any :class:`Computes`; nothing here knows vLLM.  What is bounded, who may come in and how the server ends is :mod:`.guard`'s.

    GET    /agentlab/v1/info                          the model, the head, limits, the protocol
    GET    /agentlab/v1/checkpoint                    tokenizer, processor and configuration files; no weights
    POST   /agentlab/v1/sessions                      open one: {"session": name}
    PUT    /agentlab/v1/sessions/{session}/adapter    swap its adapter (safetensors): {"adapter": "session@version"}
    DELETE /agentlab/v1/sessions/{session}            close it: its adapters are dropped
    POST   /agentlab/v1/generate                      a reply, with log-probabilities and H
    POST   /agentlab/v1/score                         H and log-probabilities of a given reply
    POST   /agentlab/v1/update                        a weight update from H and y; the new adapter is the session's next version
    GET    /agentlab/v1/head                          W, for those who compute updates themselves
    GET    /agentlab/v1/metrics                       Prometheus
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from torch import Tensor

from envs.numerals import whole
from policies.sampling import SamplingConfig
from policies.served import wire
from policies.served.plugin.metrics import Metrics

KEPT_VERSIONS = 2
"""Adapters of a session that stay: the one in force, and the one before it, which a rollback goes back to."""
MOST_PIXELS = 64 * 2**20
WATCH_S = 0.5
"""How often a reply that is being written is asked for still."""
IDLE_S = 6 * 3600.0
"""A session that nobody uses for so long is closed."""


@dataclass(frozen=True)
class Asked:
    """A reply to be generated or scored.

    Attributes:
        key: Name of the request, of the server's making.
        ids: The prompt, with one image token per picture [n].
        images: Its pictures, each with its digest.
        sampling, seed, stop: How it is drawn, and what ends it.
        adapter: ``session@version``; None for the frozen head.
        capture: Whether H is wanted.
        reply: The reply to be scored; empty to generate one.
    """

    key: str
    ids: list[int]
    images: list[tuple[str, Tensor]]
    sampling: SamplingConfig
    seed: int
    stop: list[int]
    adapter: str | None
    capture: bool
    reply: list[int] = field(default_factory=list)


class Refused(Exception):
    """A request that is answered with an error: its HTTP status, and what the client does about it (``code``)."""

    def __init__(self, status: int, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.more = status, code, message, more


class Computes(Protocol):
    """What computes."""

    async def info(self) -> dict[str, Any]:
        """``model``, ``vocabulary``, ``hidden_size``, ``dtype``, ``max_tokens`` (prompt and reply), ``vision``."""

    async def generate(self, asked: Asked) -> wire.Unpacked:
        """``finish`` and ``prompt_tokens``; ``tokens`` [T], ``logprobs`` [T], ``hidden`` [T, d].  Raises Refused."""

    async def score(self, asked: Asked) -> wire.Unpacked:
        """``logprobs`` [T] and ``hidden`` [T, d] of ``asked.reply``.  Raises Refused."""

    async def put(self, name: str, message: bytes) -> int:
        """Keep an adapter; its bytes."""

    async def drop(self, names: Sequence[str]) -> None:
        """Forget adapters."""

    async def update(self, message: bytes, base: str | None, new: str) -> bytes:
        """See :func:`policies.served.updates.computed`; the new adapter is kept under ``new``."""

    async def head(self) -> bytes:
        """W [V, d] as ``weight``."""

    def checkpoint(self) -> bytes:
        """The model's small files, as tensors of bytes by name."""


@dataclass
class Lease:
    """One client's adapters: version -> bytes."""

    versions: dict[int, int] = field(default_factory=dict)
    newest: int = 0
    used: float = field(default_factory=time.monotonic)


class Server:
    """The state behind the routes.

    Args:
        backend: What computes.
        adapter_mb: Memory of all adapters together; beyond it the least recently used are dropped, and their clients send them again.
        picture_mb: Memory of pictures that clients need not send again.
    """

    def __init__(self, backend: Computes, *, adapter_mb: float = 16384, picture_mb: float = 1024) -> None:
        self.backend, self.metrics = backend, Metrics()
        self.boot = secrets.token_hex(8)
        self._adapter_bytes, self._picture_bytes = adapter_mb * 2**20, picture_mb * 2**20
        self._sessions: OrderedDict[str, Lease] = OrderedDict()
        self._pictures: OrderedDict[str, Tensor] = OrderedDict()
        self._info: dict[str, Any] = {}

    async def info(self) -> dict[str, Any]:
        if not self._info:
            self._info = await self.backend.info()
        return {**self._info, "protocol": wire.PROTOCOL, "boot": self.boot, "sessions": len(self._sessions)}

    # -- sessions ----------------------------------------------------------------------------------------------------------------
    async def open(self) -> str:
        now = time.monotonic()
        for name in [name for name, session in self._sessions.items() if now - session.used > IDLE_S]:
            await self.close(name)
        name = f"s{secrets.token_hex(8)}"
        self._sessions[name] = Lease()
        return name

    async def close(self, name: str) -> None:
        session = self._sessions.pop(name, None)
        if session is not None:
            await self.backend.drop([f"{name}@{version}" for version in session.versions])

    def session(self, name: str) -> Lease:
        """Raises Refused: there is none of this name (any more)."""
        session = self._sessions.get(name)
        if session is None:
            raise Refused(404, "unknown_session", f"There is no session {name}.")
        self._sessions.move_to_end(name)
        session.used = time.monotonic()
        return session

    def worn(self, adapter: Any) -> str | None:
        """The adapter that a request names.  Raises Refused: there is none of this name (any more)."""
        if adapter is None:
            return None
        name, _, version = str(adapter).partition("@")
        session = self._sessions.get(name)
        if session is None or whole(version) not in session.versions:
            raise Refused(404, "unknown_adapter", f"There is no adapter {adapter}.")
        self.session(name)  # it is in use
        return f"{name}@{int(version)}"

    async def put(self, name: str, data: bytes) -> str:
        shape = await self._shape()
        session = self.session(name)
        fields, tensors = await run_in_threadpool(wire.unpack, data)
        theta = await run_in_threadpool(wire.theta_of, fields, tensors, shape)
        session.newest += 1
        version = session.newest
        message = wire.pack(*theta.packed())
        await self._kept(name, version, await self.backend.put(f"{name}@{version}", message))
        return f"{name}@{version}"

    async def update(self, data: bytes) -> bytes:
        fields, _ = await run_in_threadpool(wire.unpack, data)
        name, base = str(fields.get("session")), self.worn(fields.get("adapter"))
        session = self.session(name)
        session.newest += 1
        version = session.newest
        answer = await self.backend.update(data, base, f"{name}@{version}")
        said, tensors = await run_in_threadpool(wire.unpack, answer)
        if said.get("error", "").startswith("unknown adapter"):
            raise Refused(404, "unknown_adapter", said["error"])
        if said["error"]:
            raise Refused(422, said.get("kind", "AdaptationError"), said["error"], hint=said.get("hint", ""))
        if "kind" in said:
            size = sum(value.nbytes for key, value in tensors.items() if key.startswith("theta."))
            await self._kept(name, version, size)
            said["adapter"] = f"{name}@{version}"
        return wire.pack(said, tensors)

    async def _kept(self, name: str, version: int, size: int) -> None:
        """A session has a new adapter: its old ones go, and the least recently used of others where there are too many."""
        if name not in self._sessions:  # closed meanwhile
            await self.backend.drop([f"{name}@{version}"])
            raise Refused(404, "unknown_session", f"The session {name} was closed.")
        session = self._sessions[name]
        session.versions[version] = size
        gone = [f"{name}@{old}" for old in sorted(session.versions)[:-KEPT_VERSIONS]]
        for old in sorted(session.versions)[:-KEPT_VERSIONS]:
            del session.versions[old]
        for other, one in list(self._sessions.items()):  # least recently used first
            if self._adapters()[1] <= self._adapter_bytes or other == name:
                break
            gone += [f"{other}@{old}" for old in one.versions]
            one.versions.clear()
        if gone:
            await self.backend.drop(gone)

    def _adapters(self) -> tuple[int, int]:
        """How many adapters there are, and their bytes."""
        sizes = [size for session in self._sessions.values() for size in session.versions.values()]
        return len(sizes), sum(sizes)

    async def _shape(self) -> tuple[int, int]:
        info = await self.info()
        return info["vocabulary"], info["hidden_size"]

    # -- replies -----------------------------------------------------------------------------------------------------------------
    async def asked(self, data: bytes, *, scoring: bool) -> Asked:
        """The request in a message.  Raises WireError, Refused."""
        fields, tensors = await run_in_threadpool(wire.unpack, data)
        info = await self.info()
        most, vocabulary = info["max_tokens"], info["vocabulary"]
        given = fields.get("sampling") or {}
        if not isinstance(given, dict):
            raise wire.WireError("sampling must be an object.")
        drawing: dict[str, Any] = {name: wire.number(given, name, *bounds) for name, bounds in wire.DRAWING.items()}
        sampling = replace(
            SamplingConfig(max_new_tokens=wire.integer(given, "max_new_tokens", 1, most, min(1500, most))), **drawing
        )
        return Asked(
            key=secrets.token_hex(12),
            ids=wire.ids_of(tensors, "ids", info.get("tokens", vocabulary), most),
            images=await self._images(fields.get("images", []), tensors, bool(info.get("vision"))),
            sampling=sampling,
            seed=wire.integer(fields, "seed", 0, 2**63 - 1, 0),
            stop=[] if scoring else wire.ids_of(tensors, "stop", info.get("tokens", vocabulary), 64),
            adapter=self.worn(fields.get("adapter")),
            capture=bool(fields.get("capture", True)),
            reply=wire.ids_of(tensors, "reply", vocabulary, most) if scoring else [],
        )

    async def _images(self, digests: Any, tensors: dict[str, Tensor], sees: bool) -> list[tuple[str, Tensor]]:
        """Pictures by digest: those in the message, those kept.  Raises Refused: some are neither."""
        if not isinstance(digests, list) or len(digests) > wire.MOST_IMAGES or any(not isinstance(d, str) for d in digests):
            raise wire.WireError(f"images must be up to {wire.MOST_IMAGES} digests.")
        if digests and not sees:
            raise wire.WireError("This model sees no pictures.")
        found: dict[str, Tensor] = {}
        for digest in digests:
            sent = tensors.get(f"image.{digest}")
            if sent is not None and digest not in self._pictures:
                if sent.dtype != torch.uint8 or sent.ndim != 3 or sent.shape[2] != 3 or not 0 < sent.numel() <= 3 * MOST_PIXELS:
                    raise wire.WireError("A picture must be [height, width, 3] bytes.")
                if await run_in_threadpool(wire.digest_of, sent) != digest:
                    raise wire.WireError("A picture's digest is another's.")
                self._pictures[digest] = sent.clone()
            if digest in self._pictures:
                self._pictures.move_to_end(digest)
                found[digest] = self._pictures[digest]
        missing = [digest for digest in dict.fromkeys(digests) if digest not in found]
        while len(self._pictures) > 1 and sum(p.nbytes for p in self._pictures.values()) > self._picture_bytes:
            self._pictures.popitem(last=False)
        if missing:
            raise Refused(409, "missing_images", "Pictures are missing.", missing=missing)
        return [(digest, found[digest]) for digest in digests]

    def render_metrics(self) -> str:
        count, size = self._adapters()
        self.metrics.set("sessions", len(self._sessions), "Sessions that are open.")
        self.metrics.set("adapters", count, "Adapters in memory.")
        self.metrics.set("adapter_bytes", size, "Their bytes.")
        return self.metrics.render()


class Routes:
    """A handler for each route; what they answer is in the module's table."""

    def __init__(self, server: Server) -> None:
        self.server = server

    async def info(self, request: Request) -> Response:
        return JSONResponse(await self.server.info())

    async def checkpoint(self, request: Request) -> Response:
        return _tensors(await run_in_threadpool(self.server.backend.checkpoint))

    async def head(self, request: Request) -> Response:
        return _tensors(await self.server.backend.head())

    async def open_session(self, request: Request) -> Response:
        return JSONResponse({"session": await self.server.open()})

    async def close_session(self, request: Request) -> Response:
        await self.server.close(request.path_params["session"])
        return JSONResponse({})

    async def swap(self, request: Request) -> Response:
        with self.server.metrics.timed("swap_seconds", "Swapping a session's adapter."):
            return JSONResponse({"adapter": await self.server.put(request.path_params["session"], await request.body())})

    async def generate(self, request: Request) -> Response:
        metrics = self.server.metrics
        with metrics.timed("generate_seconds", "A reply, from request to answer."):
            asked = await self.server.asked(await request.body(), scoring=False)
            fields, tensors = await _while_wanted(request, self.server.backend.generate(asked))
        metrics.add("tokens_total", len(tensors["tokens"]), "Tokens generated.")
        metrics.add("prompt_tokens_total", fields["prompt_tokens"], "Tokens of prompts.")
        metrics.add("cached_tokens_total", fields.get("cached_tokens", 0), "Tokens of prompts whose keys and values were kept.")
        return await _answer(fields, tensors)

    async def score(self, request: Request) -> Response:
        with self.server.metrics.timed("score_seconds", "Scoring a given reply."):
            asked = await self.server.asked(await request.body(), scoring=True)
            fields, tensors = await _while_wanted(request, self.server.backend.score(asked))
        return await _answer(fields, tensors)

    async def update(self, request: Request) -> Response:
        with self.server.metrics.timed("update_seconds", "A weight update."):
            return _tensors(await self.server.update(await request.body()))

    async def metrics(self, request: Request) -> Response:
        return PlainTextResponse(self.server.render_metrics())

    def counted(self, route: Route) -> Route:
        """The same route: what goes wrong in it is an answer, and every answer is counted."""
        handle: Callable[[Request], Awaitable[Response]] = route.endpoint

        async def endpoint(request: Request) -> Response:
            try:
                response = await handle(request)
            except Refused as error:
                body = {"error": {"code": error.code, "message": error.message, **error.more}}
                response = JSONResponse(body, status_code=error.status)
            except wire.WireError as error:
                response = JSONResponse({"error": {"code": "bad_request", "message": str(error)}}, status_code=400)
            self.server.metrics.add("requests_total", 1, "Requests.", route=route.path, status=str(response.status_code))
            return response

        return Route(route.path, endpoint, methods=list(route.methods or ["GET"]))


def build(server: Server) -> Starlette:
    """The routes, to be mounted at :data:`policies.served.wire.PREFIX`."""
    to = Routes(server)
    routes = [
        Route("/info", to.info), Route("/checkpoint", to.checkpoint), Route("/head", to.head), Route("/metrics", to.metrics),
        Route("/sessions", to.open_session, methods=["POST"]),
        Route("/sessions/{session}", to.close_session, methods=["DELETE"]),
        Route("/sessions/{session}/adapter", to.swap, methods=["PUT"]),
        Route("/generate", to.generate, methods=["POST"]),
        Route("/score", to.score, methods=["POST"]),
        Route("/update", to.update, methods=["POST"]),
    ]  # fmt: skip
    return Starlette(routes=[to.counted(route) for route in routes])


async def _while_wanted(request: Request, work: Coroutine[Any, Any, wire.Unpacked]) -> wire.Unpacked:
    """The outcome of ``work``, which is given up when the client has gone.  Raises Refused: it has."""
    task = asyncio.create_task(work)
    try:
        while not (await asyncio.wait({task}, timeout=WATCH_S))[0]:
            if await request.is_disconnected():
                raise Refused(499, "gone", "The client has gone.")
        return task.result()
    finally:
        task.cancel()


def _tensors(data: bytes) -> Response:
    return Response(data, media_type=wire.MEDIA)


async def _answer(fields: dict[str, Any], tensors: dict[str, Tensor]) -> Response:
    return _tensors(await run_in_threadpool(wire.pack, fields, tensors))

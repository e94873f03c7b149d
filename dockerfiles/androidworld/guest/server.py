"""The HTTP routes.  Handlers check what they were sent and hand one operation to the machine; none of them blocks the others."""

from __future__ import annotations

import json
import time
from importlib import metadata
from typing import Annotated, Any, Literal

import fastapi
import pydantic
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from guest import PROTOCOL, UPSTREAM_REVISION, VERSION, screens, tasks
from guest import actions as act
from guest.attempts import BOOT
from guest.device import Device, Look
from guest.errors import GuestError
from guest.machine import Machine

HEADER = {"X-Agentlab-Guest": f"androidworld/{PROTOCOL}"}
ImageFormat = Literal["png", "webp", "raw", "none"]
SnapshotName = Annotated[str, pydantic.Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
Seed = Annotated[int, pydantic.Field(ge=0, lt=2**63)]
Index = Annotated[int, pydantic.Field(ge=0, lt=1000)]


class _Body(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)


class Observe(_Body):
    """What /step is to observe afterwards."""

    format: ImageFormat = "png"
    stable: bool = True
    tree: bool = False

    def look(self) -> Look:
        return Look(self.format, self.stable, self.tree)


class Step(_Body):
    """Body of /step."""

    actions: Annotated[list[Any], pydantic.Field(min_length=1, max_length=16)]
    observe: Observe | None = None
    attempt: str | None = None


class Reset(_Body):
    """Body of /reset."""

    home: bool


class Named(_Body):
    """Body of /snapshot and /restore."""

    name: SnapshotName


class Initialize(_Body):
    """Body of /task/initialize."""

    task: str
    index: Index = 0
    seed: Seed | None = None
    family: str = "android_world"
    restore: SnapshotName | None = None


class Score(_Body):
    """Body of /task/score: an attempt must be named."""

    attempt: str


class TearDown(_Body):
    """Body of /task/tear_down."""

    attempt: str | None = None


def create_app(machine: Machine, default_seed: int) -> fastapi.FastAPI:
    """The application over ``machine``; ``default_seed`` is for routes that are given none."""
    app = fastapi.FastAPI(title="AndroidWorld guest", version=VERSION)
    _add_errors(app)
    _add_screen_routes(app, machine)
    _add_task_routes(app, machine, default_seed)
    _add_snapshot_routes(app, machine)
    return app


def _reply(error: GuestError) -> JSONResponse:
    headers = {"Retry-After": "1"} if error.code in ("busy", "starting") else {}
    return JSONResponse(error.body(), status_code=error.status, headers=headers)


class NamesTheServer:
    """Adds our header to every reply; written to the interface below FastAPI's own middleware, which would copy every picture."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def named(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(k.lower().encode(), v.encode()) for k, v in HEADER.items()]
            await send(message)

        await self._app(scope, receive, named if scope["type"] == "http" else send)


class Observed(Response):
    """A JSON reply whose observation may hold a picture, as bytes of base64: put into the text as they are."""

    media_type = "application/json"

    def render(self, content: dict[str, Any]) -> bytes:
        observation = content.get("observation", content)
        picture = (observation or {}).get("screenshot")
        if picture is None:
            return json.dumps(content).encode()
        data, picture["data"] = picture["data"], "@"
        before, after = json.dumps(content).encode().split(b'"data": "@"', 1)
        return b"".join((before, b'"data": "', data, b'"', after))


def _add_errors(app: fastapi.FastAPI) -> None:
    app.add_middleware(NamesTheServer)

    @app.exception_handler(GuestError)
    async def guest_error(_: fastapi.Request, error: GuestError) -> JSONResponse:
        return _reply(error)

    @app.exception_handler(RequestValidationError)
    async def bad_request(_: fastapi.Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return _reply(GuestError("bad_request", f"{place}: {first['msg']}.", place=place))

    @app.exception_handler(HTTPException)
    async def unknown_route(request: fastapi.Request, error: HTTPException) -> JSONResponse:
        code = "unknown_route" if error.status_code in (404, 405) else "bad_request"
        reply = _reply(GuestError(code, f"{request.method} {request.url.path}: {error.detail}."))
        reply.status_code = error.status_code
        return reply

    @app.exception_handler(Exception)
    async def internal(request: fastapi.Request, error: Exception) -> JSONResponse:
        reply = _reply(GuestError("internal", f"{request.url.path}: {type(error).__name__}: {error}"))
        reply.headers.update(HEADER)  # this handler stands before the middleware
        return reply


def _add_screen_routes(app: fastapi.FastAPI, machine: Machine) -> None:
    @app.get("/version")
    def version() -> dict[str, Any]:
        upstream = {"revision": UPSTREAM_REVISION, "android_env": metadata.version("android_env")}
        return {"server": "androidworld", "protocol": PROTOCOL, "guest": VERSION, "upstream": upstream, "boot": BOOT}

    @app.get("/health")
    def health() -> JSONResponse:
        body = machine.health()
        return JSONResponse(body, status_code=200 if body["state"] == "ready" else 503)

    @app.get("/screen")
    def screen() -> dict[str, Any]:
        return machine.run("screen", Device.screen)

    @app.get("/screenshot")
    def screenshot(format: Literal["png", "webp", "raw"] = "png", stable: bool = False) -> Response:
        pixels = machine.run("screenshot", lambda device: device.look(stable))
        size = {"X-Screen-Width": str(pixels.shape[1]), "X-Screen-Height": str(pixels.shape[0])}
        return Response(screens.encode(pixels, format), media_type=screens.MEDIA_TYPES[format], headers=size)

    @app.get("/observation")
    def observation(format: ImageFormat = "png", stable: bool = True, tree: bool = False) -> Response:
        return Observed(machine.run("observation", lambda device: device.observe(Look(format, stable, tree))))

    @app.post("/step")
    def step(body: Step) -> Response:
        actions = [act.parse(action) for action in body.actions]

        def work(device: Device) -> dict[str, Any]:
            machine.attempts.check(body.attempt)
            device.check(actions)
            for action in actions:
                device.execute(action)
            return {
                "executed": len(actions),
                "observation": None if body.observe is None else device.observe(body.observe.look()),
                "terminated": machine.attempts.terminated(device),
            }

        return Observed(machine.run("step", work))

    @app.post("/reset")
    def reset(body: Reset) -> dict[str, Any]:
        machine.run("reset", lambda device: device.reset(body.home))
        return {"ok": True}


def _add_task_routes(app: fastapi.FastAPI, machine: Machine, default_seed: int) -> None:
    @app.get("/families")
    def families() -> dict[str, Any]:
        return {"families": tasks.families()}

    @app.get("/tasks")
    def listing(family: str = "android_world") -> dict[str, Any]:
        return {"family": family, "tasks": tasks.listing(family, default_seed)}

    @app.get("/task")
    def instance(task: str, family: str = "android_world", seed: Seed = default_seed, index: Index = 0) -> dict[str, Any]:
        key = tasks.Key(family, task, seed, index)
        return tasks.describe(key, tasks.build(key))

    @app.post("/task/initialize")
    def initialize(body: Initialize) -> dict[str, Any]:
        key = tasks.Key(body.family, body.task, default_seed if body.seed is None else body.seed, body.index)
        tasks.build(key)  # an unknown task is refused while the attempt before it is still whole

        def work(device: Device) -> dict[str, Any]:
            if body.restore is not None:
                machine.load(body.restore)
                device = machine.device
            return machine.attempts.initialize(key, device)

        return machine.run("initialize", work)

    @app.post("/task/score")
    def score(body: Score) -> dict[str, Any]:
        return machine.run("score", lambda device: machine.attempts.score(body.attempt, device))

    @app.post("/task/tear_down")
    def tear_down(body: TearDown) -> dict[str, Any]:
        def work(device: Device) -> dict[str, Any]:
            if machine.attempts.active is not None:
                machine.attempts.check(body.attempt)
            return {"torn_down": machine.attempts.tear_down(device)}

        return machine.run("tear_down", work)

    @app.get("/task/active")
    def active() -> dict[str, Any]:
        attempt = machine.attempts.active
        return {"attempt": None if attempt is None else attempt.id, "instance": machine.attempts.instance()}


def _add_snapshot_routes(app: fastapi.FastAPI, machine: Machine) -> None:
    @app.get("/snapshots")
    def snapshots() -> dict[str, Any]:
        return {"snapshots": machine.snapshots()}

    @app.post("/snapshot")
    def save(body: Named) -> dict[str, Any]:
        started = time.monotonic()
        machine.save(body.name)
        return {"name": body.name, "seconds": round(time.monotonic() - started, 3)}

    @app.post("/restore")
    def restore(body: Named) -> dict[str, Any]:
        started = time.monotonic()
        machine.restore(body.name)
        return {"name": body.name, "seconds": round(time.monotonic() - started, 3)}

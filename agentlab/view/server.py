"""The viewer's server: reads, never writes, and answers this machine only."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from agentlab.view.library import Library
from envs.errors import LabError, SetupError, UsageError

HERE = Path(__file__).parent
HOST = "127.0.0.1"
PAGES = {"": "index.html", "app.js": "app.js", "draw.js": "draw.js", "list.js": "list.js", "style.css": "style.css"}
HEADERS = {
    # The page may load from here and nowhere else, and may run nothing but its own scripts, whatever a run contains.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def make_app(paths: Sequence[Path]) -> FastAPI:
    """The application over runs or folders of runs."""
    library = Library(paths)
    app = FastAPI(title="agentlab view", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(GZipMiddleware, minimum_size=2000)
    # A page elsewhere cannot reach this server by a name of its own that points to 127.0.0.1.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])

    @app.middleware("http")
    async def headers(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(LabError)
    async def refused(request: Request, error: LabError) -> Response:
        return PlainTextResponse(str(error), status_code=404)

    def get(path: str) -> Callable[[Any], Any]:
        """Answers GET, and HEAD with the same headers."""
        return app.api_route(path, methods=["GET", "HEAD"])

    @get("/api/index.json")
    def index() -> Response:
        return _json(library.index())

    @get("/api/{run}.json")
    def one_run(run: str, since: str = "") -> Response:
        return _json(library.run(run, since))

    @get("/api/{run}/{session}.json")
    def one_session(run: str, session: str) -> Response:
        return _json(library.session(run, session))

    @get("/api/{run}/{session}/{attempt}/{screen}")
    def one_screen(run: str, session: str, attempt: str, screen: str) -> Response:
        return FileResponse(library.screen(run, session, attempt, screen), media_type="image/webp")

    @get("/{name}")
    def page(name: str) -> Response:
        if name not in PAGES:
            raise UsageError(f"There is no page {name!r}.")
        return FileResponse(HERE / PAGES[name])

    @get("/")
    def front() -> Response:
        return page("")

    return app


def _json(data: Any) -> Response:
    return Response(json.dumps(data, allow_nan=False, separators=(",", ":")), media_type="application/json")


def serve(paths: Sequence[Path], port: int, say: Callable[[str], None]) -> None:
    """Serve on 127.0.0.1 until Ctrl-C.

    Args:
        say: Told where, once the port is known to be free.

    Raises:
        UsageError: one of the paths is not a folder.
        SetupError: the port cannot be had.
    """
    import uvicorn

    app = make_app(paths)
    try:  # uvicorn would log its own error, after the address has been said
        socket.create_server((HOST, port)).close()
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise SetupError(f"Port {port} of {HOST} cannot be used: {reason}.", "Take another with --port N.") from error
    say(f"http://{HOST}:{port}  (Ctrl-C ends it)")
    uvicorn.run(app, host=HOST, port=port, log_level="warning")

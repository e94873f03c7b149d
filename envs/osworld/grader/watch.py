"""Every channel that OSWorld's code uses while it sets up and grades, watched: the guest's server, its browser and its VLC, the web.

OSWorld's code takes an answer that it did not get for one that says no, and goes on.  What failed is therefore noted here, where it
failed, whatever the callers make of it.  Two things are told apart, by asking the guest itself (``probes``): a channel that broke, which
says nothing about the agent, and an answer that is what it is because of what the agent left behind (a folder where a file should be,
a browser that it closed), which OSWorld's code gets as it is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Hashable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .probes import Probes
from .tolerated import tolerated

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 180.0
"""Where OSWorld's code would wait for ever.  A guest itself ends commands after 120 s."""
FILE_SECONDS = 60.0
"""Until a file begins to come; a pipe never does."""
WHOLE_SECONDS = 600.0
MOST_BYTES = 512 * 2**20
"""No result of a task comes near it; a file without an end reaches it."""
CHUNK = 1 << 16
TELL = 300

CHROMIUM, VLC = 9222, 8080
"""Ports of the guest, whatever they are published as."""
SPOKEN = (
    "/execute",
    "/setup/execute",
    "/accessibility",
    "/terminal",
    "/screen_size",
    "/window_size",
    "/desktop_path",
    "/list_directory",
)
"""Routes whose good answer is a JSON object."""
LOOKED = ("/list_directory", "/window_size", "/wallpaper", "/desktop_path", "/setup/open_file", "/file")
"""Routes that fail when what they are asked about is not there, or not what it should be."""
BETWEEN = (502, 503, 504)
"""Statuses of whoever passes requests on and got no answer: never the guest's own server's."""
RAN = ("/execute", "/setup/execute", "/setup/launch")
FALLS_BACK = ("ipapi.co",)
"""Hosts that OSWorld's code can explicitly do without: it takes UTC if no host tells it the time zone."""


class Watch:
    """What failed since :meth:`begin`.

    Attributes:
        broken: What is broken, by what was asked for; an entry is removed if the same step or getter asks again and succeeds.
        lacking: What the grader itself lacks: programs, packages, disk.
        left: What OSWorld's code was told as the agent left it.
        looked: Whether the guest was asked anything since this was last made false.
    """

    def __init__(self) -> None:
        self.server = self.chromium = self.vlc = "no guest"
        self.phase, self.job, self.patience = "", "", 1.0
        self.broken: dict[Hashable, str] = {}
        self.lacking: dict[Hashable, str] = {}
        self.left: dict[Hashable, str] = {}
        self.looked = False
        self.polled: set[str] = set()
        self._known: dict[Hashable, Any] = {}
        self.probes: Any = None

    def begin(self, phase: str, request: dict[str, Any]) -> None:
        """Everything from now on belongs to this request."""
        guest, task = request.get("guest") or {}, request.get("task") or {}
        self.phase, self.job, self.patience = phase, json.dumps(task), float(request.get("patience", 1.0))
        self.broken, self.lacking, self.left, self._known = {}, {}, {}, {}
        self.looked = False
        steps = [step.get("parameters", {}) for step in task.get("config") or []]
        self.polled = {json.dumps(step["command"]) for step in steps if step.get("until")}
        if guest:
            self.server, self.chromium, self.vlc = (
                f"http://{guest['host']}:{guest[port]}/" for port in ("server", "chromium", "vlc")
            )
            self.probes = Probes(_unwatched(), self.server, self.patience)

    @property
    def failures(self) -> list[str]:
        """What makes the result worthless."""
        return sorted({*self.broken.values(), *self.lacking.values()})

    def owns(self, url: str) -> bool:
        """Whether the task itself names this address' host, rather than the agent."""
        host = urlsplit(url).hostname or ""
        return bool(host) and host in self.job

    # -- requests --------------------------------------------------------------------------------------------------------------
    def install(self) -> None:
        """Wrap the one function through which ``requests`` sends everything."""
        import requests

        adapter: Any = requests.adapters.HTTPAdapter
        send = adapter.send

        def watched(sender: Any, request: Any, **options: Any) -> Any:
            if isinstance(sender, _Unwatched):
                return send(sender, request, **options)
            if options.get("timeout") is None:
                first = FILE_SECONDS if request.path_url == "/file" else ANSWER_SECONDS
                options["timeout"] = (CONNECT_SECONDS * self.patience, first * self.patience)
            if request.url.startswith(self.server):
                return self._ask_server(lambda: send(sender, request, **options), request)
            for url, port in ((self.chromium, CHROMIUM), (self.vlc, VLC)):
                if request.url.startswith(url):
                    return self._ask_port(lambda: send(sender, request, **options), request, port)
            return self._ask_web(lambda: send(sender, request, **options), request)

        adapter.send = watched

    def _ask_server(self, send: Any, request: Any) -> Any:
        import requests

        self.looked = True
        key = (request.method, request.url, _body(request))
        if key in self._known:
            return self._known[key]
        route = request.path_url.split("?")[0]
        try:
            answer = self._whole(send())
        except _TooLarge:
            return self._left(key, request, f"{route} is larger than {MOST_BYTES >> 20} MiB")
        except requests.ReadTimeout as error:
            what = f"{route} got nothing in time"
            if self._agents(route, request, None):
                return self._left(key, request, what)
            self.broken[key] = what
            raise error
        except requests.RequestException as error:
            self.broken[key] = f"{route} got nothing ({type(error).__name__})"
            raise
        problem = _problem(answer, route)
        self.left.pop(key, None)
        self.broken.pop(key, None)
        if not problem:
            self._check_status(answer, request, route)
        elif self._agents(route, request, answer):
            self.left[key] = problem
        else:
            self.broken[key] = problem
        return answer

    def _check_status(self, answer: Any, request: Any, route: str) -> None:
        """The exit status of a set-up command, which no caller looks at."""
        if self.phase != "prepare" or route != "/setup/execute":
            return
        command = json.loads(_body(request)).get("command")
        done = json.loads(answer.content)
        status = int(done.get("returncode") or 0)
        if json.dumps(command) in self.polled or tolerated(command, status):
            return
        said = " ".join(f"{done.get('error', '')} {done.get('output', '')}".split())[-TELL:]
        shown = command if isinstance(command, str) else " ".join(map(str, command))
        self.broken[("status", len(self.broken), time.monotonic())] = (
            f"the set-up step `{shown[:TELL]}` ended with status {status}" + (f": {said}" if said else "")
        )

    def _agents(self, route: str, request: Any, answer: Any) -> bool:
        """Whether an answer failed because of what the agent left."""
        if self.phase != "score" or (answer is not None and answer.status_code in (200, *BETWEEN)):
            return False
        if route in LOOKED and answer is not None and answer.status_code < 500:
            return True
        if route == "/file":
            path = (parse_qs(_body(request)).get("file_path") or [""])[0]
            return self.probes.file(path, MOST_BYTES) in ("other", "large", "nothing")
        if route in RAN:
            return answer is not None and answer.status_code == 500 and _ran(answer)
        if not route.startswith("/setup/") and self.probes.answered(request):
            return False  # the same question has an answer now: it was the way that failed
        if route in ("/accessibility", "/terminal"):
            return self.probes.healthy() and self.probes.tree()
        return route in LOOKED and self.probes.healthy()

    def _left(self, key: Hashable, request: Any, what: str) -> Any:
        """The answer of a server that cannot give what was asked for; the same again, without asking, if it is asked for again."""
        import requests

        answer: Any = requests.Response()
        answer.status_code, answer._content, answer.url, answer.request = 500, b'{"error": "not to be had"}', request.url, request
        self.left[key] = what
        self._known[key] = answer
        return answer

    def _ask_port(self, send: Any, request: Any, port: int) -> Any:
        import requests

        self.looked = True
        try:
            answer = self._whole(send())
        except requests.RequestException as error:
            self.silent(port, request.path_url, type(error).__name__)
            raise
        if answer.status_code >= 500:
            self.silent(port, request.path_url, f"HTTP {answer.status_code}: {answer.content[:TELL].decode(errors='replace')}")
        else:
            self.heard(port)
        return answer

    def silent(self, port: int, route: str, error: str) -> None:
        """Nobody answered on a port of the guest.  A program that the agent ended does not answer inside the guest either."""
        self.looked = True
        name = {CHROMIUM: "the browser", VLC: "VLC"}[port]
        inside = None if self.phase == "prepare" else self.probes.answers_inside(port, route)
        if inside is False:
            self.left[port] = f"{name} is not running"
        else:
            self.broken[port] = f"{name} cannot be reached at port {port} ({error})"

    def heard(self, port: int) -> None:
        """The port answered, perhaps after it did not."""
        self.broken.pop(port, None)
        self.left.pop(port, None)

    def seal(self) -> None:
        """What failed until now has failed for good: a step or a getter is over, and later successes do not change that."""
        self.broken = {(key if isinstance(key, _Sealed) else _Sealed()): what for key, what in self.broken.items()}

    def _ask_web(self, send: Any, request: Any) -> Any:
        import requests

        host = urlsplit(request.url).hostname or ""
        ours = self.owns(request.url) or self.phase == "prepare"
        try:
            answer = send()
        except requests.RequestException as error:
            if ours and host not in FALLS_BACK:
                self.broken[request.url] = f"{host} cannot be reached ({type(error).__name__})"
            raise
        if answer.status_code >= 400 and ours and host not in FALLS_BACK:
            self.broken[request.url] = f"{host} answered HTTP {answer.status_code}"
        else:
            self.broken.pop(request.url, None)
        return answer

    def _whole(self, answer: Any) -> Any:
        """The answer with its body read here, where a failure is noticed, and with an end."""
        import requests

        body, until = bytearray(), time.monotonic() + WHOLE_SECONDS * self.patience
        for chunk in answer.iter_content(CHUNK):
            body += chunk
            if len(body) > MOST_BYTES:
                answer.close()
                raise _TooLarge
            if time.monotonic() > until:
                answer.close()
                raise requests.ConnectionError("the answer does not end")
        answer._content, answer._content_consumed = bytes(body), True
        return answer


class _TooLarge(Exception):
    pass


class _Sealed:
    """Returned instead of the answer that was asked for."""


class _Unwatched:
    """Marks the adapter that our own questions use."""


def _unwatched() -> Any:
    import requests

    class Adapter(_Unwatched, requests.adapters.HTTPAdapter):
        pass

    session = requests.Session()
    session.trust_env = False
    session.mount("http://", Adapter())
    return session


def _body(request: Any) -> str:
    body = request.body
    if isinstance(body, bytes):
        return body.decode(errors="replace")
    if isinstance(body, str):
        return body
    return str((getattr(body, "fields", None) or {}).get("file_path", ""))  # of a file that is being uploaded


def _ran(answer: Any) -> bool:
    """Whether the server itself says that a command failed, in its own words."""
    try:
        said = json.loads(answer.content)
    except ValueError:
        return False
    return isinstance(said, dict) and said.get("status") == "error" and isinstance(said.get("message"), str)


def _problem(answer: Any, route: str) -> str:
    """What is wrong with an answer, or nothing."""
    if answer.status_code != 200:
        said = " ".join(answer.content[:TELL].decode(errors="replace").split())
        return f"{route} got HTTP {answer.status_code}" + (f": {said}" if said else "")
    if route in SPOKEN:
        try:
            if isinstance(json.loads(answer.content), dict):
                return ""
        except ValueError:
            pass
        return f"{route} got no JSON but {answer.content[:80]!r}"
    return ""

"""Questions to the guest, beside OSWorld's code, that tell what failed: the machinery, or what the agent left behind.

Each goes to the guest's own server, past the watch, and has the guest look at itself: at the file that could not be read, or, from
inside, at the port where nobody answered.
"""

from __future__ import annotations

import json
from typing import Any

SECONDS = 30.0

FILE = """
import os, stat, sys
path = os.path.expandvars(os.path.expanduser(sys.argv[1]))
try:
    found = os.stat(path)
except OSError:
    print("nothing")
else:
    large = found.st_size > int(sys.argv[2])
    plain = stat.S_ISREG(found.st_mode) and os.access(path, os.R_OK) and not large
    print("plain" if plain else "large" if large else "other")
"""
"""``plain``: a file that a healthy server would have given us."""

PORT = """
import socket, sys
port, found = int(sys.argv[1]), {"127.0.0.1"}
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
    try:
        way.connect(("192.0.2.1", 9))
        found.add(way.getsockname()[0])
    except OSError:
        pass
answers = []
for address in found:
    try:
        with socket.create_connection((address, port), 5) as there:
            there.settimeout(10)
            there.sendall(b"GET " + sys.argv[2].encode() + b" HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nConnection: close\\r\\n\\r\\n")
            answers.append(bool(there.recv(1)))
    except OSError:
        answers.append(False)
print("answers" if all(answers) else "silent")
"""
"""Asked on the loopback interface and, as the outside comes in, on the guest's own address."""

TREE = """
import pyatspi
pyatspi.Registry.getDesktop(0).childCount
print("there")
"""


class Probes:
    """Asks the guest whose server is at ``url``.

    Args:
        send: What sends one request of ``requests``, unwatched.
        patience: Factor on the waiting, for slow guests.
    """

    def __init__(self, session: Any, url: str, patience: float) -> None:
        self._session, self._url, self._seconds = session, url, SECONDS * patience

    def healthy(self) -> bool:
        """Whether the server answers and can run a program."""
        return self._run("print('yes')") == "yes"

    def file(self, path: str, most_bytes: int) -> str:
        """``plain``, ``large``, ``other`` (a folder, a device, not readable), ``nothing``; empty when the guest does not say."""
        return self._run(FILE, path, str(most_bytes))

    def answers_inside(self, port: int, route: str) -> bool | None:
        """Whether a server answers on the guest's port, asked from inside; None when the guest does not say."""
        said = self._run(PORT, str(port), route)
        return {"answers": True, "silent": False}.get(said)

    def tree(self) -> bool:
        """Whether the accessibility bus is there."""
        return self._run(TREE) == "there"

    def answered(self, request: Any) -> bool:
        """Whether the same request, which must change nothing, is answered now."""
        kind = {name: value for name, value in request.headers.items() if name.lower() == "content-type"}
        try:
            limits = (self._seconds, self._seconds)
            answer = self._session.request(request.method, request.url, data=request.body, headers=kind, timeout=limits)
            return bool(answer.status_code == 200)
        except Exception:  # noqa: BLE001 - whatever failed, the guest has not answered
            return False

    def _run(self, program: str, *arguments: str) -> str:
        body = {"command": ["python3", "-c", program, *arguments], "shell": False}
        try:
            answer = self._session.post(self._url + "execute", json=body, timeout=(self._seconds, self._seconds))
            return str(json.loads(answer.content)["output"]).strip()
        except Exception:  # noqa: BLE001 - whatever failed, the guest has not answered
            return ""

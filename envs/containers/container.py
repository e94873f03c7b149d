"""One container as its user knows it, and waiting until it is really ready."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import docker.errors
from docker.models.containers import Container as EngineContainer

from envs.containers.engine import engine_errors
from envs.errors import InfrastructureError

POLL_SECONDS = 0.1
LOG_LINES_SHOWN = 5


class Container:
    """A started container.  ``ports`` maps its ports to those on the loopback interface."""

    def __init__(self, engine_container: EngineContainer) -> None:
        self._container = engine_container
        self.name = str(engine_container.name)
        self.ports: dict[int, int] = {}

    @property
    def id(self) -> str:
        return str(self._container.id)

    def refresh(self) -> str:
        """Ask the engine again: returns the state (``running``, ``paused``, ``exited``, ``gone``) and updates ``ports``.

        Ports that the engine chose change whenever a container is started again.
        """
        with engine_errors(f"inspect {self.name}"):
            try:
                self._container.reload()
            except docker.errors.NotFound:
                return "gone"
        published = self._container.attrs["NetworkSettings"]["Ports"] or {}
        self.ports = {int(port.split("/")[0]): int(host[0]["HostPort"]) for port, host in published.items() if host}
        return str(self._container.status)

    def pause(self) -> None:
        """Freeze all processes: no CPU, memory kept."""
        with engine_errors(f"pause {self.name}"):
            self._container.pause()

    def unpause(self) -> None:
        with engine_errors(f"unpause {self.name}"):
            self._container.unpause()

    def logs(self, lines: int | None = None) -> str:
        """What the container wrote; empty when it is gone."""
        with engine_errors(f"read the logs of {self.name}"):
            try:
                return str(self._container.logs(tail=lines or "all").decode(errors="replace"))
            except docker.errors.NotFound:
                return ""
            except docker.errors.APIError as error:
                if error.status_code != 409:  # 409: it is being removed at this moment
                    raise
                return ""

    def execute(self, command: Sequence[str], seconds: int) -> tuple[int, bytes, bytes]:
        """Run a program inside, no shell in between, for at most ``seconds``; (exit code, output, errors), 124 when it took longer."""
        with engine_errors(f"run {command[0]} in {self.name}"):
            ran = self._container.exec_run(["timeout", "-k", "1", str(seconds), *command], demux=True)
        out, error = ran.output or (None, None)
        return int(ran.exit_code), out or b"", error or b""

    def remove(self) -> None:
        """Kill and remove; it is fine when somebody else did."""
        with engine_errors(f"remove {self.name}"):
            try:
                self._container.remove(force=True, v=True)
            except docker.errors.NotFound:
                pass
            except docker.errors.APIError as error:
                if error.status_code != 409:  # 409: somebody else's removal is under way
                    raise


Probe = Callable[[Container], str]
"""Asks a container once, within a few seconds: what it still lacks, or an empty string when it is ready."""


def wait_ready(container: Container, probe: Probe, timeout: float, given_up: Callable[[], bool] = lambda: False) -> None:
    """Wait until ``probe`` is content, the container ends, ``timeout`` seconds have passed, or nobody wants it any more.

    Raises:
        InfrastructureError: (``container``) it ended, or was not ready in time; the message says what was missing.
    """
    until = time.monotonic() + timeout
    while True:
        if given_up():
            raise InfrastructureError(f"{container.name} was given up while it started.", component="container")
        state = container.refresh()
        if state != "running":
            last = " / ".join(container.logs(LOG_LINES_SHOWN).split("\n")).strip(" /")
            raise InfrastructureError(f"{container.name} is {state} and not running. It wrote last: {last}", component="container")
        missing = probe(container)
        if not missing:
            return
        if time.monotonic() > until:
            raise InfrastructureError(
                f"{container.name} was not ready in {timeout:g} s: {missing}.",
                "On a busy machine start fewer at once or allow more time.",
                component="container",
            )
        time.sleep(POLL_SECONDS)

"""The two servers over the stand-in phone, each in a process of its own.

``AGENTLAB_ANDROID_PYTHON`` names the Python of an environment in which upstream's ``android_world`` (with its ``server`` package)
and the requirements of its server are installed; ours has none of that.  With ``AGENTLAB_ANDROID=1`` the tests run over that, both
servers being the real ones; without, over ``lite``: our guest server, and a server with upstream's routes.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import httpx

HERE = Path(__file__).parent
GUEST = HERE.parents[2] / "dockerfiles" / "androidworld"
ASK = "runs upstream's android_world in its own environment: set AGENTLAB_ANDROID=1 and AGENTLAB_ANDROID_PYTHON=<its python> to run it"
START_SECONDS = 240.0
"""Importing upstream's package takes seconds of CPU, on a busy machine minutes."""


def python() -> str:
    """The Python with upstream's package, or an empty string where these tests were not asked for."""
    return os.environ.get("AGENTLAB_ANDROID_PYTHON", "") if os.environ.get("AGENTLAB_ANDROID") else ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class StandinServer:
    """One server process.

    Args:
        kind: Upstream's own server script, our guest server, or ours as it only prepares the phone.
        directory: The stand-in's files, snapshots and faults; a server started again on it finds them.
        width, height: Of the screen, pixels.
        environment: More variables for the process (``GUEST_*``).
    """

    def __init__(
        self, kind: Literal["ours", "upstream", "prepare"], directory: Path, width: int = 180, height: int = 400, **environment: str
    ) -> None:
        self.kind, self.directory, self._environment = kind, directory, environment
        self.size = (width, height)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / "server.log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, ready: bool = True) -> StandinServer:
        """Start the process on the same port; with ``ready``, wait until it answers that it is."""
        width, height = (str(number) for number in self.size)
        program = [python(), "-m", "standin.serve"] if python() else [sys.executable, "-m", "lite.serve"]
        command = [*program, self.kind, "--port", str(self.port), "--directory", str(self.directory)]
        # Nothing of our environment leaks into upstream's.
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(self.directory), "PYTHONPATH": f"{HERE}{os.pathsep}{GUEST}", "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore", **self._environment,
        }  # fmt: skip
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--width", width, "--height", height], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return self.wait_until_ready() if ready else self

    def wait_until_ready(self, seconds: float = START_SECONDS) -> StandinServer:
        deadline = time.monotonic() + seconds
        while not self._healthy():
            if self.exit_code() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the {self.kind} server did not start: {self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        return self

    def _healthy(self) -> bool:
        try:  # without certificates, whose reading costs more than the question
            return httpx.get(f"{self.url}/health", timeout=10, trust_env=False, verify=False).status_code == 200
        except httpx.HTTPError:
            return False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def wait(self, seconds: float) -> int:
        """The exit code of a process that is expected to end by itself."""
        assert self._process is not None
        return self._process.wait(seconds)

    def kill(self) -> None:
        """As the kernel kills it when memory runs out."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()

    def control(self, **faults: Any) -> None:
        """Make the phone misbehave from now on (see ``standin.simulator``); without arguments it behaves again."""
        partial = self.directory / "control.partial"
        partial.write_text(json.dumps(faults))
        partial.replace(self.directory / "control.json")

    def inputs(self) -> list[str]:
        """The ``input`` commands that have reached the phone, in order."""
        try:
            return (self.directory / "input.log").read_text().splitlines()
        except FileNotFoundError:
            return []

    def events(self) -> list[str]:
        """What was installed and started, in order."""
        try:
            return (self.directory / "events.log").read_text().splitlines()
        except FileNotFoundError:
            return []

    def __enter__(self) -> StandinServer:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

"""The official grader, seen from here: processes in OSWorld's own virtual environment, asked over pipes with bounded patience.

Whatever goes wrong in them (they crash, hang, answer nonsense, or OSWorld's code raises) is :class:`InfrastructureError`, component
``grader``, or ``guest`` when it was the guest that failed them.  It is never a score.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from envs import actions as act
from envs.download import Download, download
from envs.errors import InfrastructureError, SetupError
from envs.osworld.jobs import Job, NeededFile, needed_files
from envs.osworld.ports import CHROMIUM, SERVER, VLC, VNC
from envs.osworld.providers import Guest
from envs.osworld.upstream import grader_python, pinned, source_folder

logger = logging.getLogger(__name__)

PROGRAM = Path(__file__).parent / "grader" / "__main__.py"

START_SECONDS = 300.0
"""Importing OSWorld's code takes ten seconds of CPU."""
PREPARE_SECONDS = 1200.0
"""A setup downloads, opens applications and waits for web pages, a minute each."""
SCORE_SECONDS = 900.0
WATCH_SECONDS = 5.0
"""OSWorld's code asks a guest that is gone again and again, for up to an hour; so its container is looked at meanwhile."""
END_SECONDS = 5.0
FOLDER = "agentlab-osworld-"
LOG_CHARACTERS = 400
NOT_PASSED_ON = re.compile(r"^(PYTHONPATH|PYTHONHOME|VIRTUAL_ENV)$|(KEY|TOKEN|SECRET|PASSWORD)$")
"""Our own Python, and what a process that reads what agents wrote has no need to know."""


class GraderProcess:
    """One process; used by one thread at a time.

    Args:
        python: The grader's interpreter.
        folder: Where its log is.
        source: A folder with a ``desktop_env`` to be used instead of the installed one, or None.
        proxies: As of :class:`OfficialGrader`.
        program: What it runs.
    """

    def __init__(
        self, python: Path, folder: Path, *, source: Path | None = None, proxies: Path | None = None, program: Path = PROGRAM
    ) -> None:
        self.log = folder / f"grader-{time.time_ns()}.log"
        environment = {key: value for key, value in os.environ.items() if not NOT_PASSED_ON.search(key)}
        environment |= {"PYTHONNOUSERSITE": "1", "PYTHONUNBUFFERED": "1"}
        if source is not None:
            environment["PYTHONPATH"] = str(source)
        if proxies is not None:
            environment["PROXY_CONFIG_FILE"] = str(proxies.resolve())
        with self.log.open("wb") as log:
            # -P: nothing that lies beside the program can be imported by accident
            self._process = subprocess.Popen(
                [str(python), "-P", str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                cwd=source or folder, env=environment, start_new_session=True,
            )  # fmt: skip
        self._unread = b""

    def ask(self, request: dict[str, Any], seconds: float, watch: Callable[[], None] = lambda: None) -> Any:
        """The answer to ``request`` within ``seconds``; after a failure that is not OSWorld's own the process is gone.

        Args:
            watch: Called every few seconds; what it raises ends the waiting, and the process.

        Raises:
            InfrastructureError: it crashed, hung or answered nonsense, or OSWorld's code failed.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            line = self._read_line(time.monotonic() + seconds, watch)
        except InfrastructureError:
            self.close()
            raise
        except TimeoutError as error:
            self.close()
            raise self._failed(f"did not finish `{request['do']}` within {seconds:g} s") from error
        except OSError:
            line = b""
        if not line:
            self.close()
            raise self._failed(f"ended during `{request['do']}` (exit code {self._process.returncode})")
        answer = _parsed(line)
        if answer is None:
            self.close()
            raise self._failed(f"answered `{request['do']}` with {line[:80]!r}")
        if "error" in answer:
            component = "guest" if answer.get("component") == "guest" else "grader"
            raise InfrastructureError(f"OSWorld's code could not {request['do']} the task: {answer['error']}", component=component)
        for remark in answer.get("remarks", ()):
            logger.info("OSWorld's code while it did `%s`: %s", request["do"], remark)
        return answer["ok"]

    def _read_line(self, until: float, watch: Callable[[], None]) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._unread:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            ready, _, _ = select.select([descriptor], [], [], min(left, WATCH_SECONDS))
            if not ready:
                watch()
                continue
            chunk = os.read(descriptor, 65536)
            if not chunk:
                return b""
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End the process and what it started; can be called twice."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # a killed process ends, but a busy machine may take a while
            self._process.wait(END_SECONDS)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _failed(self, what: str) -> InfrastructureError:
        said = self.log.read_text(errors="replace")[-LOG_CHARACTERS:].strip() if self.log.exists() else ""
        return InfrastructureError(f"The grader {what}.", f"It last said: {said}" if said else "", component="grader")


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(line)
    except ValueError:
        return None
    good = isinstance(answer, dict) and ("ok" in answer or isinstance(answer.get("error"), str))
    return answer if good else None


class OfficialGrader:
    """Sets tasks up and grades them with OSWorld's own code; threads may share one.

    Args:
        processes: How many tasks may be set up or graded at a time; each process takes about 400 MB.
        python: Interpreter of the grader's virtual environment; by default the one that ``agentlab fetch osworld`` built.
        source: Folder with the ``desktop_env`` to use; by default that of the fetched revision, or else the installed one.
        patience: Factor on how long a task may take to set up and to grade, for slow guests.
        proxies: File with the proxies for tasks that ask for one, as OSWorld describes it; None gives them none.

    Raises:
        SetupError: the virtual environment has not been built.
    """

    def __init__(
        self, processes: int = 1, *, python: Path | None = None, source: Path | None = None, patience: float = 1.0,
        proxies: Path | None = None, program: Path = PROGRAM,
    ) -> None:  # fmt: skip
        self._python = python or grader_python()
        fetched = source_folder()
        self._source = source or (fetched if (fetched / "desktop_env").is_dir() else None)
        self._patience, self._program, self._proxies = patience, program, proxies
        self._free: deque[GraderProcess] = deque()
        self._places = threading.BoundedSemaphore(processes)
        self._lock = threading.Lock()
        _sweep()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-"))
        self._episodes: dict[str, Path] = {}
        self._closed = False

    # -- what the environment calls ----------------------------------------------------------------------------------------------
    def prepare(self, task: Job, guest: Guest) -> None:
        """Run the task's ``config`` steps, with a cache folder of its own that has the files fetched before."""
        self.forget(guest)
        folder = Path(tempfile.mkdtemp(dir=self._folder, prefix="episode-"))
        with self._lock:
            self._episodes[guest.client.address] = folder
        cache = folder / str(task["id"])
        cache.mkdir()
        for file in needed_files(task):
            if "/" not in file.name:
                shutil.copyfile(_had(file), cache / file.name)
        for path in task.get("gold", ()):
            shutil.copyfile(path, cache / Path(path).name)
        self._ask(self._request("prepare", task, guest, folder), PREPARE_SECONDS, guest)

    def score(self, task: Job, guest: Guest, last: act.Action | None) -> float:
        """Run ``postconfig`` and the evaluator; in [0, 1]."""
        folder = self._episodes.get(guest.client.address)
        if folder is None:
            raise InfrastructureError(f"The task {task['id']} was never set up on this guest.", component="grader")
        said = {act.Fail: "FAIL", act.Finished: "DONE"}.get(type(last), "") if last is not None else ""
        score = self._ask(self._request("score", task, guest, folder) | {"last": said}, SCORE_SECONDS, guest)
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score) or not 0.0 <= score <= 1.0:
            raise InfrastructureError(f"The grader says {score!r}, which is not a score.", component="grader")
        self.forget(guest)
        return float(score)

    def check(self, task: Job) -> None:
        """Make sure that OSWorld's code here has every step, getter and metric that the task names."""
        self._ask({"do": "check", "task": _official(task), "folder": str(self._folder)}, START_SECONDS)

    def versions(self) -> dict[str, str]:
        """``desktop_env``, ``source`` (its folder) and ``python``."""
        return dict(self._ask({"do": "hello"}, START_SECONDS))

    def forget(self, guest: Guest) -> None:
        """Remove the cache folder of the guest's episode."""
        with self._lock:
            folder = self._episodes.pop(guest.client.address, None)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """End all processes; can be called twice."""
        with self._lock:
            self._closed = True
            processes, self._free = list(self._free), deque()
        for process in processes:
            process.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _request(self, do: str, task: Job, guest: Guest, folder: Path) -> dict[str, Any]:
        settings = {"proxy": self._proxies is not None, "patience": self._patience}
        return {"do": do, "task": _official(task), "guest": _address(guest), "folder": str(folder)} | settings

    # -- processes ---------------------------------------------------------------------------------------------------------------
    def _ask(self, request: dict[str, Any], seconds: float, guest: Guest | None = None) -> Any:
        with self._process() as process:
            return process.ask(request, seconds * self._patience, lambda: _require_running(guest))

    @contextlib.contextmanager
    def _process(self) -> Iterator[GraderProcess]:
        with self._places:
            with self._lock:
                process = self._free.pop() if self._free else None
            if process is None or not process.alive:
                process = self._start()
            try:
                yield process
            finally:
                with self._lock:
                    keep = process.alive and not self._closed
                    if keep:
                        self._free.append(process)
                if not keep:
                    process.close()

    def _start(self) -> GraderProcess:
        process = GraderProcess(self._python, self._folder, source=self._source, proxies=self._proxies, program=self._program)
        process.ask({"do": "hello"}, START_SECONDS)
        return process


def _had(file: NeededFile) -> Path:
    """The file, at the pinned revision and checked, got now where it was not fetched before; kept for every later attempt.

    OSWorld's code would download it again each time, from a branch that moves.
    """
    try:
        return download(Download(pinned(file.url), file.kept))
    except SetupError as error:
        raise InfrastructureError(
            error.message, "`agentlab fetch osworld` shows what is unavailable.", component="grader"
        ) from error


def _require_running(guest: Guest | None) -> None:
    if guest is not None and guest.container is not None and (state := guest.container.refresh()) != "running":
        raise InfrastructureError(f"The guest's container has become {state}.", component="container")


def _sweep() -> None:
    """Remove the folders of processes that were killed before they could."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER}*-*"):
        pid = folder.name.removeprefix(FOLDER).partition("-")[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _address(guest: Guest) -> dict[str, Any]:
    """A guest as the grader's program knows it; ports that it does not have are 1, where nothing listens."""
    ports = {
        name: guest.ports.get(port, 1) for name, port in (("server", SERVER), ("chromium", CHROMIUM), ("vnc", VNC), ("vlc", VLC))
    }
    return {"host": guest.host, "password": guest.password, "screen": list(guest.client.screen_size()), **ports}


def _official(task: Job) -> dict[str, Any]:
    """The task without what is ours alone."""
    return {key: value for key, value in task.items() if key not in ("oracle", "gold")}

"""The requests that OSWorld's code is asked: sets tasks up and grades them.

One JSON object per line on standard input, one answer per line on what was standard output; what OSWorld's code prints goes to
standard error.  Requests:

    {"do": "hello"}                                     -> {"ok": {"desktop_env": version, "source": folder, "python": version}}
    {"do": "check", "task": job}                        -> {"ok": true}: every step, getter and metric that the task names exists
    {"do": "prepare", "task": job, "guest": {...}, "folder": cache folder}             -> {"ok": true}
    {"do": "score", "task": job, "guest": {...}, "folder": ..., "last": "FAIL"|"DONE"|""} -> {"ok": score, "remarks": [...]}

``prepare`` and ``score`` also take ``proxy`` (whether tasks get the proxy that they ask for) and ``patience`` (a factor on waiting).
A failure is {"error": message, "component": "grader"|"guest"}.  What failed on the way counts as one even where OSWorld's code takes a
missing answer for a wrong one (``watch``, ``parts``), and what the agent left behind does not even where OSWorld's code raises (``blame``).
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import json
import logging
import os
import platform
import re
import shutil
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import parts
from .blame import GraderFault, evaluate
from .profile import without_notes
from .watch import Watch

DISK_BYTES = 16 << 20
"""Free disk space that is needed; with less, files of the guest cannot be kept, which OSWorld's code takes for files that are not there."""
ORPHAN_SECONDS = 1.0
READS_PICTURES = frozenset({"compare_image_text"})
"""Metrics that read text in pictures."""

WATCH = Watch()


class TaskError(Exception):
    """The task cannot be run by this version of OSWorld's code."""


def load() -> None:
    """Import OSWorld's code, without what would cost 5 GB for three tasks, and watch all that it does."""
    parts.install(WATCH)
    import desktop_env.desktop_env  # noqa: F401 - slow, and the first request should not pay for it
    from desktop_env.evaluators import getters, metrics

    # Metrics call eval() on what a guest answered, and the agent has had that guest in its hands.
    for name, module in vars(metrics).items():
        if isinstance(module, types.ModuleType) and not name.startswith("_"):
            module.__dict__["eval"] = ast.literal_eval
    WATCH.install()
    parts.watch_files(WATCH, [module for module in vars(getters).values() if isinstance(module, types.ModuleType)])
    parts.watch_browser(WATCH)
    parts.watch_google(WATCH)


def hello(_: dict[str, Any]) -> Any:
    import desktop_env

    return {
        "desktop_env": importlib.metadata.version("desktop-env"),
        "source": str(Path(desktop_env.__file__).parent),
        "python": platform.python_version(),
    }


def environment(request: dict[str, Any]) -> Any:
    """OSWorld's environment for this task and guest, without the virtual machine that it would start."""
    from desktop_env.controllers.python import PythonController
    from desktop_env.controllers.setup import SetupController
    from desktop_env.desktop_env import DesktopEnv

    guest, folder = request["guest"], Path(request["folder"])
    direct = {"localhost", guest["host"], *filter(None, os.environ.get("NO_PROXY", "").split(","))}
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(sorted(direct))  # a guest is next door
    env = DesktopEnv.__new__(DesktopEnv)
    env.vm_ip, env.server_port, env.chromium_port = guest["host"], guest["server"], guest["chromium"]
    env.vnc_port, env.vlc_port = guest["vnc"], guest["vlc"]
    env.client_password = guest["password"]
    env.screen_width, env.screen_height = guest["screen"]
    env.is_environment_used = False
    env.enable_proxy = bool(request.get("proxy"))
    env.current_use_proxy = env.enable_proxy and bool(request["task"].get("proxy"))
    env.os_type, env.provider_name, env.action_history = "Ubuntu", "docker", []
    env.cache_dir_base = str(folder)
    env.controller = PythonController(vm_ip=env.vm_ip, server_port=env.server_port)
    env.controller.get_file = without_notes(env.controller.get_file)
    env.setup_controller = SetupController(
        vm_ip=env.vm_ip, server_port=env.server_port, chromium_port=env.chromium_port, vlc_port=env.vlc_port,
        cache_dir=str(folder), client_password=env.client_password, screen_width=env.screen_width, screen_height=env.screen_height,
    )  # fmt: skip
    for name in dir(env.setup_controller):
        if name.startswith("_") and name.endswith("_setup"):
            setattr(env.setup_controller, name, _step(getattr(env.setup_controller, name)))
    try:
        env._set_task_info(request["task"])
    except AttributeError as error:
        raise TaskError(f"OSWorld's code here lacks what the task names: {error}") from error
    env.setup_controller.reset_cache_dir(env.cache_dir)
    return env


def _step(do: Callable[..., Any]) -> Callable[..., Any]:
    """A step of setting up, after which nothing can make good what failed in it."""

    @functools.wraps(do)
    def done(*args: Any, **options: Any) -> Any:
        try:
            return do(*args, **options)
        finally:
            WATCH.seal()

    return done


def check(request: dict[str, Any]) -> Any:
    env = environment(request | {"guest": NOBODY})
    for step in [*(request["task"].get("config") or []), *request["task"]["evaluator"].get("postconfig", [])]:
        if not hasattr(env.setup_controller, f"_{step['type']}_setup"):
            raise TaskError(f"OSWorld's code here has no setup step {step['type']!r}")
    return True


NOBODY = {
    "host": "127.0.0.1", "server": 1, "chromium": 1, "vnc": 1, "vlc": 1, "password": "", "screen": [1920, 1080],
}  # fmt: skip


def prepare(request: dict[str, Any]) -> Any:
    _require_reader(request["task"])
    env = environment(request)
    if env.current_use_proxy:
        env.setup_controller._proxy_setup(env.client_password)
    if not env.setup_controller.setup(env.config, env.current_use_proxy):
        WATCH.broken["server"] = "it cannot be reached"
    _require_programs(request["task"], env)
    return True


def _require_reader(task: dict[str, Any]) -> None:
    """An attempt at a task that could not be graded is not begun."""
    func = task["evaluator"]["func"]
    if READS_PICTURES & {*(func if isinstance(func, list) else [func])} and not hasattr(sys.modules.get("easyocr"), "__file__"):
        WATCH.lacking["package", "easyocr"] = parts.NO_OCR


def _require_programs(task: dict[str, Any], env: Any) -> None:
    """What a shell was told to launch: the guest says that it was launched, also where there is no such program."""
    for step in task.get("config") or []:
        command = step["parameters"].get("command")
        if step["type"] != "launch" or not step["parameters"].get("shell") or not isinstance(command, str | list) or not command:
            continue
        line = str(command if isinstance(command, str) else command[0])
        if program := re.match(r"(?:\s*\w+=\S*)*\s*([\w./+-]+)", line):
            env.setup_controller._execute_setup(["sh", "-c", 'command -v "$0"', program[1]])


def score(request: dict[str, Any]) -> Any:
    env = environment(request)
    env.action_history = [request["last"]] if request["last"] else []
    REMARKS.clear()
    value = evaluate(env, WATCH, REMARKS)
    if not 0.0 <= value <= 1.0:
        raise GraderFault(f"the evaluator says {value}, which is not a score")
    return value


REMARKS: list[str] = []
"""What was scored 0 because it could not be read."""
REQUESTS: dict[str, Callable[[dict[str, Any]], Any]] = {"hello": hello, "check": check, "prepare": prepare, "score": score}


def answer(line: str) -> dict[str, Any]:
    """The answer to one request; a failure of OSWorld's code, whatever it raises, is one too."""
    try:
        request = json.loads(line)
        WATCH.begin(request["do"], request)
        result = REQUESTS[request["do"]](request)
    except (TaskError, GraderFault) as error:
        return _failure(str(error))
    except Exception as error:  # noqa: BLE001 - it is not our code, and our caller must hear of everything
        traceback.print_exc()
        return _failure(f"{type(error).__name__}: {error}")
    WATCH.seal()
    if "folder" in request and shutil.disk_usage(request["folder"]).free < DISK_BYTES:
        WATCH.lacking["disk"] = f"the disk of {request['folder']} is full"
    if WATCH.failures:
        return _failure("")
    said = [*REMARKS, *WATCH.left.values()] if request["do"] == "score" else []
    return {"ok": result} | ({"remarks": said} if said else {})


def _failure(message: str) -> dict[str, Any]:
    if WATCH.lacking:
        return {"error": "; ".join(sorted(set(WATCH.lacking.values()))[:3]), "component": "grader"}
    if WATCH.broken:
        lost = "; ".join(sorted(set(WATCH.broken.values()))[:3])
        return {"error": f"the guest failed OSWorld's code: {lost}. {message}".strip()[:2000], "component": "guest"}
    return {"error": message[:1000], "component": "grader"}


def end_with(parent: int) -> None:
    """End when the run is gone that asks us, also in the middle of a request that would go on for a quarter of an hour."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_SECONDS)
    os.killpg(os.getpid(), 9)  # with the programs that we started


def main() -> None:
    if os.getpgid(0) == os.getpid():
        threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # so that no print of OSWorld's code is taken for an answer
    sys.stdout = sys.stderr
    logging.basicConfig(level="INFO", stream=sys.stderr)
    load()
    for line in sys.stdin:
        replies.write(json.dumps(answer(line)) + "\n")

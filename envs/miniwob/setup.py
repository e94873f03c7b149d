"""A working browser for MiniWoB++, installed if there is none: what ``agentlab setup miniwob`` does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

from envs.base import TaskSpec
from envs.errors import InfrastructureError, SetupError
from envs.miniwob import tasks
from envs.miniwob.browser import BY_HAND, ENV_VAR, REMEDIES, find_browser, installed_browsers
from envs.miniwob.env import MiniWoBEnv

Progress = Callable[[str], None]

DOWNLOAD_SECONDS = 900
INDEX_SECONDS = 300


def ensure_browser(progress: Progress = print) -> str:
    """Path of a browser that has really opened a task page.

    Tried in turn, each announced through ``progress``: a browser that is already there; the download of Playwright's own
    (``python -m playwright install chromium``); as root on Debian or Ubuntu, ``apt-get install chromium``.  A browser named by
    ``$AGENTLAB_BROWSER`` is the user's choice: if it does not work, nothing is installed in its place.

    Raises:
        SetupError: none of them works; the message says why each did not.
    """
    if os.environ.get(ENV_VAR):
        return verify(find_browser(), progress)
    failures: list[str] = []
    tried: set[str] = set()

    def first_working() -> str | None:
        for path in installed_browsers():
            if path not in tried:
                tried.add(path)
                try:
                    return verify(path, progress)
                except SetupError as error:
                    failures.append(error.message)
                    progress(error.message)
        return None

    progress("Looking for an installed browser ...")
    if working := first_working():
        return working
    for what, commands in _installers():
        progress(f"{what} ...")
        try:
            for command, seconds in commands:
                _run(command, seconds)
        except SetupError as error:
            failures.append(error.message)
            progress(error.message)
        if working := first_working():
            return working
    raise SetupError(" ".join(["No browser could be set up.", *failures]), BY_HAND)


def verify(path: str, progress: Progress = print) -> str:
    """Start the browser, open a task page, take a screenshot; returns ``path``.

    Raises:
        SetupError: it does not start, or cannot show the page.
    """
    env = MiniWoBEnv(browser=path)
    try:
        observation, info = env.reset(options={"task": TaskSpec(tasks.ENV_ID, "click-test", 0, max_steps=1)})
    except InfrastructureError as error:
        raise SetupError(f"{path} could not show a task page: {error.message}", REMEDIES) from error
    finally:
        env.close()
    height, width, _ = observation["screenshot"].shape
    progress(f"{path} works: it showed a {width}x{height} page that says {info['instruction']!r}.")
    return path


def _installers() -> Iterator[tuple[str, list[tuple[list[str], int]]]]:
    """(what is done, [(command, bound in seconds), ...]) of each way to install a browser that this machine offers."""
    yield (
        "Downloading Playwright's Chromium (about 180 MB)",
        [([sys.executable, "-m", "playwright", "install", "chromium"], DOWNLOAD_SECONDS)],
    )
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if root and shutil.which("apt-get"):
        install = ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]
        yield "Installing Debian's chromium with apt-get", [(["apt-get", "update"], INDEX_SECONDS), (install, DOWNLOAD_SECONDS)]


def _run(command: list[str], seconds: int) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=seconds, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"`{' '.join(command)}` did not finish within {seconds} s.") from error
    except OSError as error:
        raise SetupError(f"`{command[0]}` could not be run: {error}.") from error
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        reason = next((line for line in lines if "error" in line.lower() or line.startswith("E:")), lines[-1] if lines else "")
        raise SetupError(f"`{' '.join(command)}` failed (exit code {done.returncode}): {reason[:300]}")

"""What can befall a desktop in a container, and the engine below it: for ``osworld_faults.py``."""

from __future__ import annotations

import argparse
import signal
import subprocess
import time
from collections.abc import Callable

import docker
import psutil
from channel_faults import CHANNEL_FAULTS
from docker.models.containers import Container

from envs import containers
from envs.containers.engine import ENGINE_FAULTS


def kill_guest(container: Container) -> None:
    container.exec_run(["pkill", "-9", "-f", "guest.server"])


def kill_screen(container: Container) -> None:
    container.exec_run(["pkill", "-9", "Xvfb"])


def fill_disk(container: Container) -> None:
    container.exec_run(["sh", "-c", "head -c 32M /dev/zero > /home/user/Documents/.fill"])


def block_port(container: Container) -> None:
    container.reload()
    port = container.attrs["NetworkSettings"]["Ports"]["5000/tcp"][0]["HostPort"]
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "docker-proxy" and port in (process.info["cmdline"] or ()):
            process.kill()


CONTAINER_FAULTS: dict[str, Callable[[Container], object]] = {
    "guest killed": kill_guest,
    "screen killed": kill_screen,
    "container killed": lambda container: container.kill(),
    "container paused": lambda container: container.pause(),
    "container removed": lambda container: container.remove(force=True),
    "port blocked": block_port,
    "disk filled": fill_disk,
}


def kill_grader(runner: int) -> None:
    """One of the run's graders, whatever it is doing."""
    for child in psutil.Process(runner).children(recursive=True):
        if "grader/__main__.py" in " ".join(child.cmdline()):
            child.kill()
            return
    raise psutil.NoSuchProcess(runner)


GRADER_KILLED = "grader killed"
RUNNER_KILLED = "runner killed"
ENGINE_SIGNALS = {"engine restarted": signal.SIGTERM, "engine killed": signal.SIGKILL}
ENGINE_SECONDS = 600.0


def restart_engine(client: docker.DockerClient, number: signal.Signals) -> None:
    """End dockerd by this signal, start it again as it was started, and wait until it answers."""
    found = (process for process in psutil.process_iter(["name", "status"]) if process.info["name"] == "dockerd")
    (engine,) = (process for process in found if process.info["status"] != psutil.STATUS_ZOMBIE)
    command, nice = engine.cmdline(), engine.nice()
    engine.send_signal(number)
    engine.wait(ENGINE_SECONDS)
    until = time.monotonic() + ENGINE_SECONDS
    started = None
    while not _answers(client) and time.monotonic() < until:
        if started is None or started.poll() is not None:  # on a busy machine it gives its containerd up after 15 s, and ends
            started = subprocess.Popen(
                command,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            psutil.Process(started.pid).nice(nice)
        time.sleep(0.5)
    containers.await_engine(client, 1.0)


def _answers(client: docker.DockerClient) -> bool:
    try:
        return bool(client.ping())
    except ENGINE_FAULTS:
        return False


def kinds_of(text: str) -> list[str]:
    """The kinds of faults that ``--kinds`` names."""
    containers_, channels = [*CONTAINER_FAULTS, RUNNER_KILLED], [*CHANNEL_FAULTS, GRADER_KILLED]
    groups = {"containers": containers_, "channels": channels, "all": containers_ + channels, "engine": list(ENGINE_SIGNALS)}
    chosen = groups.get(text) or text.split(",")
    known = [kind for group in groups.values() for kind in group]
    if unknown := set(chosen) - set(known):
        raise argparse.ArgumentTypeError(f"there is no kind {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return chosen

"""What this machine has and lacks: one line each, and the command that mends it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from envs.errors import LabError, SetupError


@dataclass(frozen=True)
class Finding:
    """One line of the report.  ``mend`` is a command; ``needed`` is False for what only some benchmarks or models want."""

    what: str
    ok: bool
    detail: str
    mend: str = ""
    needed: bool = True


def examine() -> Iterator[Finding]:
    """All findings, cheap ones first."""
    version = ".".join(str(v) for v in sys.version_info[:3])
    yield Finding("Python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")
    for module in (
        "torch",
        "torchvision",
        "transformers",
        "peft",
        "qwen_vl_utils",
        "gymnasium",
        "textgrad",
        "miniwob",
        "playwright",
    ):
        found = importlib.util.find_spec(module) is not None
        yield Finding(module, found, "installed" if found else "missing", "python -m pip install -e .")
    yield _writable(Path("runs"))
    yield _memory()
    yield _tried("browser (MiniWoB++)", _browser, "agentlab setup miniwob")
    yield _tried("bundled policy", _bundled, "agentlab pretrain")
    yield _tried("GPU", _gpu, "", needed=False)
    yield _tried("Docker (OSWorld, AndroidWorld)", _docker, "install Docker Engine and start it", needed=False)
    yield _tried("OSWorld task set", _osworld_tasks, "agentlab fetch osworld", needed=False)
    yield _tried("OSWorld grader", _osworld_grader, "agentlab fetch osworld --suite light", needed=False)
    yield _tried("OSWorld light desktop", _osworld_light, "agentlab containers build", needed=False)
    yield _tried("OSWorld official machine", _osworld_official, "agentlab fetch osworld --vm", needed=False)
    yield _tried("AndroidWorld image", _android_image, "agentlab fetch androidworld", needed=False)
    yield _tried("disk for AndroidWorld", _android_disk, "free some: docker system df", needed=False)
    yield _tried("/dev/kvm (OSWorld, AndroidWorld)", _kvm, "enable virtualisation, or join the group kvm", needed=False)


def _tried(what: str, probe: Callable[[], str], mend: str, *, needed: bool = True) -> Finding:
    try:
        return Finding(what, True, probe(), needed=needed)
    except LabError as error:
        return Finding(what, False, error.message, mend, needed)


def _writable(folder: Path) -> Finding:
    there = next(p for p in (folder, *folder.resolve().parents) if p.exists())
    free = shutil.disk_usage(there).free / 2**30
    ok = os.access(there, os.W_OK) and free > 1
    return Finding("run directory", ok, f"{folder.resolve()}, {free:.0f} GB free", "agentlab run ... --out DIR")


def _memory() -> Finding:
    import psutil

    free = psutil.virtual_memory().available / 2**30
    return Finding("memory", free > 2, f"{free:.1f} GB available, {os.cpu_count()} CPUs", "close other programs", needed=False)


def _browser() -> str:
    from envs.miniwob.browser import find_browser

    return find_browser()


def _bundled() -> str:
    from policies.registry import bundled_checkpoint

    return str(bundled_checkpoint())


def _gpu() -> str:
    smi = shutil.which("nvidia-smi")
    if smi is None:
        raise SetupError("none found; policies run on the CPU")
    command = [smi, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired as error:
        raise SetupError("nvidia-smi does not answer; the driver may hang") from error
    if found.returncode != 0 or not found.stdout.strip():
        raise SetupError(f"nvidia-smi reports no GPU: {found.stderr.strip() or found.stdout.strip()}")
    return "; ".join(found.stdout.strip().splitlines())


def _docker() -> str:
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=5)
        try:
            return f"Engine {client.version()['Version']}"
        finally:
            client.close()
    except DockerException as error:
        raise SetupError(f"no Docker Engine answers ({error})") from error


def _android_image() -> str:
    from envs.androidworld.setup import image_found

    return image_found()


def _android_disk() -> str:
    from envs.androidworld.setup import DISK_GB, free_gb, image_found

    free = free_gb()
    try:
        image_found()
    except SetupError as error:
        if free < DISK_GB:
            raise SetupError(f"{free:.0f} GB free, {DISK_GB} GB needed for its images") from error
    return f"{free:.0f} GB free"


def _osworld_tasks() -> str:
    from envs.osworld.upstream import tasks_folder

    return str(tasks_folder())


def _osworld_grader() -> str:
    from envs.osworld.upstream import grader_python

    return str(grader_python())


def _osworld_light() -> str:
    from envs import containers
    from envs.osworld.providers import LIGHT_BUILD, LIGHT_IMAGE

    containers.require_image(containers.connect(), LIGHT_IMAGE, LIGHT_BUILD)
    return LIGHT_IMAGE


def _osworld_official() -> str:
    from envs import containers
    from envs.osworld.official import IMAGE, PULL
    from envs.osworld.upstream import disk_file

    if not disk_file().is_file():
        raise SetupError(f"there is no {disk_file()}")
    containers.require_image(containers.connect(), IMAGE, PULL)
    return f"{IMAGE} and {disk_file()}"


def _kvm() -> str:
    from envs.androidworld.providers import require_kvm

    return f"{require_kvm()} is usable"

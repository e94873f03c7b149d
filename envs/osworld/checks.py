"""What OSWorld wants of a machine, for ``agentlab doctor``."""

from __future__ import annotations

from collections.abc import Iterator

from envs import containers
from envs.benchmark import Check
from envs.containers import engine_check
from envs.errors import SetupError
from envs.osworld.kvm import KVM, tried
from envs.osworld.official import IMAGE, PULL
from envs.osworld.providers import LIGHT_BUILD, LIGHT_IMAGE
from envs.osworld.upstream import disk_file, grader_python, tasks_folder


def checks() -> Iterator[Check]:
    """Engine, task set, grader, both kinds of machine, virtualisation."""
    yield engine_check()
    yield Check("OSWorld task set", lambda: str(tasks_folder()), "agentlab fetch osworld")
    yield Check("OSWorld grader", lambda: str(grader_python()), "agentlab fetch osworld --suite light")
    yield Check("OSWorld light desktop", _light, "agentlab containers build")
    yield Check("OSWorld official machine", _official, "agentlab fetch osworld --vm")
    yield Check("KVM for OSWorld", _kvm, "enable virtualisation; without it the official machine is emulated")


def _light() -> str:
    containers.require_image(containers.connect(), LIGHT_IMAGE, LIGHT_BUILD)
    return LIGHT_IMAGE


def _official() -> str:
    if not disk_file().is_file():
        raise SetupError(f"there is no {disk_file()}")
    containers.require_image(containers.connect(), IMAGE, PULL)
    return f"{IMAGE} and {disk_file()}"


def _kvm() -> str:
    if not KVM.exists():
        raise SetupError(f"{KVM} is not there")
    if (ran := tried(IMAGE)) is False:
        raise SetupError(f"{KVM} is there, and a tiny guest did not run with it")
    return "a tiny guest ran" if ran else f"{KVM} is there (tried when {IMAGE} is)"

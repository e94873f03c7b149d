"""What OSWorld wants of a machine, for ``agentlab doctor``."""

from __future__ import annotations

from collections.abc import Iterator

from envs import containers
from envs.benchmark import Check
from envs.containers import engine_check
from envs.errors import SetupError
from envs.osworld.providers import KVM, LIGHT_BUILD, LIGHT_IMAGE, OFFICIAL_IMAGE, OFFICIAL_PULL, usable_kvm
from envs.osworld.upstream import disk_file, grader_python, tasks_folder


def checks() -> Iterator[Check]:
    """Engine, task set, grader, both kinds of machine, virtualisation."""
    yield engine_check()
    yield Check("OSWorld task set", lambda: str(tasks_folder()), "agentlab fetch osworld")
    yield Check("OSWorld grader", lambda: str(grader_python()), "agentlab fetch osworld --suite light")
    yield Check("OSWorld light desktop", _light, "agentlab containers build")
    yield Check("OSWorld official machine", _official, "agentlab fetch osworld --vm")
    yield Check("/dev/kvm", _kvm, "enable virtualisation, or join the group kvm")


def _light() -> str:
    containers.require_image(containers.connect(), LIGHT_IMAGE, LIGHT_BUILD)
    return LIGHT_IMAGE


def _official() -> str:
    if not disk_file().is_file():
        raise SetupError(f"there is no {disk_file()}")
    containers.require_image(containers.connect(), OFFICIAL_IMAGE, OFFICIAL_PULL)
    return f"{OFFICIAL_IMAGE} and {disk_file()}"


def _kvm() -> str:
    if not usable_kvm():
        raise SetupError(f"{KVM} {'may not be used by this user' if KVM.exists() else 'is not there'}")
    return f"{KVM} is usable"

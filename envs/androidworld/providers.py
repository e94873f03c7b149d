"""Where emulators come from: our image, upstream's own image, or servers that are running already.

An emulator takes minutes to boot and AndroidWorld itself puts it back between tasks, so a device is used again, by whichever
environment comes next, until it fails.  One container has one emulator with its own adb and gRPC ports; only the server's port is
published, on a free port of the loopback interface.  No container is privileged: it gets ``/dev/kvm`` and nothing else.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envs.androidworld import knobs as guest
from envs.androidworld import tasks
from envs.androidworld.adb import SideDoor
from envs.androidworld.device import Device, Instance
from envs.androidworld.ours import OurDevice
from envs.androidworld.upstream import UpstreamDevice
from envs.containers import Container, ContainerSpec, Fleet, Ledger, SparePool
from envs.containers.engine import DOCKERFILES
from envs.containers.fleet import LOOPBACK
from envs.errors import InfrastructureError, SetupError

logger = logging.getLogger(__name__)

PORT = 5000
OUR_IMAGE = "agentlab/androidworld"
OUR_DOCKERFILE = "androidworld"
UPSTREAM_IMAGE = "android_world:latest"
"""As upstream's README tags it."""
KVM = Path("/dev/kvm")
COLD_SECONDS = 3600.0
"""The first start boots the emulator and installs 24 applications: 5-10 minutes where upstream measured it."""
MEMORY = "8g"
STARTS = 64
"""How many emulators may boot at once: as many as are asked for.  Warm ones mostly wait; of cold ones one installs, the rest wait."""
STRIKES = 3
"""Failures in a row, with no graded episode between them, after which an emulator that calls itself healthy is replaced anyway."""


class Provider(ABC):
    """Hands out devices.  Threads may share one; ``close`` can be called twice."""

    name: str

    def __init__(self) -> None:
        self.goals: dict[Instance, str] = {}
        """The goal that each instance had when it was first initialised, on whichever device."""

    @abstractmethod
    def acquire(self) -> Device:
        """A device that answers, for this caller alone.

        Raises:
            SetupError: the machine lacks something; the hint is the command that brings it.
            InfrastructureError: no device answers.
        """

    @abstractmethod
    def release(self, device: Device, error: InfrastructureError | None = None) -> None:
        """Give a device back, with the failure of the machinery that ended its use, if one did."""

    def worked(self, device: Device) -> None:
        """An episode on a device that is still in use was played and graded to its end."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back."""

    def explain(self, device: Device, error: InfrastructureError) -> InfrastructureError:
        """The same failure, with what is known about the machine below it."""
        return error


class ContainerProvider(Provider):
    """Emulators in containers of this machine.

    Args:
        run: Name of the run, for ``agentlab containers``.
        image: Tag to use instead of the usual one.
        spares: How many booted emulators wait, paused, to replace one that failed; each takes its memory and no CPU.
        knobs: Settings of the emulator (:data:`envs.androidworld.knobs.KNOBS`).
        ledger: Where started containers are noted.
        log_dir: Where the logs of containers that failed are kept.
    """

    image: str
    boot_seconds = COLD_SECONDS
    knobs: Mapping[str, Any] = {}

    def __init__(
        self,
        run: str = "androidworld",
        *,
        image: str = "",
        spares: int = 0,
        knobs: Mapping[str, Any] | None = None,
        ledger: Ledger | None = None,
        log_dir: Path | None = None,
    ) -> None:
        super().__init__()
        self.image = image or self.image
        self.knobs = {name: value for name, value in (knobs or {}).items() if value is not None}
        guest.check(self.knobs, self.name)
        self.boot_seconds = max(self.boot_seconds, guest.boot_seconds(self.knobs))
        spec = self.spec()
        self._fleet = Fleet(run, ledger=ledger, log_dir=log_dir, starts=STARTS)
        self._pool = SparePool(self._fleet, spec, self._missing, size=spares, boot_timeout=self.boot_seconds)
        self._pool.fill()
        self._idle: deque[Device] = deque()
        self._containers: dict[Device, Container] = {}
        self._strikes: dict[Device, int] = {}
        self._lock = threading.Lock()

    @abstractmethod
    def spec(self) -> ContainerSpec:
        """What is started.

        Raises:
            SetupError: it cannot run on this machine.
        """

    @abstractmethod
    def connect(self, container: Container) -> Device:
        """The device in a started container."""

    def acquire(self) -> Device:
        while True:
            with self._lock:
                device = self._idle.popleft() if self._idle else None
            if device is None:
                container = self._pool.take()
                device = self.connect(container)
                with self._lock:
                    self._containers[device] = container
                return device
            if not device.alive():
                return device
            self._discard(device)

    def release(self, device: Device, error: InfrastructureError | None = None) -> None:
        with self._lock:
            # A task that cannot be initialised is not the emulator's fault; some tasks never can be.
            if error is None or error.component != "task":
                self._strikes[device] = 0 if error is None else self._strikes.get(device, 0) + 1
            worn = self._strikes.get(device, 0) >= STRIKES
        if error is not None and (worn or self._containers[device].refresh() != "running" or device.alive()):
            self._discard(device)
            return
        with self._lock:
            self._idle.append(device)

    def worked(self, device: Device) -> None:
        with self._lock:
            self._strikes.pop(device, None)

    def close(self) -> None:
        with self._lock:
            devices = list(self._containers)
            self._idle.clear()
            self._containers.clear()
        for device in devices:
            device.close()
        self.interrupt()  # first: guests boot for minutes, and the pool waits for those that do
        self._pool.close()
        self._fleet.close()

    def interrupt(self) -> None:
        """Who waits for a guest that boots is told at once that none will come; those that run go on."""
        self._fleet.interrupt()

    def explain(self, device: Device, error: InfrastructureError) -> InfrastructureError:
        """Says when the container itself is to blame, and keeps its log."""
        container = self._containers.get(device)
        if container is None:
            return error
        state = container.refresh()
        if state == "gone":
            return InfrastructureError(f"The container {container.name} is gone. {error.message}", component="container")
        said = self._fleet.keep_log(container)
        if state == "running":
            return InfrastructureError(error.message, said, component=error.component)
        return InfrastructureError(f"The container {container.name} is {state}. {error.message}", said, component="container")

    def _discard(self, device: Device) -> None:
        device.close()
        with self._lock:
            container = self._containers.pop(device, None)
            self._strikes.pop(device, None)
        if container is not None:
            logger.warning("The emulator in %s failed; another one takes its place.", container.name)
            self._pool.give_back(container)

    def _missing(self, container: Container) -> str:
        return missing(self.connect(container))


class OurProvider(ContainerProvider):
    """Our image: upstream's emulator and package with our guest server before them.

    The first start on a machine installs the applications and keeps the prepared device in a Docker volume; later starts are warm.
    """

    name = "ours"
    image = OUR_IMAGE

    def spec(self) -> ContainerSpec:
        return our_spec(self.image, self.knobs)

    def connect(self, container: Container) -> Device:
        return our_device(container)


def our_spec(image: str, knobs: Mapping[str, Any]) -> ContainerSpec:
    """An emulator of our image with these settings.

    Raises:
        SetupError: it cannot run on this machine.
    """
    return ContainerSpec(
        image=image,
        mend="Build it: `agentlab fetch androidworld`.",
        ports=(PORT,),
        environment=guest.environment(knobs),
        memory=guest.memory(knobs),
        hostname="android",
        shm="1g",
        init=True,
        **_kvm(knobs, groups=True),
        volumes={prepared_volume(): "/prepared"},
    )


def our_device(container: Container) -> Device:
    """The device behind our server in ``container``."""
    return OurDevice(LOOPBACK, container.ports[PORT])


def missing(device: Device) -> str:
    """What a device that was just started still lacks; it is closed."""
    try:
        return device.missing()
    finally:
        device.close()


class UpstreamProvider(ContainerProvider):
    """Upstream's image as it is, unprivileged.  Every start installs everything again: upstream keeps nothing."""

    name = "upstream"
    image = UPSTREAM_IMAGE

    def spec(self) -> ContainerSpec:
        return ContainerSpec(
            image=self.image,
            mend="Build it from upstream's repository as its README says, and tag it so or give --set androidworld.image=TAG.",
            ports=(PORT,),
            environment=guest.upstream_environment(self.knobs),
            memory=MEMORY,
            hostname="android",
            shm="1g",
            init=True,
            cap_drop=(),  # its entry point runs everything as root, with files of several users
            **_kvm(self.knobs, groups=False),
        )

    def connect(self, container: Container) -> Device:
        return UpstreamDevice(LOOPBACK, container.ports[PORT], SideDoor(container))


def _kvm(knobs: Mapping[str, Any], *, groups: bool) -> dict[str, Any]:
    """The part of a :class:`ContainerSpec` that gives the emulator its acceleration."""
    if guest.value_of(knobs, "accel") == "off":
        return {}
    device = require_kvm()
    return {"devices": (device,), "groups": (KVM.stat().st_gid,)} if groups else {"devices": (device,)}


def prepared_volume() -> str:
    """The Docker volume that holds the prepared device of the pinned revision."""
    return f"agentlab-androidworld-{tasks.revision()[:12]}"


def require_kvm() -> str:
    """The KVM device's path.

    Raises:
        SetupError: it does not exist, or this user may not use it.
    """
    if not KVM.exists():
        raise SetupError(
            "There is no /dev/kvm: an Android emulator needs hardware virtualisation.",
            "Enable it in the firmware (or nested virtualisation in the cloud), or use --provider HOST:PORT of a machine that has it.",
        )
    # The container is started by the engine and gets the device's group: what this user may do does not matter.
    if not any(KVM.stat().st_mode & both == both for both in (0o060, 0o006)):
        raise SetupError(
            f"/dev/kvm is there, but only its owner may use it (mode {KVM.stat().st_mode & 0o777:o}); the emulator does not run as root.",
            "Let its group: `sudo chmod 660 /dev/kvm`.",
        )
    return str(KVM)


def kvm_runs() -> str:
    """What ``agentlab doctor`` says of KVM: whether a guest of a few bytes ran.

    Raises:
        SetupError: it is unavailable, or no guest runs.
    """
    device = require_kvm()
    if not os.access(KVM, os.R_OK | os.W_OK):
        return f"{device} is there for containers; whether a guest runs could not be tried as this user"
    probe = [sys.executable, str(DOCKERFILES / OUR_DOCKERFILE / "guest" / "kvm.py"), device]
    try:
        done = subprocess.run(probe, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"A guest that was started with {device} hangs.") from error
    if done.returncode != 0:
        raise SetupError(done.stdout.strip() or f"{device}: {done.stderr.strip()[-200:]}")
    return f"{device}: a guest runs"

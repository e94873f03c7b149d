"""Where guests come from: our light image, OSWorld's official virtual machine, or one that is running already.

The three share one interface, so that neither the environment nor the grader knows which it is.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from envs.containers import Container, ContainerSpec, Fleet, Ledger, SparePool
from envs.containers.fleet import LOOPBACK
from envs.errors import InfrastructureError, SetupError, UsageError
from envs.osworld.client import GuestClient

SERVER, CHROMIUM, VLC, VNC = 5000, 9222, 8080, 8006
"""The ports of OSWorld's guests."""

LIGHT_IMAGE = "agentlab/osworld-desktop"
LIGHT_DOCKERFILE = "osworld-desktop"
LIGHT_BOOT_SECONDS = 180.0
"""Three seconds on an idle machine; one whose cores are ten times overbooked takes more than a minute."""
LIGHT_BUILD = "Build it (three minutes): `agentlab containers build`."
OFFICIAL_IMAGE = "happysixd/osworld-docker"
OFFICIAL_PULL = f"Pull it: `docker pull {OFFICIAL_IMAGE}`."
OFFICIAL_BOOT_SECONDS = 300.0
OFFICIAL_BOOT_SECONDS_WITHOUT_KVM = 1800.0
ADDRESS_SECONDS = 30.0
KVM = Path("/dev/kvm")


@dataclass(frozen=True)
class Guest:
    """A running desktop.

    Attributes:
        host: Where its ports are published.
        ports: Port of the guest -> port on ``host``.
        password: Of the desktop's user, for tasks that ask for it; empty where there is no sudo.
        container: The container it runs in, when we started it.
    """

    client: GuestClient
    host: str
    ports: dict[int, int]
    password: str
    container: Container | None = None


class Provider(ABC):
    """Hands out clean desktops.  Threads may share one; ``close`` can be called twice."""

    name: str
    clean = True
    """Whether every acquired guest is as new.  A guest that was running before us is not."""

    @abstractmethod
    def acquire(self) -> Guest:
        """A desktop that is drawn and answers.

        Raises:
            SetupError: the machine lacks something; the hint is the command that brings it.
            InfrastructureError: it did not start.
        """

    @abstractmethod
    def release(self, guest: Guest) -> None:
        """Give a desktop back; it is not used again."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back."""

    def explain(self, guest: Guest, error: InfrastructureError) -> InfrastructureError:
        """The same failure, with what is known about the machine below it."""
        return error


class ContainerProvider(Provider):
    """Guests in containers of this machine, with booted spares for a reset in a tenth of a second.

    Args:
        run: Name of the run, for ``agentlab containers``.
        spares: How many booted desktops wait, paused; each takes memory but no CPU.
        ledger: Where started containers are noted.
        log_dir: Where the logs of containers that failed are kept.
    """

    password = ""

    def __init__(self, run: str = "osworld", *, spares: int = 1, ledger: Ledger | None = None, log_dir: Path | None = None) -> None:
        self._fleet = Fleet(run, ledger=ledger, log_dir=log_dir)
        self._pool = SparePool(self._fleet, self.spec(), probe, size=spares, boot_timeout=self.boot_seconds())
        self._pool.fill()

    @abstractmethod
    def spec(self) -> ContainerSpec:
        """What is started."""

    @abstractmethod
    def boot_seconds(self) -> float:
        """How long a boot may take."""

    def acquire(self) -> Guest:
        container = self._pool.take()
        client = GuestClient(LOOPBACK, container.ports[SERVER])
        return Guest(client, LOOPBACK, dict(container.ports), self.password, container)

    def release(self, guest: Guest) -> None:
        guest.client.close()
        if guest.container is not None:
            self._pool.give_back(guest.container)

    def close(self) -> None:
        self._pool.close()
        self._fleet.close()

    def explain(self, guest: Guest, error: InfrastructureError) -> InfrastructureError:
        """Says when the container itself is to blame, and keeps its log."""
        if guest.container is None:
            return error
        state = guest.container.refresh()
        kept = self._fleet.keep_log(guest.container)
        if state == "running":
            return InfrastructureError(error.message, f"The log of its container is kept in {kept}.", component=error.component)
        message = f"The container {guest.container.name} is {state}. {error.message}"
        return InfrastructureError(message, f"Its log is kept in {kept}.", component="container")


def probe(container: Container) -> str:
    """What the desktop in a container still lacks, or an empty string when it is drawn and answers."""
    client = GuestClient(LOOPBACK, container.ports[SERVER])
    try:
        return client.missing()
    finally:
        client.close()


def light_spec(screen: tuple[int, int] = (1920, 1080)) -> ContainerSpec:
    """The light desktop with a screen of (width, height) pixels."""
    return ContainerSpec(
        image=LIGHT_IMAGE,
        mend=LIGHT_BUILD,
        ports=(SERVER, CHROMIUM),
        environment={"SCREEN_SIZE": "{}x{}".format(*screen)},
    )


class LightProvider(ContainerProvider):
    """Our own desktop image (``dockerfiles/osworld-desktop``): no KVM, about three seconds, 210 MB."""

    name = "light"

    def __init__(self, run: str = "osworld", *, screen: tuple[int, int] = (1920, 1080), **rest: object) -> None:
        self.screen = screen
        super().__init__(run, **rest)  # type: ignore[arg-type]

    def spec(self) -> ContainerSpec:
        return light_spec(self.screen)

    def boot_seconds(self) -> float:
        return LIGHT_BOOT_SECONDS


class OfficialProvider(ContainerProvider):
    """OSWorld's own Ubuntu in QEMU (``happysixd/osworld-docker``).

    Args:
        disk: The virtual machine's ``Ubuntu.qcow2``; mounted read-only, so every boot is clean.
        ram: As QEMU writes it.  Upstream gives 4G, on which office tasks swap.
        cores: Virtual CPUs.
    """

    name = "official"
    password = "password"

    def __init__(self, disk: Path, run: str = "osworld", *, ram: str = "4G", cores: int = 4, **rest: object) -> None:
        if not disk.is_file():
            raise SetupError(
                f"There is no virtual disk {disk}.",
                "Fetch it (12 GB, 24 GB unpacked): `agentlab fetch osworld --vm`; or name another with --set osworld.disk=PATH.",
            )
        self.disk, self.ram, self.cores = disk, ram, cores
        super().__init__(run, **({"spares": 0} | rest))  # type: ignore[arg-type]

    def spec(self) -> ContainerSpec:
        kvm = usable_kvm()
        return ContainerSpec(
            image=OFFICIAL_IMAGE,
            mend=OFFICIAL_PULL,
            ports=(SERVER, CHROMIUM, VLC, VNC),
            environment={
                "DISK_SIZE": "32G", "RAM_SIZE": self.ram, "CPU_CORES": str(self.cores), **({} if kvm else {"KVM": "N"}),
            },
            cap_drop=(),  # its entry point sets up the virtual machine's network as root
            cap_add=("NET_ADMIN",),
            devices=(str(KVM),) if kvm else (),
            read_only_files={str(self.disk.resolve()): "/System.qcow2"},
        )  # fmt: skip

    def boot_seconds(self) -> float:
        return OFFICIAL_BOOT_SECONDS if usable_kvm() else OFFICIAL_BOOT_SECONDS_WITHOUT_KVM


def usable_kvm() -> bool:
    """Whether virtual machines run at full speed here; without, the official image boots in minutes and acts in slow motion."""
    return os.access(KVM, os.R_OK | os.W_OK)


class AddressProvider(Provider):
    """Guests that somebody else started.  Each is used by one episode at a time, as it is, and left as it is: a reset does not clean it.

    Args:
        addresses: ``HOST:PORT`` of each (:func:`parse_address`), separated by commas.
        password: Of the desktop's user.
        patience: How many seconds a guest may take to become usable: one that somebody works with is not at rest at every moment.
    """

    name = "address"
    clean = False

    def __init__(self, addresses: str, *, password: str = "password", patience: float = ADDRESS_SECONDS) -> None:
        self.password, self.patience = password, patience
        self.addresses = [parse_address(address) for address in addresses.split(",")]
        self._free = deque(self.addresses)

    def acquire(self) -> Guest:
        try:
            host, ports = self._free.popleft()
        except IndexError:
            many = len(self.addresses)
            raise UsageError(
                f"All {many} guests are in use.", f"Use --workers {many}, or name more, separated by commas."
            ) from None
        client = GuestClient(host, ports[SERVER])
        missing = client.missing_after(self.patience)
        if missing:
            client.close()
            self._free.append((host, ports))
            raise InfrastructureError(f"The guest at {host}:{ports[SERVER]} is not usable: {missing}.", component="guest")
        return Guest(client, host, dict(ports), self.password)

    def release(self, guest: Guest) -> None:
        guest.client.close()
        self._free.append((guest.host, guest.ports))

    def close(self) -> None:
        pass


def parse_address(address: str) -> tuple[str, dict[int, int]]:
    """``HOST:SERVER`` or, as desktop-env writes it, ``HOST:SERVER:CHROMIUM:VNC:VLC``; without a host, the ports of this machine.

    Raises:
        UsageError: anything else.
    """
    host, *rest = (address if not address.split(":")[0].isdecimal() else f"{LOOPBACK}:{address}").split(":")
    if not host or len(rest) not in (1, 4) or not all(port.isdecimal() and 0 < int(port) < 65536 for port in rest):
        raise UsageError(f"{address!r} is no address of a guest.", "Write HOST:SERVER_PORT or HOST:SERVER:CHROMIUM:VNC:VLC.")
    return host, dict(zip((SERVER, CHROMIUM, VNC, VLC), map(int, rest), strict=False))


def start_light(count: int, *, run: str, ttl: int) -> list[Container]:
    """Start light desktops that outlive this process, until they are stopped or their time to live (seconds) is over."""
    fleet = Fleet(run, ttl=ttl, detached=True)
    return fleet.start_many(light_spec(), count, probe, LIGHT_BOOT_SECONDS)

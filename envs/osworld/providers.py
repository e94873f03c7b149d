"""Where guests come from: our light image, OSWorld's official virtual machine (``official``), or one that is running already
(``address``).

The three share one interface, so that neither the environment nor the grader knows which it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from envs.containers import Container, ContainerSpec, Fleet, Ledger, SparePool
from envs.containers.fleet import LOOPBACK
from envs.errors import InfrastructureError
from envs.osworld.client import CONNECT_SECONDS, GuestClient
from envs.osworld.jobs import Job
from envs.osworld.ports import CHROMIUM, SERVER

LIGHT_IMAGE = "agentlab/osworld-desktop"
LIGHT_DOCKERFILE = "osworld-desktop"
LIGHT_BOOT_SECONDS = 180.0
"""Three seconds on an idle machine; one whose cores are ten times overbooked takes more than a minute."""
LIGHT_BUILD = "Build it (three minutes): `agentlab containers build`."
WAKE_SECONDS = 10.0
LIGHT_MEMORY, LIGHT_CORES, LIGHT_PIDS = "3G", 2, 1024
"""Limits of one desktop.  An office document and a browser with a few pages take 0.6 GB and 300 threads."""


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

    def require(self, name: str, job: Job) -> None:
        """Refuse a task that these guests cannot be set up for or graded on, whatever the agent does.

        Raises:
            UsageError: with what to do instead.
        """

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
    patience = 1.0
    """Factor on every wait for an answer."""

    def __init__(self, run: str = "osworld", *, spares: int = 1, ledger: Ledger | None = None, log_dir: Path | None = None) -> None:
        self._fleet = Fleet(run, ledger=ledger, log_dir=log_dir)
        self._pool = SparePool(
            self._fleet,
            self.spec(),
            self.probe,
            size=spares,
            boot_timeout=self.boot_seconds(),
            wake_timeout=WAKE_SECONDS * self.patience,
        )
        self._pool.fill()

    @abstractmethod
    def spec(self) -> ContainerSpec:
        """What is started."""

    @abstractmethod
    def boot_seconds(self) -> float:
        """How long a boot may take."""

    def look_seconds(self) -> float:
        """How long one look at a booting guest may take."""
        return CONNECT_SECONDS

    def probe(self, container: Container) -> str:
        """What the desktop in a container still lacks, or an empty string when it is drawn and answers."""
        return probe(container, self.look_seconds())

    def acquire(self) -> Guest:
        container = self._pool.take()
        client = GuestClient(LOOPBACK, container.ports[SERVER], patience=self.patience)
        return Guest(client, LOOPBACK, dict(container.ports), self.password, container)

    def release(self, guest: Guest) -> None:
        guest.client.close()
        if guest.container is not None:
            self._pool.give_back(guest.container)

    def close(self) -> None:
        self.interrupt()  # first: guests boot for minutes, and the pool waits for those that do
        self._pool.close()
        self._fleet.close()

    def interrupt(self) -> None:
        """Who waits for a guest that boots is told at once that none will come; those that run go on."""
        self._fleet.interrupt()

    def explain(self, guest: Guest, error: InfrastructureError) -> InfrastructureError:
        """Says when the container itself is to blame, and keeps its log."""
        if guest.container is None:
            return error
        state = guest.container.refresh()
        said = self._fleet.keep_log(guest.container)
        if state == "running":
            return InfrastructureError(error.message, said, component=error.component)
        return InfrastructureError(f"The container {guest.container.name} is {state}. {error.message}", said, component="container")


def probe(container: Container, seconds: float = CONNECT_SECONDS) -> str:
    """As :meth:`ContainerProvider.probe`, within ``seconds``."""
    client = GuestClient(LOOPBACK, container.ports[SERVER])
    try:
        return client.missing(seconds)
    finally:
        client.close()


def light_spec(screen: tuple[int, int] = (1920, 1080), ram: str | None = None, cores: int | None = None) -> ContainerSpec:
    """The light desktop with a screen of (width, height) pixels, and at most so much memory and so many processors."""
    return ContainerSpec(
        image=LIGHT_IMAGE,
        mend=LIGHT_BUILD,
        ports=(SERVER, CHROMIUM),
        environment={"SCREEN_SIZE": "{}x{}".format(*screen)},
        memory=(ram or LIGHT_MEMORY).lower(),
        swap=False,
        cpus=float(cores or LIGHT_CORES),
        pids=LIGHT_PIDS,
    )


class LightProvider(ContainerProvider):
    """Our own desktop image (``dockerfiles/osworld-desktop``): no KVM, about three seconds, 210 MB."""

    name = "light"

    def __init__(
        self, run: str = "osworld", *, screen: tuple[int, int] = (1920, 1080), ram: str | None = None, cores: int | None = None,
        **rest: object,
    ) -> None:  # fmt: skip
        self.screen, self.ram, self.cores = screen, ram, cores
        super().__init__(run, **rest)  # type: ignore[arg-type]

    def spec(self) -> ContainerSpec:
        return light_spec(self.screen, self.ram, self.cores)

    def boot_seconds(self) -> float:
        return LIGHT_BOOT_SECONDS

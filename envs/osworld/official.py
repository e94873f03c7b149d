"""OSWorld's official virtual machine: Ubuntu in QEMU, in a container."""

from __future__ import annotations

from pathlib import Path

from envs.containers import ContainerSpec
from envs.errors import SetupError
from envs.osworld.kvm import KVM, usable_kvm
from envs.osworld.ports import CHROMIUM, SERVER, VLC, VNC
from envs.osworld.providers import ContainerProvider

IMAGE = "happysixd/osworld-docker"
PULL = f"Pull it: `docker pull {IMAGE}`."
BOOT_SECONDS = 300.0
BOOT_SECONDS_WITHOUT_KVM = 1800.0
PATIENCE_WITHOUT_KVM = 6.0
"""Factor on every wait for a guest in slow motion."""
LOOKS = 20
"""How many times the longest look at a guest goes into its boot: one that answers after 15 s is up, and one that never does is asked
again."""
RAM, CORES = "4G", 4
"""As upstream gives it."""
OVERHEAD_GB = 2.0
"""Memory of QEMU itself, and of the disk pages that it reads."""
GIGA = {"G": 1.0, "M": 1 / 1024}


class OfficialProvider(ContainerProvider):
    """OSWorld's own Ubuntu in QEMU (``happysixd/osworld-docker``).

    Args:
        disk: The virtual machine's ``Ubuntu.qcow2``; mounted read-only, so every boot is clean.
        ram: As QEMU writes it.  Upstream gives 4G, on which office tasks swap.
        cores: Virtual CPUs.
        image: The container's.
    """

    name = "official"
    password = "password"

    def __init__(
        self,
        disk: Path,
        run: str = "osworld",
        *,
        ram: str | None = None,
        cores: int | None = None,
        image: str = IMAGE,
        **rest: object,
    ) -> None:
        if not disk.is_file():
            raise SetupError(
                f"There is no virtual disk {disk}.",
                "Fetch it (12 GB, 24 GB unpacked): `agentlab fetch osworld --vm`; or name another with --set osworld.disk=PATH.",
            )
        self.disk, self.ram, self.cores, self.image = disk, ram or RAM, cores or CORES, image
        self.kvm = usable_kvm(image)
        self.patience = 1.0 if self.kvm else PATIENCE_WITHOUT_KVM
        super().__init__(run, **({"spares": 0} | rest))  # type: ignore[arg-type]

    def spec(self) -> ContainerSpec:
        return ContainerSpec(
            image=self.image,
            mend=PULL,
            ports=(SERVER, CHROMIUM, VLC, VNC),
            environment={
                "DISK_SIZE": "32G", "RAM_SIZE": self.ram, "CPU_CORES": str(self.cores), **({} if self.kvm else {"KVM": "N"}),
            },
            cap_drop=(),  # its entry point sets up the virtual machine's network as root
            cap_add=("NET_ADMIN",),
            memory=f"{round((gigabytes(self.ram) + OVERHEAD_GB) * 1024)}m",
            cpus=self.cores + 1.0,
            devices=(str(KVM),) if self.kvm else (),
            read_only_files={str(self.disk.resolve()): "/System.qcow2"},
        )  # fmt: skip

    def boot_seconds(self) -> float:
        return BOOT_SECONDS if self.kvm else BOOT_SECONDS_WITHOUT_KVM

    def look_seconds(self) -> float:
        return self.boot_seconds() / LOOKS


def gigabytes(ram: str) -> float:
    """``4G`` or ``4096M``, as QEMU writes memory, in GB.

    Raises:
        SetupError: it is neither.
    """
    number, unit = ram[:-1], ram[-1:].upper()
    try:
        return float(number) * GIGA[unit]
    except (KeyError, ValueError) as error:
        raise SetupError(f"{ram!r} is not a size of memory.", "Write it as QEMU does, such as --set osworld.ram=4G.") from error

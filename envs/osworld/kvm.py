"""Whether virtual machines run at full speed in a container here: a tiny one is run, once, and what became of it remembered.

That ``/dev/kvm`` is there says little.  The user of this program may not be allowed to open it, and the engine, which is root, may; and
on some machines it opens, and no guest gets past its first questions to the BIOS.
"""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path

from envs.containers import ContainerSpec, connect, engine_errors, run_once, state_dir
from envs.containers.ownership import boot_id, write_whole
from envs.errors import InfrastructureError, SetupError

KVM = Path("/dev/kvm")
SECONDS = 15.0
"""With its container.  A guest at full speed is done in one, and one that a machine without virtualisation was asked to run takes 25."""
PASSED = 33
"""What QEMU exits with when the guest writes 0x10 to its exit port."""

SECTOR = (
    base64.b64decode(
        "+jHAjtiOwI7QvAB8tEG7qlWygM0TuAECuQEAuoAAuwCAzRNyaYE+/oFVqnVhZr8AEAAADyLfZjHAZrkADAAA/Gbzq2bHBgAQAyAAAGbHBgAgAzAAAGbHBgAwgwAAAA8B"
        "Frh8DyDgZoPIIA8i4Ga5gAAAwA8yZg0AAQAADzAPIMBmDQEAAIAPIsDqk3wIALAg5vT0uUBCDwAPMf/JdfoxwA+isBDm9PSQAAAAAAAAAAAAAAAAAJogAA8AqHw="
    ).ljust(510, b"\0")
    + b"\x55\xaa"
)
"""``kvm_guest.S``: asks the BIOS for its disks and reads one, as kernels do first, goes into 64-bit mode, counts to a million, exits."""

PROGRAM = (
    'printf %s "$GUEST" | base64 -d >/tmp/guest.img && exec timeout -k 1 "$LIMIT" qemu-system-x86_64 -accel "$ACCELERATOR" '
    '-cpu "$PROCESSOR" '
    "-m 64 -display none -nodefaults -no-reboot -device isa-debug-exit,iobase=0xf4,iosize=4 -drive file=/tmp/guest.img,format=raw,if=ide"
)


def try_guest(image: str, *, kvm: bool = True) -> bool:
    """Whether the tiny guest ran in a container of ``image``, which has QEMU.

    Raises:
        SetupError, InfrastructureError: the container could not be run.
    """
    spec = ContainerSpec(
        image=image,
        mend=f"Pull it: `docker pull {image}`.",
        ports=(),
        command=("sh", "-c", PROGRAM),
        environment={
            "GUEST": base64.b64encode(SECTOR).decode(), "LIMIT": f"{SECONDS - 5:g}",
            "ACCELERATOR": "kvm" if kvm else "tcg", "PROCESSOR": "host" if kvm else "max",
        },
        cap_drop=(),
        devices=(str(KVM),) if kvm else (),
    )  # fmt: skip
    return run_once(spec, SECONDS, run="kvm")[0] == PASSED


def usable_kvm(image: str) -> bool:
    """Whether a virtual machine in a container of ``image`` runs at full speed here; without, it boots in minutes and acts in slow motion.

    Where the image or the engine is missing this cannot be tried, and the device's presence is all that is known.
    """
    return KVM.exists() and tried(image) is not False


def tried(image: str) -> bool | None:
    """Whether the tiny guest ran with KVM in a container of ``image``; None where the image or the engine is missing."""
    try:
        return _remembered(image)
    except (SetupError, InfrastructureError):
        return None


def _remembered(image: str) -> bool:
    """As :func:`tried`, from what was kept of the last time where that was the same image on the same boot of the machine."""
    client = connect()
    with engine_errors(f"look for the image {image}"):
        engine = str(client.info()["ID"])
        found = [str(one.id) for one in client.images.list(name=image)]
    kept = state_dir() / "kvm.json"
    key = f"{engine} {found[0] if found else image} {boot_id()}"
    try:
        known = json.loads(kept.read_text())
        if isinstance(known.get(key), bool):
            return bool(known[key])
    except (OSError, ValueError, AttributeError):
        pass  # never tried, or torn: it is tried again
    try:
        ran = try_guest(image)
    except InfrastructureError:  # the engine could not give the device to a container
        return False
    with contextlib.suppress(OSError):  # what is not remembered is tried again
        write_whole(kept, json.dumps({key: ran}))
    return ran

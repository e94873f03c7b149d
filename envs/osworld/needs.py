"""What a run of OSWorld takes: what this machine lacks, how much disk, memory and time, and what is worth knowing beforehand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from envs import containers
from envs.base import TaskSpec
from envs.benchmark import Workload
from envs.errors import InfrastructureError, SetupError, UsageError
from envs.osworld import official, upstream
from envs.osworld.address import require_ports, resolved
from envs.osworld.client import GuestClient
from envs.osworld.jobs import needed_files, needs_google
from envs.osworld.kvm import usable_kvm
from envs.osworld.machinery import ADDRESS, MOST_SPARES, disk_of, kind_of
from envs.osworld.ports import SERVER
from envs.osworld.providers import LIGHT_BUILD, LIGHT_IMAGE
from envs.osworld.suite import UPSTREAM
from envs.room import room

GB = 1e9
CHECK_SECONDS = 5.0
"""How long a guest at an address may take to be usable, before a run that needs it is refused."""
LIGHT_IMAGE_GB, GRADER_GB, SOURCE_GB = 1.5, 1.5, 0.02
IMAGES = {"light": (LIGHT_IMAGE, LIGHT_IMAGE_GB), "official": (official.IMAGE, None)}
NOT_ON_LIGHT = {"gimp", "libreoffice_impress", "thunderbird", "vlc", "vs_code", "vscode"}
LIGHT_MEMORY_GB, GRADER_MEMORY_GB = 0.6, 0.4
"""Memory of a desktop with an office document open, and of a grader's process."""
BUSY_CORES = {"light": 1.0, "official": float(official.CORES)}
"""Cores that a desktop keeps busy while it is set up, acts and is graded."""
BOOT_SECONDS = {"light": 5.0, "official": 90.0}
SETUP_SECONDS, GRADE_SECONDS = 10.0, 10.0
"""Assumed: most tasks open one application, and save one file before they are graded."""
WAITS = {"official": (60.0, 3.0, 20.0), "brisk": (3.0, 1.0, 1.0)}
"""Seconds after a reset, after an action, before grading; those of ``brisk`` are usual, not fixed."""


Check = Callable[[], object]
"""Raises what is missing."""


@dataclass(frozen=True)
class Part:
    """Something on the disk that a run uses; ``gigabytes`` is None if unknown."""

    what: str
    gigabytes: float | None
    here: bool


def provider_of(options: Mapping[str, Any]) -> str:
    """``light``, ``official`` or ``address``."""
    return kind_of(str(options.get("provider", "light")))


def places() -> int:
    """How many desktops this machine has room for: OSWorld's own where its disk has been fetched, else light ones.

    Raises:
        SetupError: it lacks what they need.
    """
    if disk_of(None).is_file():
        containers.require_image(containers.connect(), official.IMAGE, official.PULL)
        return room(float(official.RAM[:-1]) + official.OVERHEAD_GB + GRADER_MEMORY_GB, BUSY_CORES["official"])
    containers.require_image(containers.connect(), LIGHT_IMAGE, LIGHT_BUILD)
    return room(LIGHT_MEMORY_GB + GRADER_MEMORY_GB, BUSY_CORES["light"])


# -- what is missing -----------------------------------------------------------------------------------------------------------------
def lacking(part: str, options: Mapping[str, Any]) -> Iterator[SetupError]:
    """What this machine lacks, each with the command that brings it."""
    checks: list[Check] = [upstream.tasks_folder] if (part or "test_all") in UPSTREAM else []
    checks += [upstream.grader_python, lambda: _check_provider(options)]
    if provider_of(options) == "official":
        checks.append(lambda: _check_disk(options))
    for check in checks:
        try:
            check()
        except SetupError as error:
            yield error


def _check_provider(options: Mapping[str, Any]) -> None:
    name = provider_of(options)
    if name == "address":
        _check_guests(str(options["provider"]).removeprefix(ADDRESS))
        return
    image, mend = (LIGHT_IMAGE, LIGHT_BUILD) if name == "light" else (official.IMAGE, official.PULL)
    containers.require_image(containers.connect(), image, mend)


def _check_guests(addresses: str) -> None:
    for address in addresses.split(","):
        host, ports = resolved(address)
        client = GuestClient(host, ports[SERVER])
        try:
            missing = client.missing_after(CHECK_SECONDS)
        finally:
            client.close()
        if missing:
            raise SetupError(
                f"The guest at {host}:{ports[SERVER]} is not usable: {missing}.", "Start it: `agentlab containers up`."
            )


def _check_disk(options: Mapping[str, Any]) -> None:
    disk = disk_of(options.get("disk"))
    if not disk.is_file():
        raise SetupError(f"There is no virtual disk {disk}.", "Fetch it (12 GB, 24 GB unpacked): `agentlab fetch osworld --vm`.")


# -- what is worth knowing -----------------------------------------------------------------------------------------------------------
def remarks(options: Mapping[str, Any], tasks: Sequence[TaskSpec]) -> Iterator[str]:
    """Lines for a person, before a run."""
    name = provider_of(options)
    if name == "official" and not usable_kvm(official.IMAGE):
        yield "Without a usable /dev/kvm the virtual machine is emulated: it boots in minutes and acts in slow motion."
    jobs = [task.options["task"] for task in tasks if "task" in task.options]
    foreign = sum(bool(NOT_ON_LIGHT & {*job.get("related_apps", ()), job.get("snapshot")}) for job in jobs)
    if name == "light" and foreign:
        yield f"{foreign} of these tasks use applications that the light desktop does not have; OSWorld's scores need --provider official."
    if name == "address":
        addresses = [resolved(address) for address in str(options["provider"]).removeprefix(ADDRESS).split(",")]
        require_ports(addresses, [(task.name, task.options["task"]) for task in tasks if "task" in task.options])
        yield "A guest that is running already is not cleaned between attempts: what one leaves behind, the next one finds."
    wants = [task.name for task in tasks if task.options.get("task", {}).get("proxy")]
    if wants and not options.get("proxy"):
        yield (
            f"{len(wants)} of these tasks ask for a proxy and get none, as in OSWorld unless its runner is told otherwise; their websites "
            f"may refuse this machine (--set osworld.proxy=FILE gives them one): {', '.join(wants)}."
        )
    away = {file.url for job in jobs for file in needed_files(job) if not file.kept.is_file()}
    if away:
        yield f"{len(away)} files of these tasks are not here and are downloaded during the run; `agentlab fetch osworld` gets them first."
    google = sum(needs_google(job) for job in jobs)
    if google:
        folder = upstream.source_folder() / "evaluation_examples" / "settings"
        yield f"{google} of these tasks need a Google account in {folder} (as OSWorld describes); --suite test_nogdrive has none of them."


# -- figures -------------------------------------------------------------------------------------------------------------------------
def estimates(part: str, options: Mapping[str, Any], work: Workload) -> Iterator[str]:
    """Disk, memory and time of a run, as lines for a person."""
    for kept in disk_parts(part, options):
        size = f"{kept.gigabytes:.3g} GB" if kept.gigabytes is not None else "size unknown"
        yield f"Disk: {kept.what}, {size} ({'here' if kept.here else 'not here'})"
    yield from machine_lines(options, work.workers)
    seconds = attempt_seconds(options, work.steps)
    usual, most = work.hours(seconds)
    yield (
        f"Time: about {usual:.1f} h, at most {most:.1f} h: {work.sessions} sessions x {work.attempts} attempts of {work.steps} steps, "
        f"{seconds / 60:.1f} min each in the desktop ({work.workers} at a time) and {work.model_seconds / 60:.1f} to "
        f"{work.most_model_seconds / 60:.1f} min of the model"
        + (", which answers all of them one after the other" if work.one_model else "")
        + f"; at most counts redraws, and {work.retries} repeats of attempts that break"
    )


def machine_lines(options: Mapping[str, Any], workers: int) -> Iterator[str]:
    """Memory and processors that the desktops take, held against what this machine has."""
    name = provider_of(options)
    needed, has = memory_gb(options, workers), psutil.virtual_memory().total / GB
    spares = spares_of(options, workers)
    yield f"Memory: about {needed:.1f} GB for {workers} desktops, {spares} that wait, and their graders; this machine has {has:.0f} GB"
    if needed > has:
        each = needed / (workers + spares)
        yield f"That is more memory than this machine has: use --workers {max(int(has / each) - spares, 1)}, or a machine with more."
    if name in BUSY_CORES:
        busy, cores = (
            workers * (int(options.get("cores") or official.CORES) if name == "official" else BUSY_CORES[name]),
            os.cpu_count() or 1,
        )
        if busy > cores:
            yield (
                f"{workers} desktops at a time keep about {busy:g} processors busy, and this machine has {cores}: they will wait for each "
                "other, and everything takes longer than estimated here."
            )


def spares_of(options: Mapping[str, Any], workers: int) -> int:
    """Booted desktops that wait while others are used."""
    name = provider_of(options)
    wanted = options.get("spares")
    return 0 if name == "address" else int(wanted) if wanted is not None else min(workers, MOST_SPARES) if name == "light" else 0


def disk_parts(part: str, options: Mapping[str, Any]) -> list[Part]:
    """What lies on the disk for such a run."""
    name = provider_of(options)
    parts = []
    if name in IMAGES:
        image, gigabytes = IMAGES[name]
        parts.append(Part(f"image {image}", gigabytes, _succeeds(lambda: _check_provider(options))))
    if name == "official":
        parts.append(Part("virtual machine Ubuntu.qcow2", upstream.DISK_BYTES / GB, _succeeds(lambda: _check_disk(options))))
    parts.append(Part("grader (virtual environment)", GRADER_GB, _succeeds(upstream.grader_python)))
    if (part or "test_all") in UPSTREAM:
        here = _succeeds(upstream.tasks_folder)
        parts.append(Part("task set and evaluators", SOURCE_GB, here))
        parts.append(Part("files that the tasks use", None, here and (upstream.cache_folder() / "files").is_dir()))
    return parts


def memory_gb(options: Mapping[str, Any], workers: int) -> float:
    """How much of the machine's memory ``workers`` sessions at a time take."""
    name = provider_of(options)
    machine = official.gigabytes(str(options.get("ram") or official.RAM)) if name == "official" else 0.0
    guest = {"light": LIGHT_MEMORY_GB, "official": machine}.get(name, 0.0)
    return workers * (guest + GRADER_MEMORY_GB) + spares_of(options, workers) * guest


def attempt_seconds(options: Mapping[str, Any], steps: int) -> float:
    """About how long an attempt of ``steps`` replies takes in its desktop, at most."""
    name = provider_of(options)
    boot = BOOT_SECONDS.get(name, 0.0)
    if name == "official" and not usable_kvm(official.IMAGE):
        boot = official.BOOT_SECONDS_WITHOUT_KVM
    timing = options.get("timing") or ("brisk" if name == "light" else "official")
    reset, action, grading = WAITS.get(str(timing), WAITS["official"])
    return boot + SETUP_SECONDS + reset + steps * action + grading + GRADE_SECONDS


def _succeeds(check: Check) -> bool:
    try:
        check()
    except (SetupError, InfrastructureError, UsageError):
        return False
    return True

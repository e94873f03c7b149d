"""Whose container is it, and is that process still there?  Labels on the container, and a ledger of what this machine started.

A container is ours only if both agree: labels can be copied, and an engine may be shared with other people and machines.  The
ledger's entry is written before the container is created, so that a run killed at any moment leaves no unknown container.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from envs.errors import SetupError

PREFIX = "io.github.rosa-agentlab."
FOREVER = 0
DETACHED = 0
"""The pid of containers that outlive the process which started them: they end by ``stop`` or by their time to live."""


@dataclass(frozen=True)
class Owner:
    """Who started a container, and until when it may live.

    Attributes:
        run: Name of the run, shown to people.
        pid: The owning process, or ``DETACHED``.
        started: When that process started (kernel ticks), because pids are used again.
        boot: The machine's boot, because pids mean nothing after a restart or on another machine.
        created: When the container was, Unix time in seconds.
        ttl: Seconds of life from ``created`` on of a detached container, or ``FOREVER``; any other lives as long as its owner.
    """

    run: str
    pid: int
    started: int
    boot: str
    created: int
    ttl: int

    @classmethod
    def this_process(cls, run: str, ttl: int = FOREVER, *, detached: bool = False) -> Owner:
        pid = DETACHED if detached else os.getpid()
        return cls(run, pid, 0 if detached else _started(pid), boot_id(), int(time.time()), ttl)

    def labels(self) -> dict[str, str]:
        return {PREFIX + name: str(value) for name, value in asdict(self).items()}

    @classmethod
    def from_labels(cls, labels: Mapping[str, str]) -> Owner | None:
        """The owner that labels name, or None when they are not (completely) ours."""
        try:
            text = {name: labels[PREFIX + name] for name in ("run", "pid", "started", "boot", "created", "ttl")}
            numbers = {name: int(text[name]) for name in ("pid", "started", "created", "ttl")}
        except (KeyError, ValueError):
            return None
        return cls(run=text["run"], boot=text["boot"], **numbers)

    def expired(self) -> bool:
        """True when a detached container's time is over.  A run may take weeks: as long as its process lives, its containers are used."""
        return self.pid == DETACHED and self.ttl != FOREVER and time.time() > self.created + self.ttl

    def alive(self) -> bool:
        """True while the owning process runs.  Nobody waits for a detached container, so only its ttl ends it."""
        if self.boot != boot_id():
            return False
        return self.pid == DETACHED or (psutil.pid_exists(self.pid) and _started(self.pid) == self.started)

    def leftover(self) -> bool:
        """True when nothing will ever use the container again."""
        return self.expired() or not self.alive()


def boot_id() -> str:
    """The same until the machine restarts."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else str(int(psutil.boot_time()))


def _started(pid: int) -> int:
    """When a process started, in kernel ticks since boot (exact, unlike clock time); 0 when it is gone."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        if stat.parent.parent.joinpath("self").exists():
            return int(stat.read_text().rpartition(")")[2].split()[19])
        return int(psutil.Process(pid).create_time())
    except (FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess):
        return 0


def state_dir() -> Path:
    """Where this user's ledger and kept logs are (``AGENTLAB_STATE``, else the XDG state directory)."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(os.environ.get("AGENTLAB_STATE") or Path(base) / "agentlab")


def write_whole(path: Path, text: str) -> None:
    """Write a file of :func:`state_dir` under a name of its own and rename it: several may write it at once, and nobody reads half.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


class Ledger:
    """What this user started on this machine: one small JSON file per container, named like it."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or state_dir() / "containers"

    def add(self, name: str, engine: str, owner: Owner) -> None:
        """Note a container that is about to be created on the engine with this id.

        Raises:
            SetupError: it cannot be written, and a container that is not noted would never be removed.
        """
        entry = self.folder / f"{name}.json"
        try:
            write_whole(entry, json.dumps({"engine": engine, **asdict(owner)}))
        except OSError as error:
            raise SetupError(
                f"Containers cannot be noted in {self.folder} ({error.strerror or error}).",
                "Free some space there, or name another folder with AGENTLAB_STATE.",
            ) from error

    def discard(self, name: str) -> None:
        with contextlib.suppress(OSError):  # not there, or a disk that may not be written any more: ``gc`` drops what is gone
            (self.folder / f"{name}.json").unlink()

    def __contains__(self, name: str) -> bool:
        return (self.folder / f"{name}.json").exists()

    def names(self, engine: str) -> dict[str, Owner]:
        """Containers noted for this engine."""
        return {name: owner for name, on, owner in self._entries() if on == engine}

    @property
    def has_leftovers(self) -> bool:
        """Whether a container of a dead owner is noted, of whichever engine; no engine is asked."""
        return any(owner.leftover() for _, _, owner in self._entries())

    def _entries(self) -> Iterator[tuple[str, str, Owner]]:
        """Name, engine and owner of each."""
        for entry in sorted(self.folder.glob("*.json")):
            try:
                fields = json.loads(entry.read_text())
                yield entry.stem, fields.pop("engine"), Owner(**fields)
            except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
                continue  # removed by its owner just now, or not one of ours

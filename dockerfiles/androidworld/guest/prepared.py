"""A phone that is installed once: its disk and its clean snapshot outlive the container.

Installing the benchmark's 24 applications takes minutes and the network.  What comes out of it is the AVD's directory.  It is marked
when it is complete, so a restarted container, or an image committed from one, starts warm; and where a volume is mounted it is
copied there once, under a name made of all that it depends on, for the containers after it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from guest import PROTOCOL, UPSTREAM_REVISION
from guest.emulator import copy_tree
from guest.errors import GuestError
from guest.settings import Settings

MARK = "agentlab-prepared.json"
LOCK_POLL_S = 0.5


class Prepared:
    """The prepared phone of these settings: in the container, and in the volume where there is one."""

    def __init__(self, settings: Settings) -> None:
        facts = {
            "protocol": PROTOCOL,
            "upstream": UPSTREAM_REVISION,
            "avd": settings.avd,
            "memory_mb": settings.memory_mb,
            "cores": settings.cores,
            "gpu": settings.gpu,
        }
        self._facts = facts
        self.avd = settings.avd_home / f"{settings.avd}.avd"
        self._volume = settings.prepared
        self._kept = settings.prepared / hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]

    def is_here(self) -> bool:
        """Whether this container's AVD is prepared for these settings."""
        return self._marked(self.avd)

    def _marked(self, avd: Path) -> bool:
        try:
            return json.loads((avd / MARK).read_text()) == self._facts
        except (OSError, ValueError):
            return False

    def mark(self) -> None:
        """Say that this container's AVD is complete."""
        partial = self.avd / (MARK + ".partial")
        partial.write_text(json.dumps(self._facts))
        partial.replace(self.avd / MARK)

    @property
    def has_volume(self) -> bool:
        """Whether there is a volume that can be written to."""
        return self._volume.is_dir() and os.access(self._volume, os.W_OK) and os.path.ismount(self._volume)

    def kept(self) -> bool:
        """Whether the volume has a prepared phone for these settings."""
        return self._marked(self._kept / self.avd.name)

    def fetch(self, timeout_s: float, waiting: Callable[[], None]) -> bool:
        """Take the AVD from the volume; False if it has none for these settings.

        The volume is held for the copy alone, and together with others that copy: they boot side by side.

        Raises:
            GuestError: boot_failed, if another container holds the volume for longer than ``timeout_s``.
        """
        with self._locked(fcntl.LOCK_SH, timeout_s, waiting):
            if not self.kept():
                return False
            copy_tree(self._kept / self.avd.name, self.avd)
            return True

    def keep(self) -> None:
        """Copy this container's AVD, whose emulator must not be running, to the volume, whose lock is held."""
        copy_tree(self.avd, self._kept / self.avd.name)

    def alone(self, timeout_s: float, waiting: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
        """Hold the volume alone, so that of many containers one installs and the others wait for it.

        Raises:
            GuestError: boot_failed, if the lock is not free in time.
        """
        return self._locked(fcntl.LOCK_EX, timeout_s, waiting)

    @contextlib.contextmanager
    def _locked(self, kind: int, timeout_s: float, waiting: Callable[[], None]) -> Iterator[None]:
        with (self._volume / ".lock").open("w") as lock:
            deadline = time.monotonic() + timeout_s
            while True:
                try:
                    fcntl.flock(lock, kind | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    waiting()
                    if time.monotonic() > deadline:
                        raise GuestError("boot_failed", f"Another container installs for more than {timeout_s:g} s.") from None
                    time.sleep(LOCK_POLL_S)
            yield

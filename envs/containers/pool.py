"""Booted spares, frozen until somebody needs one: a new and truly clean machine in a tenth of a second.

Nothing that happened in the old machine can be in the new one, because the new one was booted before and never used.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from envs.containers.container import Container, Probe, wait_ready
from envs.containers.fleet import ContainerSpec, Fleet
from envs.errors import InfrastructureError

logger = logging.getLogger(__name__)

WAKE_SECONDS = 10.0


class SparePool:
    """Keeps ``size`` booted and paused containers of one kind.

    ``take`` hands one out and has the next one booted in the background; ``give_back`` removes one that was used.
    """

    def __init__(
        self, fleet: Fleet, spec: ContainerSpec, probe: Probe, *, size: int, boot_timeout: float, wake_timeout: float = WAKE_SECONDS
    ) -> None:
        self.size, self._wake_timeout = size, wake_timeout
        self._fleet, self._spec, self._probe, self._boot_timeout = fleet, spec, probe, boot_timeout
        self._threads = ThreadPoolExecutor(max_workers=max(size, 1) + 2, thread_name_prefix="spare")
        self._spares: deque[Future[Container]] = deque()
        self._lock = threading.Lock()
        self._closed = False

    def fill(self) -> None:
        """Start booting as many spares as are missing; returns at once."""
        with self._lock:
            while not self._closed and len(self._spares) < self.size:
                self._spares.append(self._threads.submit(self._boot_paused))

    def waiting(self) -> int:
        """How many spares are booted and paused now."""
        with self._lock:
            return sum(spare.done() and spare.exception() is None for spare in self._spares)

    def take(self) -> Container:
        """A booted, never used, running container.

        A spare that did not boot, that somebody removed or that does not wake is thrown away; without spares one is booted while
        the caller waits.

        Raises:
            SetupError, InfrastructureError: as ``Fleet.start``.
        """
        while True:
            with self._lock:
                spare = self._spares.popleft() if self._spares else None
            if spare is None:
                container = self._fleet.start(self._spec, self._probe, self._boot_timeout)
                break
            booted = self._booted(spare)
            if booted is not None and self._wake(booted):
                container = booted
                break
        self.fill()
        return container

    def give_back(self, container: Container) -> None:
        """Remove a used container in the background."""
        with self._lock:
            if not self._closed:
                self._threads.submit(self._remove, container)
                return
        self._fleet.stop(container)

    def close(self) -> None:
        """Remove the spares.  Can be called twice; containers that were taken belong to the fleet.

        Spares that boot are waited for, unless the fleet was interrupted before.
        """
        with self._lock:
            self._closed = True
            spares = list(self._spares)
            self._spares.clear()
        for spare in spares:
            spare.cancel()
        self._threads.shutdown(wait=True)
        for spare in spares:
            if not spare.cancelled() and spare.exception() is None:
                self._fleet.stop(spare.result())

    def _boot_paused(self) -> Container:
        container = self._fleet.start(self._spec, self._probe, self._boot_timeout)
        container.pause()
        return container

    def _booted(self, spare: Future[Container]) -> Container | None:
        """None when it did not boot: that may have been long ago, and does not mean that the next one will not."""
        try:
            return spare.result()
        except InfrastructureError as error:
            logger.warning("A spare did not boot (%s); booting another one.", error)
            return None

    def _wake(self, container: Container) -> bool:
        try:
            container.unpause()
            wait_ready(container, self._probe, self._wake_timeout, lambda: self._closed)
        except InfrastructureError as error:
            logger.warning("The spare %s does not wake (%s); booting another one.", container.name, error)
            self._remove(container)
            return False
        return True

    def _remove(self, container: Container) -> None:
        try:
            self._fleet.stop(container)
        except InfrastructureError as error:
            logger.warning("%s could not be removed now (%s).", container.name, error)

"""Servers that somebody else started, ours or upstream's, each lent to one environment at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence

from envs.androidworld.device import Device
from envs.androidworld.ours import OurDevice, protocol_of
from envs.androidworld.providers import Provider
from envs.androidworld.upstream import UpstreamDevice
from envs.containers.fleet import LOOPBACK
from envs.errors import InfrastructureError, UsageError
from envs.numerals import whole

logger = logging.getLogger(__name__)

RESTART_SECONDS = 60.0
"""How long a server that has just failed may take to come back."""
RESTART_POLL_SECONDS = 1.0


class AddressProvider(Provider):
    """Servers that somebody else started, ours or upstream's, each lent to one environment at a time.

    Args:
        address: ``HOST:PORT`` or ``HOST:PORT,PORT,...``.
    """

    name = "address"

    def __init__(self, address: str) -> None:
        super().__init__()
        self.host, self.ports = parse_address(address)
        self._free: deque[int] = deque(self.ports)
        self._lent: dict[Device, int] = {}
        self._lock = threading.Lock()

    def acquire(self) -> Device:
        with self._lock:
            if not self._free:
                raise InfrastructureError(f"All {len(self.ports)} servers at {self.host} are in use.", component="emulator")
            port = self._free.popleft()
        try:
            device = self._connect(port, RESTART_SECONDS)
        except BaseException:
            with self._lock:
                self._free.append(port)
            raise
        with self._lock:
            self._lent[device] = port
        return device

    def check(self) -> None:
        """Ask every server once, so that a wrong port is found out at once.

        Raises:
            InfrastructureError: one does not answer.
        """
        for port in self.ports:
            try:
                device = self._connect(port, 0.0)
            except InfrastructureError as error:
                hint = "Start it there, or give the address of a server that runs: --provider HOST:PORT."
                raise InfrastructureError(error.message, hint, component=error.component) from error
            device.close()
            if device.limits:
                logger.warning("%s is upstream's server: %s (docs/androidworld.md).", device.address, "; ".join(device.limits))

    def _connect(self, port: int, patience: float) -> Device:
        """The device there; one that has just failed may need ``patience`` seconds to come back."""
        until = time.monotonic() + patience
        while True:
            try:
                ours = protocol_of(self.host, port) == "ours"
                device: Device = OurDevice(self.host, port) if ours else UpstreamDevice(self.host, port)
                missing = device.missing() and device.revive()
                if not missing:
                    return device
                device.close()
                error = InfrastructureError(f"The server at {device.address} is not usable: {missing}.", component="emulator")
            except InfrastructureError as unreachable:
                error = unreachable
            if time.monotonic() > until:
                raise error
            time.sleep(RESTART_POLL_SECONDS)

    def release(self, device: Device, error: InfrastructureError | None = None) -> None:
        device.close()
        with self._lock:
            port = self._lent.pop(device, None)
            if port is not None:
                self._free.append(port)

    def close(self) -> None:
        with self._lock:
            lent = list(self._lent)
        for device in lent:
            self.release(device)


def parse_address(address: str) -> tuple[str, Sequence[int]]:
    """(host, ports) of ``HOST:PORT`` or ``HOST:PORT,PORT,...``.

    Raises:
        UsageError: anything else.
    """
    host, _, listed = address.removeprefix("address:").rpartition(":")
    ports = listed.split(",")
    if not all(port.isascii() and 0 < (whole(port) or 0) < 65536 for port in ports) or len(set(ports)) < len(ports):
        raise UsageError(f"{address!r} is not a provider of emulators.", "Write ours, upstream, HOST:PORT or HOST:PORT,PORT,...")
    return host or LOOPBACK, [int(port) for port in ports]

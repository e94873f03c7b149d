"""Guests that somebody else started, by their address."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterable, Mapping

from envs.containers.fleet import LOOPBACK
from envs.errors import InfrastructureError, SetupError, UsageError
from envs.numerals import whole
from envs.osworld import jobs
from envs.osworld.client import GuestClient
from envs.osworld.ports import NAMES, ORDER, SERVER
from envs.osworld.providers import Guest, Provider

ADDRESS_SECONDS = 30.0
FORM = "HOST:SERVER:CHROMIUM:VNC:VLC"


class AddressProvider(Provider):
    """Guests that somebody else started.  Each is used by one episode at a time, as it is, and left as it is: a reset does not clean it.

    Args:
        addresses: ``HOST:PORT`` of each (:func:`parse_address`), separated by commas.
        password: Of the desktop's user.
        patience: How many seconds a guest may take to become usable: one that somebody works with is not at rest at every moment.

    Raises:
        UsageError: a malformed address.
        SetupError: a host that has no address.
    """

    name = "address"
    clean = False

    def __init__(self, addresses: str, *, password: str = "password", patience: float = ADDRESS_SECONDS) -> None:
        self.password, self.patience = password, patience
        self.addresses = [resolved(address) for address in addresses.split(",")]
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

    def require(self, name: str, job: jobs.Job) -> None:
        require_ports(self.addresses, [(name, job)])


def parse_address(address: str) -> tuple[str, dict[int, int]]:
    """``HOST:SERVER``, and what else the guest has in the order of desktop-env: ``HOST:SERVER:CHROMIUM:VNC:VLC``; without a host, the
    ports of this machine.

    Raises:
        UsageError: anything else.
    """
    host, *rest = (address if not address.split(":")[0].isdecimal() else f"{LOOPBACK}:{address}").split(":")
    if not host or not 1 <= len(rest) <= 4 or not all(0 < (whole(port) or 0) < 65536 for port in rest):
        raise UsageError(f"{address!r} is not the address of a guest.", f"Write HOST:SERVER, or all that it has: {FORM}.")
    return host, dict(zip(ORDER, map(int, rest), strict=False))


def written(host: str, ports: Mapping[int, int]) -> str:
    """The whole address of a guest, as :func:`parse_address` reads it; ports after the first that it lacks are left out."""
    named = [host]
    for port in ORDER:
        if port not in ports:
            break
        named.append(str(ports[port]))
    return ":".join(named)


def resolved(address: str) -> tuple[str, dict[int, int]]:
    """As :func:`parse_address`, with the host's number for its name: a browser refuses to be debugged under a name.

    Raises:
        UsageError: not the address of a guest.
        SetupError: there is no such host.
    """
    host, ports = parse_address(address)
    try:
        return str(socket.getaddrinfo(host, ports[SERVER], socket.AF_INET, socket.SOCK_STREAM)[0][4][0]), ports
    except (OSError, UnicodeError) as error:
        raise SetupError(
            f"There is no host {host!r} ({error}).", "Write its name as this machine knows it, or its number."
        ) from error


def require_ports(addresses: Iterable[tuple[str, Mapping[int, int]]], tasks: Iterable[tuple[str, jobs.Job]]) -> None:
    """Refuse tasks that are set up or graded through a port that an address does not name.

    Raises:
        UsageError: there is such a task.
    """
    for name, job in tasks:
        for host, ports in addresses:
            if lacks := jobs.ports(job) - set(ports):
                what = " and ".join(sorted(NAMES[port] for port in lacks))
                raise UsageError(
                    f"The task {name} is set up or graded through the port for {what}, which {written(host, ports)} does not name.",
                    f"Write the guest's whole address, {FORM}, as `agentlab containers up` prints it.",
                )

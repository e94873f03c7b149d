"""What lives on the engine, and removing exactly what a dead run of this machine left behind."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import docker
import docker.errors

from envs.containers.container import Container
from envs.containers.engine import connect, engine_errors
from envs.containers.ownership import PREFIX, Ledger, Owner
from envs.errors import InfrastructureError, SetupError, UsageError, did_you_mean

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listing:
    """One container with our labels.

    Attributes:
        ours: It is in this user's ledger.  Only those are ever touched: anybody else may carry the same labels on a shared engine.
        leftover: Ours, and its owner is dead or, of a detached one, its time is over.
    """

    container: Container
    owner: Owner
    image: str
    state: str
    ours: bool

    @property
    def leftover(self) -> bool:
        return self.ours and self.owner.leftover()

    @property
    def name(self) -> str:
        return self.container.name


def ls(ledger: Ledger | None = None) -> list[Listing]:
    """All containers on the engine that carry our labels, sorted by name."""
    ledger = ledger or Ledger()
    rows = []
    for container in _labelled(connect()):
        owner = Owner.from_labels(container.labels)
        if owner is not None:
            wrapped = Container(container)
            state = wrapped.refresh()
            rows.append(Listing(wrapped, owner, str(container.attrs["Config"]["Image"]), state, wrapped.name in ledger))
    return sorted((row for row in rows if row.state != "gone"), key=lambda row: row.name)


def _labelled(client: docker.DockerClient) -> list[docker.models.containers.Container]:
    with engine_errors("list containers"):
        # ignore_removed: containers that vanish between listing and inspecting are not an error
        found: list[docker.models.containers.Container] = client.containers.list(
            all=True, filters={"label": f"{PREFIX}run"}, ignore_removed=True
        )
        return found


def gc(ledger: Ledger | None = None) -> list[str]:
    """Remove our leftovers and nothing else; returns the names removed.

    A leftover is in this user's ledger, and its owner died (also: the machine was restarted) or, of a detached one, its time is over.
    """
    ledger = ledger or Ledger()
    removed = []
    for row in ls(ledger):
        if row.leftover:
            row.container.remove()
            ledger.discard(row.name)
            removed.append(row.name)
    _forget_gone(ledger)
    return removed


def remove_leftovers(ledger: Ledger | None = None) -> None:
    """:func:`gc` at the start of something, if there is anything to do; what cannot be removed now stays for the next start."""
    ledger = ledger or Ledger()
    if not ledger.has_leftovers:
        return
    try:
        removed = gc(ledger)
    except (InfrastructureError, SetupError) as error:
        logger.warning("What dead runs left could not be removed now (%s).", error)
        return
    if removed:
        logger.warning("Removed what dead runs left: %s.", ", ".join(removed))


def _forget_gone(ledger: Ledger) -> None:
    """Drop entries whose container is gone.  A living owner's entry stays: it may be creating the container right now."""
    client = connect()
    with engine_errors("name itself"):
        engine = str(client.info()["ID"])
    for name, owner in ledger.names(engine).items():
        if owner.leftover() and not _exists(client, name):
            ledger.discard(name)


def _exists(client: docker.DockerClient, name: str) -> bool:
    with engine_errors(f"look for {name}"):
        try:
            client.containers.get(name)
        except docker.errors.NotFound:
            return False
    return True


def find(selector: str, ledger: Ledger | None = None) -> list[Listing]:
    """Our containers whose name or run is ``selector``.

    Raises:
        UsageError: no container or run has that name (the nearest names are offered).
    """
    rows = [row for row in ls(ledger) if row.ours]
    found = [row for row in rows if selector in (row.name, row.owner.run)]
    if not found:
        known = {row.name for row in rows} | {row.owner.run for row in rows}
        hint = did_you_mean(selector, known, what="container") if known else "None is running; see `agentlab containers ls`."
        raise UsageError(f"No container or run is called {selector!r}.", hint)
    return found


def stop(selector: str, ledger: Ledger | None = None) -> list[str]:
    """Remove our containers whose name or run is ``selector``, whether their owner lives or not; returns their names."""
    ledger = ledger or Ledger()
    rows = find(selector, ledger)
    for row in rows:
        row.container.remove()
        ledger.discard(row.name)
    return [row.name for row in rows]

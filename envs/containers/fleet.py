"""Starting containers, many at once, until each is really ready; and stopping them, whatever happened meanwhile."""

from __future__ import annotations

import logging
import os
import re
import threading
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import docker.errors

from envs.containers.container import Container, Probe, wait_ready
from envs.containers.engine import await_engine, connect, engine_errors, require_image
from envs.containers.housekeeping import remove_leftovers
from envs.containers.network import ensure_network
from envs.containers.ownership import FOREVER, Ledger, Owner, state_dir
from envs.errors import InfrastructureError

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class ContainerSpec:
    """What to start.

    Attributes:
        image: Tag that must be on this machine already.
        mend: The command that brings the image, for the message when it is not.
        ports: TCP ports of the container to publish, each on a free port of the loopback interface.
        environment: Environment variables.
        command: What to run instead of the image's own entry point.
        cap_drop: Capabilities to take away; all of them unless the image needs some.
        cap_add: Capabilities to give.
        memory: Limit, as Docker writes it (``"4g"``), or None.
        hostname: Its own name; by default the same for all, because shells show it.
        shm: Size of /dev/shm; browsers crash with Docker's 64 MB.
        pids: Limit of processes and threads.
        devices: Host devices to pass, e.g. ``/dev/kvm``.
        read_only_files: Host path -> path in the container.
        volumes: Name of a Docker volume, created if missing -> path in the container.
        groups: Additional groups of its user, by number (the one that owns a device).
        init: Whether Docker's own init is its first process, for images that bring none and start many.
        network: Docker's name of the network, ``"none"`` for no network at all; None is the one in which containers are apart.
        read_only: The file system cannot be written, but for ``small_disks``.
        cpus: Most cores' worth of time, or None.
        swap: Whether it may use as much swap as memory (the engine's own default).
    """

    image: str
    mend: str
    ports: tuple[int, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ("ALL",)
    cap_add: tuple[str, ...] = ()
    memory: str | None = None
    hostname: str = "desktop"
    shm: str = "256m"
    pids: int = 2048
    devices: tuple[str, ...] = ()
    read_only_files: Mapping[str, str] = field(default_factory=dict)
    small_disks: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[int, ...] = ()
    init: bool = False
    network: str | None = None
    read_only: bool = False
    cpus: float | None = None
    swap: bool = True


class Fleet:
    """The containers of one run: every one is labelled, in the ledger, and gone after :meth:`close`.

    What dead runs of this user left on the engine is removed first.

    Args:
        run: Name of the run, for people and for ``agentlab containers stop RUN``.
        ledger: Where started containers are noted; the user's own by default.
        log_dir: Where logs of failed containers are kept.
        ttl: Seconds after which ``gc`` may remove a detached container.
        starts: How many may boot at once.  A boot takes one core, and more at once make each other time out.
        detached: The containers outlive this process.
    """

    def __init__(
        self, run: str, *, ledger: Ledger | None = None, log_dir: Path | None = None, ttl: int = FOREVER,
        starts: int | None = None, detached: bool = False,
    ) -> None:  # fmt: skip
        self.run = re.sub(r"[^a-zA-Z0-9_.-]+", "-", run).strip("-.") or "run"
        self.ledger = ledger or Ledger()
        self.log_dir = log_dir or state_dir() / "logs"
        self._ttl, self._detached = ttl, detached
        self._starts = threading.BoundedSemaphore(starts or max(os.cpu_count() or 1, 1))
        self._client = connect()
        with engine_errors("name its engine"):
            self._engine = str(self._client.info()["ID"])
        remove_leftovers(self.ledger)
        self._mine: set[str] = set()
        self._abandoned: set[str] = set()
        """Containers of this fleet that are unused but could not be removed while the engine was down."""
        self._lock = threading.Lock()
        self._closed = False

    # -- starting --------------------------------------------------------------------------------------------------------------
    def start(self, spec: ContainerSpec, probe: Probe, timeout: float) -> Container:
        """Start one container and return it when ``probe`` is content.  An engine that is being restarted is waited for.

        Raises:
            SetupError: the image is not on this machine.
            InfrastructureError: (``docker``) the engine failed, or (``container``) it ended or was not ready in ``timeout``
                seconds; it is removed then, and its log kept.
        """
        await_engine(self._client, given_up=lambda: self._closed)
        self._remove_abandoned()
        require_image(self._client, spec.image, spec.mend)
        name = f"agentlab-{self.run}-{uuid.uuid4().hex[:8]}"
        with self._starts:
            try:
                container = self._create(name, spec)
                wait_ready(container, probe, timeout, lambda: self._closed)
            except BaseException as error:  # Ctrl-C too: nothing half started may stay
                said = self._give_up(name)
                if isinstance(error, InfrastructureError):
                    error.hint = f"{error.hint} {said}".strip()
                raise
        return container

    def start_many(self, spec: ContainerSpec, count: int, probe: Probe, timeout: float) -> list[Container]:
        """Start ``count`` containers, as many at once as the machine can boot; all of them, or none and the first error.

        An interruption (Ctrl-C) closes the fleet: whoever has interrupted it has no names of containers to stop.
        """
        with ThreadPoolExecutor(max_workers=max(count, 1), thread_name_prefix="container") as threads:
            starts = [threads.submit(self.start, spec, probe, timeout) for _ in range(count)]
            try:
                wait(starts)
            except BaseException:
                self.interrupt()
                threads.shutdown(cancel_futures=True)
                with self._noted("what was started"):
                    self.close()
                raise
        errors = [error for error in (start.exception() for start in starts) if error]
        if errors:
            for start in starts:
                if not start.exception():
                    with self._noted(start.result().name):
                        self.stop(start.result())
            raise errors[0]
        return [start.result() for start in starts]

    @contextmanager
    def _noted(self, what: str) -> Iterator[None]:
        """A clean-up after something else failed, which is what is to be reported: where it fails too, it is only said."""
        try:
            yield
        except InfrastructureError as error:
            logger.warning("Docker failed to handle %s (%s); `agentlab containers ls` shows what is left.", what, error)

    def _create(self, name: str, spec: ContainerSpec) -> Container:
        self._require_open()
        with self._lock:
            self._mine.add(name)  # before it exists: an engine that dies now may have created it and not have said so
        owner = Owner.this_process(self.run, self._ttl, detached=self._detached)
        self.ledger.add(name, self._engine, owner)
        with engine_errors(f"start a container of {spec.image}"):
            apart = {} if spec.network else {"network": ensure_network(self._client)}
            created = self._client.containers.create(**creation(spec, name, owner), **apart)
            container = Container(created)
            created.start()
        self._require_open()
        container.refresh()
        return container

    def _require_open(self) -> None:
        if self._closed:
            raise InfrastructureError(f"The fleet {self.run} was closed while a container started.", component="container")

    def _give_up(self, name: str) -> str:
        """Remove a container that did not start, and say where its log is kept.  Where that fails, it is tried again later."""
        said = ""
        try:
            container = self._named(name)
            if container is not None:
                with self._noted(f"the log of {name}"):
                    said = self.keep_log(container)
                self.stop(container)
        except InfrastructureError as error:
            logger.warning("%s could not be cleaned up now (%s).", name, error)
            with self._lock:
                self._abandoned.add(name)
        return said

    def _remove_abandoned(self) -> None:
        with self._lock:
            names, self._abandoned = self._abandoned, set()
        for name in names:
            self._give_up(name)

    def _named(self, name: str) -> Container | None:
        """Our container of this name; None, and forgotten, if it does not exist."""
        with engine_errors(f"look for {name}"):
            try:
                return Container(self._client.containers.get(name))
            except docker.errors.NotFound:
                self._forget(name)
                return None

    def _forget(self, name: str) -> None:
        with self._lock:
            self._mine.discard(name)
            self._abandoned.discard(name)
        self.ledger.discard(name)

    # -- stopping --------------------------------------------------------------------------------------------------------------
    def stop(self, container: Container) -> None:
        """Remove the container; it is fine when it is gone already.

        Raises:
            InfrastructureError: the engine failed; it is tried again when the next one starts and when the fleet is closed, and
                until then it stays in the ledger for ``gc``.
        """
        try:
            container.remove()
        except InfrastructureError:
            with self._lock:
                self._abandoned.add(container.name)
            raise
        self._forget(container.name)

    def keep_log(self, container: Container) -> str:
        """Write the container's log to ``log_dir``, and say where, or why it could not be written: a log is no reason to fail."""
        path = self.log_dir / f"{container.name}.log"
        text = container.logs()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            return f"The log of its container could not be kept in {path} ({error.strerror or error})."
        return f"The log of its container is kept in {path}."

    def interrupt(self) -> None:
        """Nothing can be started any more, and who waits for a container that boots is told at once; what runs goes on."""
        self._closed = True

    def close(self) -> None:
        """Remove all containers of this fleet that are left; nothing can be started any more.  Can be called twice.

        Raises:
            InfrastructureError: the engine failed, and did not come back; what is left stays in the ledger for ``gc``.
        """
        self.interrupt()
        with self._lock:
            left = list(self._mine)
        if not left:
            return
        await_engine(self._client)
        with ThreadPoolExecutor(max_workers=len(left)) as threads:
            stops = [threads.submit(self._stop_named, name) for name in left]
        for stop in stops:
            stop.result()

    def _stop_named(self, name: str) -> None:
        container = self._named(name)
        if container is not None:
            self.stop(container)

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def creation(spec: ContainerSpec, name: str, owner: Owner) -> dict[str, Any]:
    """What Docker is told to create."""
    return {
        "image": spec.image,
        "name": name,
        **({"entrypoint": list(spec.command)} if spec.command else {}),
        "hostname": spec.hostname,
        "labels": owner.labels(),
        "ports": {f"{port}/tcp": (LOOPBACK, None) for port in spec.ports},
        "environment": dict(spec.environment),
        "cap_drop": list(spec.cap_drop),
        "cap_add": list(spec.cap_add),
        "security_opt": ["no-new-privileges"],
        "mem_limit": spec.memory,
        "shm_size": spec.shm,
        "pids_limit": spec.pids,
        "devices": [f"{device}:{device}" for device in spec.devices],
        "volumes": {
            **{host: {"bind": inside, "mode": "ro"} for host, inside in spec.read_only_files.items()},
            **{name: {"bind": inside, "mode": "rw"} for name, inside in spec.volumes.items()},
        },
        "group_add": [str(group) for group in spec.groups],
        "init": spec.init,
        "read_only": spec.read_only,
        **({"network_mode": spec.network} if spec.network else {}),
        # an engine refuses more processors than there are
        **({"nano_cpus": round(min(spec.cpus, os.cpu_count() or 1) * 1e9)} if spec.cpus else {}),
        **({"memswap_limit": spec.memory} if spec.memory and not spec.swap else {}),
        "tmpfs": dict(spec.small_disks),
        "log_config": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "1"}},
        "detach": True,
    }

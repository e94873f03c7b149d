"""An engine whose containers are only noted: what a fleet does to them, and when, without Docker."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import docker.errors
import pytest

from envs.containers import ContainerSpec, fleet, housekeeping

SPEC = ContainerSpec(image="image", mend="make it", ports=(5000,))


class FakeContainer:
    """As the SDK's container; ``state`` is the test's to set."""

    def __init__(self, engine: FakeEngine, number: int, name: str, labels: dict[str, str]) -> None:
        self.engine, self.id, self.name, self.labels, self.status = engine, str(number), name, labels, "created"
        self.attrs: dict[str, Any] = {
            "NetworkSettings": {"Ports": {"5000/tcp": [{"HostPort": str(40000 + number)}]}}, "Config": {"Image": "image"},
        }  # fmt: skip

    def start(self) -> None:
        self.status = "running"

    def reload(self) -> None:
        if self.name not in self.engine.there:
            raise docker.errors.NotFound(self.name)

    def pause(self) -> None:
        self.status = "paused"

    def unpause(self) -> None:
        self.status = "running"

    def logs(self, tail: Any = "all") -> bytes:
        return b"what it wrote"

    def remove(self, force: bool, v: bool) -> None:
        self.engine.there.pop(self.name, None)


class FakeEngine:
    """As the SDK's client, with itself for its containers."""

    def __init__(self) -> None:
        self.there: dict[str, FakeContainer] = {}
        self.made: list[FakeContainer] = []
        self.created = threading.Event()
        self.containers, self.images, self.networks = self, _Images(), _Networks()
        self._numbers = itertools.count(1)

    def ping(self) -> bool:
        return True

    def info(self) -> dict[str, str]:
        return {"ID": "fake"}

    def create(self, *, name: str, labels: dict[str, str], **_: Any) -> FakeContainer:
        made = self.there[name] = FakeContainer(self, next(self._numbers), name, labels)
        self.made.append(made)
        self.created.set()
        return made

    def get(self, name: str) -> Any:
        if name not in self.there:
            raise docker.errors.NotFound(name)
        return self.there[name]

    def list(self, **_: Any) -> list[FakeContainer]:
        return list(self.there.values())


class _Images:
    def get(self, name: str) -> str:
        return name


class _Networks:
    def list(self, names: list[str]) -> list[Any]:
        return [self]

    name, id, attrs = "agentlab-guests", "net", {"Created": "1"}


def install(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine that fleets and housekeeping find."""
    made = FakeEngine()
    for module in (fleet, housekeeping):
        monkeypatch.setattr(module, "connect", lambda: made)
    return made


def never_ready(container: Any) -> str:
    """The probe of a guest that boots and boots."""
    return "it boots"


def ready(container: Any) -> str:
    return ""

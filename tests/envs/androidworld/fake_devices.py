"""Devices, and a provider of containers, whose engine is not there: a test sets what they answer."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np

from envs.androidworld import providers
from envs.androidworld.device import Device, Instance, Look
from envs.androidworld.providers import ContainerProvider
from envs.containers import ContainerSpec
from envs.errors import InfrastructureError


class FakeDevice(Device):
    """A device whose health, goal and score a test sets."""

    kind = "ours"

    def __init__(self, address: str = "fake:1") -> None:
        self.address, self.sick, self.begun, self.closed, self.done, self.ended = address, "", 0, False, False, 0
        self.fails: InfrastructureError | None = None
        self.scored = 0.0
        self.answers: list[str] = []

    def missing(self) -> str:
        return self.sick

    def begin(self, instance: Instance, *, restore: bool) -> str:
        self.begun += 1
        if self.fails:
            raise self.fails
        return f"Do {instance.name}"

    def look(self, *, tree: bool, settle: bool) -> Look:
        return Look(np.zeros((40, 20, 3), np.uint8), "[]" if tree else None)

    def perform(self, operation) -> None: ...

    def answer(self, text: str) -> None:
        self.answers.append(text)

    def over(self) -> bool:
        return self.done

    def score(self) -> float:
        return self.scored

    def end(self) -> None:
        self.ended += 1

    def close(self) -> None:
        self.closed = True


class FakeContainer:
    name = "agentlab-fake"
    state = "running"

    def refresh(self) -> str:
        return self.state


class FakePool:
    def __init__(self) -> None:
        self.booted, self.removed = 0, 0

    def take(self) -> FakeContainer:
        self.booted += 1
        return FakeContainer()

    def give_back(self, container) -> None:
        self.removed += 1


class FakeFleet:
    def keep_log(self, container) -> str:
        return "/kept.log"

    def close(self) -> None: ...


class FakeProvider(ContainerProvider):
    """A container provider whose engine is not there."""

    name = "fake"

    def __init__(self) -> None:
        providers.Provider.__init__(self)
        self._fleet, self._pool = FakeFleet(), FakePool()
        self._idle, self._containers, self._strikes, self._lock = deque(), {}, {}, threading.Lock()

    def spec(self) -> ContainerSpec:
        raise NotImplementedError

    def connect(self, container) -> Device:
        return FakeDevice()

"""What an environment needs of a device, whichever server stands before it."""

from __future__ import annotations

import abc
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from envs.androidworld import tasks
from envs.androidworld.gestures import Operation
from envs.base import Screenshot, TaskSpec
from envs.errors import UsageError


@dataclass(frozen=True)
class Instance:
    """One instance of one of upstream's tasks: ``create_suite(family, seed=seed)[name][index]``."""

    family: str
    name: str
    seed: int
    index: int

    @classmethod
    def of(cls, spec: TaskSpec) -> Instance:
        """The instance that a task of :class:`~envs.androidworld.suite.AndroidWorldSuite` names.

        Raises:
            UsageError: its options name no instance, or its seed is another instance's.
        """
        try:
            found = cls(str(spec.options["family"]), spec.name, int(spec.options["suite_seed"]), int(spec.options["index"]))
        except (KeyError, TypeError, ValueError) as error:
            hint = "Make tasks with envs.androidworld.suite.make_spec(family, name, seed, index)."
            raise UsageError(f"The task {spec.id} is not an instance of AndroidWorld.", hint) from error
        if tasks.instance_seed(found.seed, found.name, found.index) != spec.seed:
            raise UsageError(f"The seed of {spec.id} is not that of instance {found.index} of suite {found.seed}.")
        return found

    @property
    def task(self) -> tasks.Task:
        return tasks.find(self.family, self.name)


@dataclass(frozen=True)
class Look:
    """The screen, and the tree of its elements (JSON) where that was asked for and is available."""

    screenshot: Screenshot
    tree: str | None = None


class Device(abc.ABC):
    """One emulator behind one server, used by one thread.

    Every method raises InfrastructureError within a bounded time when the machinery fails, and ``perform`` InvalidActionError when
    the agent's action cannot be done; nothing was done then.

    Attributes:
        address: ``host:port`` of the server.
        kind: ``ours`` or ``upstream``.
        limits: What this device cannot do, for people; empty where nothing is lost.
    """

    address: str
    kind: str
    limits: tuple[str, ...] = ()

    @abc.abstractmethod
    def missing(self) -> str:
        """What keeps the device from being usable right now, or an empty string: one question, for polling."""

    def alive(self) -> str:
        """As :meth:`missing`, but the emulator itself must answer; may disturb the screen, so only between episodes."""
        return self.missing()

    def revive(self) -> str:
        """What still keeps the device from being usable once what the last episode left on its screen is put away."""
        return self.missing()

    @abc.abstractmethod
    def begin(self, instance: Instance, *, restore: bool) -> str:
        """Tear down what is active, initialise the instance, its parameters as new; returns the goal.

        Args:
            instance: What is started.
            restore: Load the emulator's snapshot first (UsageError if there is no snapshot).
        """

    @abc.abstractmethod
    def look(self, *, tree: bool, settle: bool) -> Look:
        """The screen, once it has come to rest (at most six seconds, as upstream) if ``settle``."""

    @abc.abstractmethod
    def perform(self, operation: Operation) -> None:
        """Do one operation of :func:`envs.androidworld.gestures.compile_action`."""

    @abc.abstractmethod
    def answer(self, text: str) -> None:
        """The agent's answer, which information-retrieval tasks are scored by; the last one counts."""

    @abc.abstractmethod
    def over(self) -> bool:
        """Whether a task of the miniwob family has ended by itself."""

    @abc.abstractmethod
    def score(self) -> float:
        """Upstream's score of the device's state, in [0, 1]."""

    def attest(self) -> None:
        """The episode is over: make sure that it was the phone that the agent saw, up to the end; may disturb the screen.

        Raises:
            InfrastructureError: the emulator is gone, or its screen was black or frozen.
        """

    @abc.abstractmethod
    def end(self) -> None:
        """Tear down the active task; does nothing if none is active."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the connection; the emulator goes on.  Can be called twice."""


def decode(data: bytes) -> Screenshot:
    """Pixels, [height, width, 3] uint8, of a PNG or WebP.

    Raises:
        ValueError: it is neither.
    """
    try:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{len(data)} bytes that are not an image") from error

"""The guest as a whole: boots the phone in the background, knows its state, runs operations on it.

The parts that need a real emulator come in through :class:`Parts`, so that the same machine runs over a stand-in.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from guest import screens
from guest.attempts import BOOT, Attempts
from guest.device import Device
from guest.emulator import CLEAN
from guest.errors import GuestError
from guest.worker import Worker

Result = TypeVar("Result")

LIMITS_S = {
    "look": 2.5,
    "screen": 20,
    "screenshot": 30,
    "observation": 30,
    "step": 60,
    "reset": 60,
    "initialize": 300,
    "score": 120,
    "tear_down": 120,
    "snapshot": 180,
    "restore": 180,
}
"""Bound of every operation, seconds, before GUEST_PATIENCE."""

VERIFIED = ("initialize", "score")
"""Operations whose result counts only if the phone answers and draws afterwards: upstream's tasks take silence for "not done", and an
agent before a black or frozen screen fails through no fault of its own."""

FRESH_S = 10.0
"""Age at which health takes a new look at the screen, seconds."""


class Phone(Protocol):
    """What :class:`guest.emulator.Emulator` has and a stand-in needs."""

    def answers(self, timeout_s: float) -> bool: ...

    def exit_code(self) -> int | None: ...

    def snapshots(self) -> list[str]: ...

    def save(self, name: str) -> None: ...

    def load(self, name: str) -> None: ...

    def stop(self, timeout_s: float) -> None: ...


@dataclasses.dataclass
class Parts:
    """Where the phone comes from.

    Attributes:
        phone: The emulator.
        boot: Boots it, calling its argument with each phase; returns (device, whether nothing had to be installed).
        reconnect: A new device over the same phone, after a snapshot was loaded.
    """

    phone: Phone
    boot: Callable[[Callable[[str], None]], tuple[Device, bool]]
    reconnect: Callable[[], Device]


class Machine:
    """State of the guest; safe to call from many threads."""

    def __init__(self, parts: Parts, patience: float = 1.0) -> None:
        self._parts = parts
        self._patience = patience
        self._worker = Worker()
        self._device: Device | None = None
        self._failure: GuestError | None = None
        self._started = time.monotonic()
        self.attempts = Attempts()
        self.phase, self.warm, self.closed = "booting", False, False
        self.booted = threading.Event()
        self._boot_s: float | None = None

    # -- boot ------------------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Boot in the background."""
        threading.Thread(target=self._boot, name="boot", daemon=True).start()

    def _boot(self) -> None:
        try:
            self._device, self.warm = self._parts.boot(lambda phase: setattr(self, "phase", phase))
            self.phase = "ready"
            self._boot_s = round(time.monotonic() - self._started, 2)
        except GuestError as error:
            self._failure = error
        except Exception as error:  # noqa: BLE001 - any error is reported by /health and ends the container
            self._failure = GuestError("boot_failed", f"{type(error).__name__} while {self.phase}: {error}")
        finally:
            self.booted.set()

    @property
    def failure(self) -> GuestError | None:
        """Why the phone could not be booted."""
        return self._failure

    def emulator_exit_code(self) -> int | None:
        """None while the emulator runs."""
        return self._parts.phone.exit_code()

    def close(self) -> None:
        """End the phone; may be called twice."""
        if not self.closed:
            self.closed = True
            if self._device is not None:
                self._device.env.close()
            # Its memory and disk are no longer needed: what has to be kept was saved when it was installed.
            self._parts.phone.stop(timeout_s=5.0)

    # -- operations ------------------------------------------------------------------------------------------------------------
    def _ready(self) -> Device:
        if self.closed:
            raise GuestError("closed", "The server is being stopped.")
        if self._failure is not None:
            raise self._failure
        if self._device is None:
            raise GuestError("starting", f"The phone is {self.phase}.", phase=self.phase)
        if self._parts.phone.exit_code() is not None:
            raise GuestError("device_dead", f"The emulator has ended (exit code {self._parts.phone.exit_code()}).")
        return self._device

    def run(self, name: str, function: Callable[[Device], Result], wait_s: float = 5.0) -> Result:
        """Run one operation on the phone.

        Raises:
            GuestError: whatever went wrong, told apart: a dead phone is never the caller's mistake.
        """
        device = self._ready()

        def work() -> Result:
            result = function(device)
            if name in VERIFIED and not self._answers():
                raise GuestError("device_dead", f"The phone does not answer after {name!r}: its result says nothing.")
            if name in VERIFIED:
                self.device.sight.prove()  # a snapshot that was restored has made another device
            return result

        try:
            return self._worker.run(name, work, limit_s=LIMITS_S[name] * self._patience, wait_s=wait_s)
        except GuestError as error:
            if error.status < 500 or error.status == 503 or self._answers():
                raise
            raise GuestError("device_dead", f"The phone does not answer any more: {error.message}", **error.detail) from error
        except Exception as error:
            if not self._answers():
                raise GuestError("device_dead", f"The phone does not answer any more: {type(error).__name__}: {error}") from error
            raise GuestError("action_failed", f"{name}: {type(error).__name__}: {error}") from error

    def _answers(self) -> bool:
        return self._parts.phone.exit_code() is None and self._parts.phone.answers(4.0)

    # -- snapshots -------------------------------------------------------------------------------------------------------------
    def snapshots(self) -> list[str]:
        """Names of the phone's snapshots."""
        return self.run("screen", lambda _: self._parts.phone.snapshots())

    def save(self, name: str) -> None:
        """Save the phone as ``name``; the clean one cannot be overwritten."""
        if name == CLEAN:
            raise GuestError("bad_request", f"The snapshot {CLEAN!r} is the phone as it was installed and cannot be overwritten.")
        self.run("snapshot", lambda _: self._parts.phone.save(name))

    def restore(self, name: str) -> None:
        """Put the phone back to ``name``; the active attempt is over."""
        self.run("restore", lambda _: self.load(name))

    def load(self, name: str) -> None:
        """As :meth:`restore`, within an operation."""
        self._parts.phone.load(name)
        self.attempts.active = None  # what it would tear down is no longer there
        self._device = self._parts.reconnect()

    @property
    def device(self) -> Device:
        """The device as it is now; a restored snapshot has a new one."""
        return self._ready()

    # -- health ----------------------------------------------------------------------------------------------------------------
    def health(self) -> dict[str, Any]:
        """The reply of /health; asks the phone, takes at most five seconds."""
        facts: dict[str, Any] = {"answers": False, "boot_completed": False, "answer_ms": None, "screen_drawn": False}
        operation = self._worker.current
        state, code, detail = "ready", "", ""
        try:
            device = self._ready()
            started = time.monotonic()
            facts["answers"] = facts["boot_completed"] = self._parts.phone.answers(2.0)
            facts["answer_ms"] = round((time.monotonic() - started) * 1000, 1)
            if not facts["answers"]:
                raise GuestError("device_dead", "The phone does not answer.")
            if operation is not None and operation.overdue:
                raise GuestError("device_stalled", f"{operation.name!r} runs for {operation.seconds:.0f} s.")
            self._look(device)
            facts["screen_drawn"] = screens.is_drawn(device.frame)
        except GuestError as error:
            code, detail, state = error.code, error.message, _STATES.get(error.code, "dead")
        active = self.attempts.active
        return {
            "state": state,
            "phase": self.phase,
            "code": code,
            "detail": detail,
            "device": facts,
            "operation": None if operation is None else {"name": operation.name, "seconds": round(operation.seconds, 2)},
            "attempt": None if active is None else active.id,
            "warm": self.warm,
            "uptime_s": round(time.monotonic() - self._started, 1),
            "boot": BOOT,
            "boot_s": self._boot_s,
            "patience": self._patience,
        }

    def _look(self, device: Device) -> None:
        """Looks at a frame that is fresh or, while the phone is busy, at the last one.

        Raises:
            GuestError: screen_blank, screen_frozen, device_stalled, device_dead.
        """
        if screens.is_drawn(device.frame) and time.monotonic() - device.frame_at < FRESH_S:
            return
        try:
            self._worker.run("look", device.glance, limit_s=LIMITS_S["look"] * max(self._patience, 1.0), wait_s=0.05)
        except GuestError as error:
            if error.code != "busy":  # the operation that is going on sees for itself
                raise
        except Exception as error:
            raise GuestError("device_dead", f"The phone gives no picture: {error}") from error


_STATES = {
    "starting": "starting",
    "boot_failed": "failed",
    "closed": "closed",
    "device_dead": "dead",
    "device_stalled": "stalled",
    "screen_blank": "blank",
    "screen_frozen": "frozen",
}

"""The stand-in phone with its faults, and what the guest's own emulator class has, over it.  Nothing here needs upstream's package.

``control.json`` in the stand-in's directory makes it misbehave while it runs:
``{"dead": true}`` nothing answers any more; ``{"stall_s": 40}`` every command and picture takes that long; ``{"blank": true}`` a
black screen, whatever is drawn; ``{"frozen": true}`` the picture stays as it is; ``{"asleep": true}`` the display has timed out,
until it is woken; ``{"line": "1"}`` somebody has switched the system's line of coordinates on; ``{"colour": [r, g, b]}`` the
application in front is a plain page of that colour over the whole screen; ``{"no_tree": true}`` the accessibility service is
silent; ``{"fail": "<regular expression>"}`` adb commands that match fail; ``{"gone": true}`` the emulator's process has ended.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np

from standin import picture
from standin.adb import Adb, UnknownCommandError
from standin.phone import Phone
from standin.state import LAUNCHER


class CommandError(Exception):
    """An adb command that failed, with what adb would say."""


class World:
    """One stand-in phone in a directory: its files, its snapshots, its faults, a log of what was installed and one of its input."""

    def __init__(self, directory: Path, width: int, height: int) -> None:
        self.directory = directory
        self.phone = Phone(width, height, directory / "files")
        self.adb = Adb(self.phone)
        self._frozen: Any = None
        self._slept: Any = None
        self._line: Any = None

    def control(self) -> dict[str, Any]:
        try:
            return json.loads((self.directory / "control.json").read_text())
        except (OSError, ValueError):
            return {}

    def event(self, what: str, log: str = "events.log") -> None:
        with (self.directory / log).open("a") as file:
            file.write(what + "\n")

    def misbehave(self) -> None:
        """Waits as long as it is told to.

        Raises:
            CommandError: the phone is dead.
        """
        control = self.control()
        deadline = time.monotonic() + control.get("stall_s", 0)
        while time.monotonic() < deadline and self.control().get("stall_s"):
            time.sleep(0.05)
        if self.control().get("dead"):
            raise CommandError("stand-in: device 'emulator-5554' not found")

    def picture(self) -> Any:
        """The screen now, uint8 RGB, shape [height, width, 3].

        Raises:
            CommandError: the phone is dead.
        """
        self.misbehave()
        control = self.control()
        if control.get("asleep") != self._slept:  # once: a display that was woken stays on
            self._slept = control.get("asleep")
            self.phone.state.dark = bool(self._slept)
        if control.get("line") != self._line:
            self._line = control.get("line")
            self.phone.state.settings["system"]["pointer_location"] = self._line or "0"
        now = np.zeros((self.phone.height, self.phone.width, 3), np.uint8)
        if not control.get("blank") and not self.phone.state.dark:
            now = picture.draw(self.phone, control.get("colour") if self.phone.page != LAUNCHER else None)
        if not control.get("frozen"):
            self._frozen = None
        elif self._frozen is None:
            self._frozen = now
        return now if self._frozen is None else self._frozen.copy()

    def execute(self, arguments: list[str]) -> str:
        """What adb prints.

        Raises:
            CommandError: adb fails.
        """
        self.misbehave()
        command = " ".join(arguments)
        pattern = self.control().get("fail")
        if pattern and re.search(pattern, command):
            raise CommandError(f"stand-in: told to fail {command!r}")
        if command.startswith("shell input "):
            self.event(command.removeprefix("shell "), "input.log")
        try:
            return self.adb.run(arguments)
        except (UnknownCommandError, OSError, KeyError, IndexError, ValueError) as error:
            raise CommandError(f"stand-in: {command!r}: {type(error).__name__}: {error}") from error


class StandinEmulator:
    """What the guest's own emulator class has, over the stand-in."""

    def __init__(self, world: World) -> None:
        self._world = world

    def acceleration(self) -> str:
        return "off"

    def start(self, snapshot: str | None = None) -> None:
        self._world.event(f"start {snapshot or 'cold'}")
        if snapshot is not None:
            self._world.phone.load(snapshot)

    def wait_until_booted(self, timeout_s: float) -> None:
        time.sleep(float(os.environ.get("STANDIN_BOOT_S", "0")))

    def exit_code(self) -> int | None:
        return 1 if self._world.control().get("gone") else None

    def answers(self, timeout_s: float) -> bool:
        control = self._world.control()
        if control.get("stall_s") and control.get("adb_too"):
            time.sleep(timeout_s)
            return False
        return not control.get("dead")

    def snapshots(self) -> list[str]:
        return self._world.phone.snapshots()

    def save(self, name: str) -> None:
        self._world.phone.save(name)

    def load(self, name: str) -> None:
        from guest.errors import GuestError

        if name not in self.snapshots():
            raise GuestError("unknown_snapshot", f"There is no snapshot {name!r}.", known=self.snapshots())
        self._world.phone.load(name)

    def stop(self, timeout_s: float = 60.0) -> None:
        self._world.event("stop")

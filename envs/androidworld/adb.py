"""The side door of a container of ours that runs upstream's server: adb inside the container, past the server.

Upstream's server has no swipe between points, no text without Enter, and takes half a minute for a picture.  All three are one adb
command away where the container is ours.  What an agent wrote only ever appears quoted, as one argument of ``input text``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from envs.androidworld.device import decode
from envs.androidworld.gestures import Operation
from envs.base import Screenshot
from envs.containers import Container
from envs.errors import InfrastructureError, InvalidActionError

PICTURE_SECONDS = 20
INPUT_SECONDS = 30
WORD = 40
"""Characters per ``input text``: longer ones arrive out of order (upstream types word by word for the same reason)."""


class SideDoor:
    """Runs adb commands in a container."""

    def __init__(self, container: Container, serial: str = "emulator-5554") -> None:
        self._container, self._serial = container, serial

    def screenshot(self) -> Screenshot:
        """The screen, as Android itself draws it into a PNG."""
        data = self._adb(["exec-out", "screencap", "-p"], PICTURE_SECONDS)
        try:
            return decode(data)
        except ValueError as error:
            raise self._failed("screencap", str(error)) from error

    def shell(self, words: Sequence[str]) -> str:
        """The output of one command of the phone's shell; no word may need quoting."""
        return self._adb(["shell", *words], INPUT_SECONDS).decode(errors="replace")

    def perform(self, operation: Operation) -> bool:
        """Do an operation that upstream's server has no route for; False if this is not one of them.

        Raises:
            InvalidActionError: text that ``input text`` cannot type.
        """
        commands = shell_commands(operation)
        for command in commands or ():
            self._adb(["shell", *command], INPUT_SECONDS)
        return commands is not None

    def _adb(self, arguments: Sequence[str], seconds: int) -> bytes:
        code, out, error = self._container.execute(["adb", "-s", self._serial, *arguments], seconds)
        if code != 0:
            raise self._failed(
                " ".join(arguments)[:60], f"exit code {code}: {(error or out)[-200:].decode(errors='replace').strip()}"
            )
        return out

    @staticmethod
    def _failed(what: str, got: str) -> InfrastructureError:
        return InfrastructureError(f"adb {what} in the container failed with {got}.", component="emulator")


def shell_commands(operation: Operation) -> list[list[str]] | None:
    """The commands of Android's shell for an operation, each a list of words that are quoted already; None for other operations."""
    match operation:
        case {"type": "swipe" | "drag" as kind, "x": x, "y": y, "end_x": end_x, "end_y": end_y, "duration_ms": duration}:
            verb = "swipe" if kind == "swipe" else "draganddrop"
            return [["input", verb, *(str(int(number)) for number in (x, y, end_x, end_y, duration))]]
        case {"type": "long_press", "x": x, "y": y, "duration_ms": duration}:
            return [["input", "swipe", *(str(int(number)) for number in (x, y, x, y, duration))]]
        case {"type": "key", "key": key}:
            return [["input", "keyevent", str(key)]]
        case {"type": "keys", "keys": keys}:
            return [["input", "keycombination", *(str(key) for key in keys)]]
        case {"type": "text", "text": text, "submit": submit}:
            return [*_typing(str(text)), *([["input", "keyevent", "KEYCODE_ENTER"]] if submit else [])]
    return None


def _typing(text: str) -> list[list[str]]:
    bad = sorted({c for c in text if not (" " <= c <= "~" or c == "\n")})
    if bad:
        raise InvalidActionError(f"Upstream's emulator cannot type {' '.join(bad)[:60]!r}: only ASCII letters, digits and signs.")
    commands: list[list[str]] = []
    for line in re.split(r"(\n)", text):
        if line == "\n":
            commands.append(["input", "keyevent", "KEYCODE_ENTER"])
        # `input text` takes %s for a blank, so a percent sign must not stand before an s.
        for part in re.findall(rf"%(?=s)|[^%]{{1,{WORD}}}|%", line) if line != "\n" else []:
            commands.append(["input", "text", shlex.quote(part.replace(" ", "%s"))])
    return commands

"""Windows by name, as OSWorld's server finds them: through wmctrl."""

from __future__ import annotations

import subprocess

COMMAND_SECONDS = 10.0


def titles() -> list[tuple[str, str]]:
    """(window id, title) of every window."""
    lines = _wmctrl("-l").stdout.splitlines()
    rows = [line.split(None, 3) for line in lines]
    return [(row[0], row[3] if len(row) > 3 else "") for row in rows if row]


def activate_titled(*names: str) -> bool:
    """Bring the first window whose title contains one of ``names`` to the front; False when there is none."""
    for window, title in titles():
        if any(name in title for name in names):
            _wmctrl("-i", "-a", window)
            return True
    return False


def activate(name: str, strict: bool, by_class: bool) -> None:
    """Bring a window to the front.  Like the original, says nothing when there is none."""
    _wmctrl(_flags(strict, by_class) + "a", name)


def close(name: str, strict: bool, by_class: bool) -> None:
    """Ask a window to close.  Like the original, says nothing when there is none."""
    _wmctrl(_flags(strict, by_class) + "c", name)


def size_of_class(name: str) -> tuple[int, int] | None:
    """(width, height) of the first window whose class contains ``name``, whatever the case; None when there is none."""
    for line in _wmctrl("-lGx").stdout.splitlines():
        row = line.split(None, 7)
        if len(row) > 6 and name.lower() in row[6].lower():
            return int(row[4]), int(row[5])
    return None


def _flags(strict: bool, by_class: bool) -> str:
    return "-" + ("x" if by_class else "") + ("F" if strict else "")


def _wmctrl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["wmctrl", *arguments], capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)

"""What every export reads and writes: the graded attempts of a run, and their screens.

A run directory may come from somebody else: it is read by :mod:`agentlab.exchange.plain`, screens are copied only from inside their own
attempt and only if they are WebP images, and what cannot be exported is named.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from agentlab.disk.files import disk_errors
from agentlab.disk.row import Row
from agentlab.disk.runs import Run, attempt_folders, read_attempt, screen_path, session_folders
from agentlab.exchange.plain import Data, attempt_data
from envs.errors import StoreError


@dataclass(frozen=True)
class Lived:
    """One graded attempt of a run.

    Attributes:
        session: Its session's folder name.
        folder: Where it lies.
        row: Its line of results.jsonl.
        data: What :func:`agentlab.exchange.plain.attempt_data` says of it.
    """

    session: str
    folder: Path
    row: Row
    data: Data

    @property
    def number(self) -> int:
        return int(self.data["number"])

    @property
    def solved(self) -> bool:
        return self.row.success

    @property
    def place(self) -> str:
        """``<session>/attempt_01``: the attempt's folder in an export."""
        return f"{self.session}/{self.folder.name}"

    @property
    def seen(self) -> list[Data]:
        """What there was to see before each step, and at the end: ``screen``, ``observation`` and ``pictured``."""
        return [*self.data["steps"], self.data["final"]]


@dataclass
class Exported:
    """What an export wrote.

    Attributes:
        what: Name of the things counted.
        count: How many of them.
        images: Screens copied.
        left_out: What could not be exported, and why.
    """

    what: str
    count: int = 0
    images: int = 0
    left_out: list[str] = field(default_factory=list)


class Screens:
    """Copies screens into an export, each once."""

    def __init__(self, folder: Path, done: Exported) -> None:
        self.folder, self.done = folder, done
        self._known: dict[tuple[str, str], str] = {}

    def add(self, lived: Lived, seen: Data) -> str | None:
        """Path of a screen relative to the export's folder, ``images/<session>/attempt_01/000.webp``; None where there was none.

        Raises:
            StoreError: it is missing, or is not a WebP image.
        """
        name = seen["screen"]
        if not seen["pictured"]:
            return None
        if name is None:
            raise StoreError("a screen is missing")
        key = (lived.place, name)
        if key not in self._known:
            relative = f"images/{lived.place}/{name}"
            copy_screen(lived.folder, name, self.folder / relative)
            self._known[key] = relative
            self.done.images += 1
        return self._known[key]


def copy_screen(attempt: Path, name: str, target: Path) -> None:
    """Copy ``screens/<name>`` of an attempt.

    Raises:
        StoreError: it does not exist, it lies outside the attempt, or it is not a WebP image.
    """
    source = screen_path(attempt, f"screens/{name}")
    try:
        with Image.open(source, formats=["WEBP"]):  # reads the header only
            pass
    except (OSError, Image.DecompressionBombError) as error:
        raise StoreError(f"the screen {name} is not a WebP image") from error
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def sessions(run: Run, done: Exported) -> Iterator[list[Lived]]:
    """The graded attempts, session by session; others are named in ``done``."""
    for folder in session_folders(run.folder):
        yield [lived for path in attempt_folders(folder) if (lived := _lived(folder.name, path, done)) is not None]


def _lived(session: str, path: Path, done: Exported) -> Lived | None:
    attempt = read_attempt(path)
    place = f"{session}/{attempt.number}"
    if attempt.result is None:
        done.left_out.append(f"{place}: {'; '.join(attempt.problems) or 'it has not ended'}")
        return None
    if not attempt.result.graded:
        done.left_out.append(f"{place}: the machinery failed, so it has no result")
        return None
    data = attempt_data(attempt)
    if attempt.problems or not data["steps"] or not data["ended"]:
        done.left_out.append(f"{place}: {'; '.join(attempt.problems) or 'its record has no steps or no end'}")
        return None
    return Lived(session, path, attempt.result, data)

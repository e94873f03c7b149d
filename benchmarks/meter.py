"""The progress line of a benchmark."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agentlab.disk.row import Row

console = Console(stderr=True)

PLAIN_INTERVAL = 15.0
"""Seconds between two lines of progress where there is no terminal to redraw."""


class Meter:
    """Progress: sessions done, attempts per second, time left; from any thread."""

    def __init__(self, title: str, total: int, done: int) -> None:
        self._title, self._total, self._before, self._done, self._attempts = title, total, done, done, 0
        self._started = self._printed = time.monotonic()
        self._guard = threading.Lock()
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._progress = Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal)
        self._bar = self._progress.add_task(title, total=total, completed=done, note="")

    def __enter__(self) -> Meter:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()
        console.print(f"{self._title}: {self._done} of {self._total} sessions  {self._note()}")

    def row(self, row: Row) -> None:
        with self._guard:
            self._attempts += 1
            now = time.monotonic()
            self._progress.update(self._bar, note=self._note())
            if not console.is_terminal and now - self._printed >= PLAIN_INTERVAL:
                self._printed = now
                console.print(f"{self._title}: {self._done}/{self._total}  {self._note()}")

    def done(self) -> None:
        with self._guard:
            self._done += 1
            self._progress.update(self._bar, completed=self._done)

    def _note(self) -> str:
        seconds = max(1e-9, time.monotonic() - self._started)
        made = self._done - self._before
        left = ""
        if made and self._done < self._total:
            left = f", about {seconds / made * (self._total - self._done) / 60:.1f} min left"
        return f"{self._attempts / seconds:.1f} attempts/s{left}"

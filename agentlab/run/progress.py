"""The live line of a run: done/total, success@1, success@k, machinery failures, time left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from agentlab.disk.row import Row
from agentlab.results.metrics import correction_uplift, sessions, success_at

NOTE_INTERVAL = 0.5
"""Seconds between two computations of the shares (they look at every row)."""

PLAIN_INTERVAL = 15.0
"""Seconds between two lines where there is no terminal to redraw."""

T = TypeVar("T")


def followed(console: Console, what: str, items: Iterable[T], total: int) -> Iterator[T]:
    """The items, while the console shows how many of them have been dealt with: a bar, or a line now and then."""
    printed = time.monotonic()
    columns = (
        TextColumn(f"[bold]{what}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        bar = progress.add_task(what, total=total)
        for done, item in enumerate(items):
            if not console.is_terminal and time.monotonic() - printed >= PLAIN_INTERVAL:
                printed = time.monotonic()
                console.print(f"{done}/{total} {what}")
            yield item
            progress.advance(bar)


class RunProgress:
    """Shows how a run goes; :meth:`row` may be called from any thread.

    Attributes:
        about: What to say beside the results, e.g. which nodes live.
    """

    def __init__(self, console: Console, total: int, attempts: int) -> None:
        self._console, self._total, self._attempts = console, total, attempts
        self.about: Callable[[], str] = lambda: ""
        self._rows: list[Row] = []
        self._resumed = 0
        self._guard = threading.Lock()
        self._started = self._printed = time.monotonic()
        self._noted = 0.0
        self._told: set[str] = set()
        self._progress = Progress(
            TextColumn("[bold]sessions"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar = self._progress.add_task("sessions", total=total, note="")

    def __enter__(self) -> RunProgress:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def start(self, rows: list[Row]) -> None:
        """The rows that the run directory had already."""
        with self._guard:
            self._rows = list(rows)
            self._resumed = self._done()
            self._progress.reset(self._bar, completed=self._resumed, total=self._total)
            if rows:
                self._console.print(f"Continuing: {self._resumed} of {self._total} sessions are done.")

    def row(self, row: Row) -> None:
        """One more attempt is on disk."""
        with self._guard:
            self._rows.append(row)
            self._tell(row)
            now = time.monotonic()
            if now - self._noted < NOTE_INTERVAL and self._done() < self._total:
                return
            self._noted = now
            done = self._done()
            self._progress.update(self._bar, completed=done, note=self._note())
            if not self._console.is_terminal and now - self._printed >= PLAIN_INTERVAL:
                self._printed = now
                self._console.print(f"{done}/{self._total} sessions  {self._note()}  {self._eta(done, now)}")

    def _tell(self, row: Row) -> None:
        """The first failure of each component as it comes, so that hours are not spent on what one line would have mended."""
        for failure in row.infrastructure:
            if failure.component not in self._told:
                self._told.add(failure.component)
                self._console.print(
                    f"{row.task}: {failure.component}: {failure.message}", markup=False, highlight=False, soft_wrap=True
                )

    def _done(self) -> int:
        return sum(r.session_over for r in self._rows)

    def _note(self) -> str:
        ended = {r.task for r in self._rows if r.session_over}
        done = [s for s in sessions(self._rows) if s.task in ended]
        uplift = correction_uplift(done)
        parts = [f"success@1 {success_at(done, 1):.0%}", f"@{self._attempts} {success_at(done, self._attempts):.0%}"]
        if uplift is not None:
            parts.append(f"uplift {uplift:.0%}")
        broken = sum(len(r.infrastructure) for r in self._rows)
        if broken:
            parts.append(f"[yellow]machinery failures {broken}[/yellow]")
        return "  ".join(filter(None, [*parts, self.about()]))

    def _eta(self, done: int, now: float) -> str:
        made = done - self._resumed
        if not made:
            return ""
        return f"about {(now - self._started) / made * (self._total - done):.0f} s left"

"""The list of a run's sessions, kept between requests: what a request costs does not grow with the attempts already known.

``results.jsonl`` is followed as it grows, and read as a whole only if it has become another file.  Where it is missing or damaged the
list is made once from the result.json files that it is derived from.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from agentlab.disk.files import LARGEST, disk_errors, open_regular, read_bytes
from agentlab.disk.names import folder_name
from agentlab.disk.row import Row, parse_row
from agentlab.disk.runs import Run, read_config, session_folders, session_rows
from agentlab.disk.store import flatten
from agentlab.exchange.plain import Data, plain
from agentlab.results.metrics import summarize
from agentlab.results.report import summary_lines
from envs.errors import StoreError
from envs.numerals import whole

Stamp = tuple[int, int, int]
"""Inode, size and time of change of a file."""
ABSENT: Stamp = (0, 0, 0)
TAIL = 256
"""Bytes before the place read up to that must still be what they were."""
SLOW, PAUSE = 1.0, 20
"""A table that takes more seconds than SLOW is not computed again until PAUSE times as many have passed."""


class Catalog:
    """One run's settings, rows and session lines, as of the last :meth:`refresh`.  Threads may share it.

    A session's line has ``name``, ``task``, ``domain``, ``outcomes`` (one per attempt: solved, failed, broken, running), ``over`` and
    ``problem``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._guard = threading.RLock()
        self._epoch, self._revision = secrets.token_hex(4), 0
        self._config: tuple[Stamp, Data] = (ABSENT, {})
        self._settings: Data = {}
        self._results: Stamp | None = None
        self._read, self._tail, self._rows_revision = 0, b"", 0
        self._folders: tuple[Stamp, set[str]] = (ABSENT, set())
        self._note = ""
        self._rows: dict[str, dict[int, Row]] = {}
        self._problems: dict[str, str] = {}
        self._lines: dict[str, Data] = {}
        self._changed: dict[str, int] = {}
        self._unfinished: set[str] = set()
        self._summary: tuple[int, list[tuple[str, str]]] = (-1, [])
        self._summary_due = 0.0
        self._counts: tuple[int, Data] = (-1, {})

    # -- asking ----------------------------------------------------------------------------------------------------------------
    def counts(self) -> Data:
        """``title``, and how many ``sessions`` there are, have ``ended`` and were ``solved``.

        Raises:
            StoreError: the run cannot be read.
        """
        with self._guard:
            self.refresh()
            if self._counts[0] != self._revision:
                lines = self._lines.values()
                solved = sum("solved" in line["outcomes"] for line in lines)
                numbers = {"sessions": len(lines), "ended": sum(line["over"] for line in lines), "solved": solved}
                self._counts = (self._revision, numbers)
            return {"title": self._run().title, **self._counts[1]}

    def sessions(self, since: str = "") -> Data:
        """The run, and its sessions' lines: those that have changed ``since`` that ``version`` of it, or all (``whole``).

        Raises:
            StoreError: the run cannot be read.
        """
        with self._guard:
            self.refresh()
            epoch, _, revision = since.partition(".")
            seen = whole(revision) if epoch == self._epoch else None
            known = -1 if seen is None else seen
            run = self._run()
            return {
                "title": run.title,
                "attempts": run.attempts,
                "settings": self._settings,
                "summary": self._table(run),
                "note": self._note,
                "version": f"{self._epoch}.{self._revision}",
                "whole": known < 0,
                "sessions": [self._lines[name] for name in sorted(self._lines) if self._changed[name] > known],
            }

    def _run(self) -> Run:
        return Run(self.folder, self._config[1], [row for rows in self._rows.values() for row in rows.values()])

    def _table(self, run: Run) -> list[tuple[str, str]]:
        """The final table so far, computed again only when something has changed; in a large run not at every change."""
        if self._summary[0] != self._rows_revision and time.monotonic() >= self._summary_due:
            begun = time.monotonic()
            rows = [row for name in sorted(self._rows) for _, row in sorted(self._rows[name].items())]
            self._summary = (self._rows_revision, summary_lines(summarize(rows, attempts=run.attempts)))
            taken = time.monotonic() - begun
            self._summary_due = begun + (PAUSE * taken if taken > SLOW else 0.0)
        return self._summary[1]

    # -- following the files ---------------------------------------------------------------------------------------------------
    def refresh(self) -> None:
        """Take over what has changed on disk.

        Raises:
            StoreError: the run cannot be read.
        """
        with self._guard:
            self._refresh_config()
            touched = self._refresh_rows() | self._refresh_folders() | self._unfinished
            lines = {name: line for name in touched if (line := self._line(name)) is not None}
            changed = {name: line for name, line in lines.items() if line != self._lines.get(name)}
            if not changed:
                return
            self._revision += 1
            self._lines |= changed
            self._changed |= dict.fromkeys(changed, self._revision)
            self._unfinished = {n for n in self._unfinished | changed.keys() if not self._lines[n]["over"]}

    def _refresh_config(self) -> None:
        stamp = _stamp(self.folder / "config.json")
        if stamp != self._config[0] or stamp == ABSENT:
            config = read_config(self.folder)
            self._config = (stamp, config)
            self._settings = {name: plain(value) for name, value in flatten(config).items()}
            self._revision += 1

    def _refresh_folders(self) -> set[str]:
        """Names of the sessions that are new."""
        stamp, known = _stamp(self.folder / "sessions"), self._folders[1]
        if stamp == self._folders[0]:
            return set()
        found = {path.name for path in session_folders(self.folder)}
        self._folders = (stamp, found)
        if known - found:
            self._forget(found)
        return found - known

    def _forget(self, left: set[str]) -> None:
        """Sessions have gone: whoever has the list must get it again."""
        self._epoch = secrets.token_hex(4)
        for kept in (self._lines, self._changed, self._problems):
            for name in kept.keys() - left:
                del kept[name]  # type: ignore[attr-defined]
        self._unfinished &= left

    def _refresh_rows(self) -> set[str]:
        """Names of the sessions that have other rows than before."""
        path = self.folder / "results.jsonl"
        stamp = _stamp(path)
        if stamp == self._results:
            return set()
        try:
            grown = self._grown(path, stamp)
            touched = self._take(grown) if grown is not None else self._reread(path)
            self._note = ""
        except (StoreError, ValueError):
            touched = self._from_files()
            self._read, self._tail = 0, b""
            self._note = f"results.jsonl is {'missing' if stamp == ABSENT else 'damaged'}; this list is made from the attempts"
        self._results = stamp
        self._rows_revision += 1
        return touched

    def _grown(self, path: Path, stamp: Stamp) -> list[Row] | None:
        """The rows that were appended; None if the file is another one than it was."""
        if not self._read or self._results is None or stamp[0] != self._results[0] or stamp[1] < self._read:
            return None
        with disk_errors(path), open_regular(path, self.folder) as file:
            file.seek(self._read - len(self._tail))
            if file.read(len(self._tail)) != self._tail:
                return None
            return self._parse(file.read(LARGEST))

    def _reread(self, path: Path) -> set[str]:
        self._read, self._tail = 0, b""
        rows = self._parse(read_bytes(path))
        before, self._rows, self._problems = self._rows.keys(), {}, {}
        return before | self._take(rows)

    def _parse(self, data: bytes) -> list[Row]:
        """The rows of whole lines; what follows the last line's end is read when it is whole."""
        whole = data[: data.rfind(b"\n") + 1]
        rows = [parse_row(line, "results.jsonl") for line in whole.split(b"\n") if line.strip()]
        self._read += len(whole)
        self._tail = (self._tail + whole)[-TAIL:]
        return rows

    def _take(self, rows: Iterable[Row]) -> set[str]:
        touched = set()
        for row in rows:
            name = folder_name(row.task)
            self._rows.setdefault(name, {})[row.attempt] = row
            touched.add(name)
        return touched

    def _from_files(self) -> set[str]:
        """Read every result.json."""
        before, self._rows, self._problems = self._rows.keys(), {}, {}
        for folder in session_folders(self.folder):
            rows, trouble = session_rows(folder)
            self._rows[folder.name] = {row.attempt: row for row in rows}
            if trouble:
                self._problems[folder.name] = trouble[0]
        return before | self._rows.keys()

    def _line(self, name: str) -> Data | None:
        """The session's line in the list; None where there is no such folder, whatever results.jsonl says."""
        if name not in self._folders[1]:
            return None
        rows = self._rows.get(name, {})
        outcomes: list[str] = []
        while (row := rows.get(len(outcomes) + 1)) is not None:
            outcomes.append("broken" if not row.graded else "solved" if row.success else "failed")
        first, last = rows.get(1), rows.get(len(outcomes))
        over, problem = last is not None and last.session_over, self._problems.get(name, "")
        if not over and not problem and (self.folder / f"sessions/{name}/attempt_{len(outcomes) + 1:02d}").is_dir():
            outcomes.append("running")
        task, domain = (first.task, first.domain) if first is not None else (name, "")
        return {"name": name, "task": task, "domain": domain, "outcomes": outcomes, "over": over, "problem": problem}


def _stamp(path: Path) -> Stamp:
    try:
        stat = path.stat()
    except OSError:
        return ABSENT
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns)

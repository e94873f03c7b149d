"""A run on disk: plain files that ``less`` and ``jq`` read, written so that ``kill -9`` loses at most the attempt in flight.

    config.json                  resolved configuration; a run is continued only under the same one
    identity.json                what policy and suite were when it began, see :mod:`agentlab.run.identity`
    run.lock                     held while a process works in this directory
    sessions/<task>/attempt_01/  one attempt, see :mod:`agentlab.disk.record`; its result.json, renamed into place last, commits it
    results.jsonl                one line per finished attempt; derived from the result.json files and rebuilt from them; lines whose
                                 attempts are gone are kept in results_set_aside_01.jsonl

Nothing here is ever unpickled.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentlab.disk.files import ATTEMPT, disk_errors, read_bytes, strict_json, write_atomic
from agentlab.disk.lost import RESULTS, keep_lines, listed
from agentlab.disk.names import folder_name
from agentlab.disk.row import SCHEMA, Row, parse_row
from agentlab.disk.runs import ADAPTER, read_config, read_rows, session_rows
from envs.errors import StoreError
from envs.redaction import redacted, without_secrets

# -- configurations ----------------------------------------------------------------------------------------------------------------
CHANGES_NO_RESULT = ("workers", "cluster", "out", "track", "keep_adapters", "overlap")
"""Keys that may differ when a run is continued."""
GROWS = ("limit", "repeats")
"""Settings that only add sessions when they grow."""


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` -> ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differing(old: Mapping[str, Any], new: Mapping[str, Any], *, free: Iterable[str], implied: Iterable[str] = ()) -> list[str]:
    """Dotted keys whose values differ, but for those in ``free``, and those in ``implied`` that ``old`` has not at all, as
    ``key: old -> new`` lines.
    """
    a, b = flatten(old), flatten(new)
    keys = sorted((a.keys() | b.keys()) - set(free) - (set(implied) - a.keys()))
    return [f"{k}: {json.dumps(a.get(k))} -> {json.dumps(b.get(k))}" for k in keys if a.get(k) != b.get(k)]


DAMAGED = "result.json.damaged"
"""What a result.json that cannot be read is renamed to."""


def _is_readable(result: Path) -> bool:
    """Whether there is a row, or another one than the folder's, which is for a person to look at."""
    try:
        parse_row(read_bytes(result), result)
    except StoreError:
        return False
    return True


class RunStore:
    """One run directory, locked for this process until :meth:`close`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock_file: int | None = None
        self.say: Callable[[str], None] = lambda line: None
        self._results = threading.RLock()  # results.jsonl and the result.json files change together

    @classmethod
    def open(
        cls,
        folder: Path,
        config: Mapping[str, Any],
        *,
        say: Callable[[str], None] = lambda line: None,
        free: Iterable[str] = (),
        grows: Iterable[str] = (),
        implied: Iterable[str] = (),
    ) -> RunStore:
        """Create a run, or continue the one in ``folder``.

        Args:
            folder: Created if missing.
            config: The resolved configuration, JSON-serialisable.
            say: Told, in a line, what is restored, or set aside and why.
            free: Dotted keys that may differ from the stored configuration (they change no result).
            grows: Keys whose numbers may be larger than the stored ones (sessions are independent: more of them extend a run).
            implied: Keys that a stored configuration may lack: what they say now is what was done before there were such settings.

        Raises:
            StoreError: unwritable, foreign or corrupt directory, another configuration, or another process works in it.
        """
        store = cls(folder)
        store.say = say
        config = redacted(config)  # as it is written, and compared
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            names = {p.name for p in folder.iterdir() if not p.name.endswith(".tmp")}
        fresh = "config.json" not in names
        if fresh and names - {"run.lock"}:
            raise StoreError(f"{folder} is not a run directory: it has files but no config.json.", "Choose another with --out DIR.")
        try:
            store._take_lock()
            if fresh:
                store._write_config(config)
            else:
                store._check_config(config, set(free), set(grows), set(implied))
            with disk_errors(folder):
                (folder / "sessions").mkdir(exist_ok=True)
            store._restore_results()
            store._repair_results()
        except BaseException:
            store.close()
            raise
        return store

    def _take_lock(self) -> None:
        path = self.folder / "run.lock"
        with disk_errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        try:
            # The kernel drops the lock with its process, however that died: a lock file left behind locks nobody out.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 64).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise StoreError(f"Another process (pid {holder}) works in {self.folder}.", "Wait for it, or use --out DIR.") from error
        except OSError as error:
            os.close(descriptor)
            raise StoreError(f"{path} cannot be locked: {error.strerror}.", "Use --out DIR on another file system.") from error
        self._lock_file = descriptor
        with disk_errors(path):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())

    def _write_config(self, config: Mapping[str, Any]) -> None:
        write_atomic(self.folder / "config.json", json.dumps({"schema": SCHEMA, "config": config}, indent=2) + "\n")

    def _check_config(self, config: Mapping[str, Any], free: set[str], grows: set[str], implied: set[str]) -> None:
        old = redacted(read_config(self.folder))
        numbers = {key: (old.get(key), config.get(key)) for key in grows}
        bigger = {key for key, (a, b) in numbers.items() if isinstance(a, int) and isinstance(b, int) and b > a}
        changed = differing(old, config, free=free | bigger, implied=implied)
        # A start that failed fixes no configuration; lines whose sessions are gone were made under the one that there is.
        made = any(self.folder.glob("sessions/*/attempt_*/result.json")) or bool(listed(self.folder)[0])
        if changed and made:
            raise StoreError(
                f"{self.folder} holds a run under another configuration ({'; '.join(changed)}).",
                "Use the same settings to continue it, or --out DIR for a new run.",
            )
        if bigger or changed:
            self._write_config(config)

    # -- results -------------------------------------------------------------------------------------------------------------------
    def append(self, row: Row) -> None:
        """Add one line to results.jsonl; called after the attempt's result.json is in place."""
        path = self.folder / RESULTS
        with self._results, disk_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(without_secrets(row.line()))

    def rows(self) -> list[Row]:
        return read_rows(self.folder)

    def _restore_results(self) -> None:
        """Write a result.json that is missing or damaged again from its line in results.jsonl; a damaged one is kept beside it."""
        for row in listed(self.folder)[0]:
            result = self.session(row.task).attempt_folder(row.attempt) / "result.json"
            if any(folder.is_symlink() for folder in result.parents[:3]) or not result.parent.is_dir() or _is_readable(result):
                continue
            with disk_errors(result):
                what = f"{result} was missing" if not os.path.lexists(result) else f"{result} was damaged (kept as {DAMAGED})"
                if os.path.lexists(result):
                    result.rename(result.with_name(DAMAGED))
            write_atomic(result, strict_json(row.to_json(), indent=2) + "\n")
            self.say(f"{what}; it is restored from results.jsonl.")

    def _repair_results(self) -> None:
        """Make results.jsonl say what the result.json files say (a crash may have torn or lost its last line)."""
        path = self.folder / RESULTS
        with self._results, disk_errors(path):
            text = without_secrets("".join(row.line() for row in self.rows()))
            try:
                same = read_bytes(path) == text.encode()
            except StoreError:
                same = False
            if not same:
                if kept := keep_lines(self.folder):
                    self.say(kept)
                write_atomic(path, text)

    def sort(self, tasks: Sequence[str]) -> None:
        """Put results.jsonl into the order of the plan, so that two runs can be compared with ``diff``."""
        place = {task: i for i, task in enumerate(tasks)}
        rows = sorted(self.rows(), key=lambda r: (place.get(r.task, len(place)), r.task, r.attempt))
        write_atomic(self.folder / RESULTS, "".join(row.line() for row in rows))

    def session(self, task_id: str) -> SessionStore:
        return SessionStore(self, self.folder / "sessions" / folder_name(task_id))

    def close(self) -> None:
        """Unlock the directory.  May be called twice."""
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None


class SessionStore:
    """The folder of one session."""

    def __init__(self, run: RunStore, folder: Path) -> None:
        self.run = run
        self.folder = folder

    def attempt_folder(self, attempt: int) -> Path:
        return self.folder / f"attempt_{attempt:02d}"

    def rows(self) -> list[Row]:
        """Results of the finished attempts, in order, without gaps.

        Raises:
            StoreError: one of them cannot be read, or is another task's.
        """
        if self.folder.is_symlink():
            raise StoreError(
                f"{self.folder} is a link.", "Nothing outside a run directory is read or written: move it out of the run."
            )
        return session_rows(self.folder, strict=True)[0]

    def start_attempt(self, attempt: int) -> Path:
        """An empty folder for an attempt; what an attempt in flight left there when its process died is removed.

        Nothing that holds a result is removed: if this attempt or a later one has one, or is not a folder, all of them are set aside.
        """
        folder = self.attempt_folder(attempt)
        there = self._from(attempt)
        if any(os.path.lexists(path / "result.json") for path in there):
            self.set_aside(attempt, f"{folder / 'result.json'} is missing, and later attempts have theirs.")
        elif odd := next((path for path in there if path.is_symlink() or not path.is_dir()), None):
            self.set_aside(attempt, f"{odd} is not the folder of an attempt.")
        with disk_errors(folder):
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(parents=True)
        return folder

    def _from(self, attempt: int) -> list[Path]:
        """Folders of this attempt and the later ones."""
        return [p for p in self.folder.glob("attempt_*") if (m := ATTEMPT.match(p.name)) and int(m[1]) >= attempt]

    def set_aside(self, attempt: int, why: str = "") -> None:
        """Move attempt ``attempt`` and the later ones into ``set_aside_NN/``: they stay readable but no longer count.

        Args:
            why: What was damaged; said to the user, and written into ``set_aside_NN/why.txt``.
        """
        numbered = self._from(attempt)
        if not numbered:
            return
        with disk_errors(self.folder):
            taken = [int(m[1]) for p in self.folder.iterdir() if (m := re.fullmatch(r"set_aside_([0-9]{1,9})", p.name))]
            aside = self.folder / f"set_aside_{max(taken, default=0) + 1:02d}"
            aside.mkdir()
            if why:
                write_atomic(aside / "why.txt", why + "\n")
            for path in sorted(numbered, reverse=True):  # the newest first: a crash in between leaves no gap
                path.rename(aside / path.name)
        self.run._repair_results()
        if why:
            self.run.say(f"{why} From attempt {attempt} on everything was set aside, in {aside}, and is retried.")

    def adapter_folder(self, attempt: int) -> Path:
        """Where the weights after an attempt are, if it has any and they have been kept."""
        return self.attempt_folder(attempt) / ADAPTER

    def prune_adapters(self, keep: str) -> None:
        """Remove adapters that are no longer needed.

        Args:
            keep: ``all``; ``last``, the newest; or ``none``, the newest until the session is over.  One that the machinery ended may
                still be continued, so it keeps its newest.
        """
        if keep == "all":
            return
        made = self.rows()
        over = bool(made) and made[-1].session_over and made[-1].graded
        adapted = [row.attempt for row in made if row.adapter]
        for attempt in adapted if keep == "none" and over else adapted[:-1]:
            folder = self.adapter_folder(attempt)
            with disk_errors(folder):
                if folder.is_dir() and not folder.is_symlink():
                    shutil.rmtree(folder)

    def commit(self, attempt: int, row: Row) -> None:
        """The attempt is over and all its files are written: result.json makes it count."""
        with self.run._results:  # another session may be setting attempts aside, which rewrites results.jsonl from the files
            write_atomic(self.attempt_folder(attempt) / "result.json", strict_json(row.to_json(), indent=2) + "\n")
            self.run.append(row)

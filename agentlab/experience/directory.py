"""An experience directory: plain files, one folder per round, each renamed into place as a whole.

    experience.json           its version; the model and the benchmark that began it
    rounds/00001/round.json   which run's, which sessions, which model and benchmark; the digest of every other file
                 sessions.jsonl   a session a line: how it went, and what it had been shown
                 lessons.jsonl    a lesson a line; one that was there already is only named again
                 examples.jsonl   a solved question a line
                 rows.safetensors tokens of its attempts: H, y, r
    forgotten.json            ids that are no longer shown to anybody
    lock                      held while a run adds to it

A round is never changed; what follows from all of them (which lesson helped, which is retired) is computed when it is read.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agentlab.disk.files import disk_errors, inside, read_bytes, read_json, read_lines, strict_json, write_atomic
from envs.errors import StoreError, UsageError

SCHEMA: Final = 1
"""Version of the layout; a directory of another version is refused."""
ROUND = re.compile(r"[0-9]{5}")
FILES = ("sessions", "lessons", "examples")
"""Files of a round, a JSON object a line."""
ROWS = "rows.safetensors"
MEND = "Restore it from a copy, or name another directory; a round that is wholly removed is one that never was."


@dataclass(frozen=True)
class Origin:
    """Whose experience it is.

    Attributes:
        policy: Name of the policy.
        model: Its fingerprint, "" for policies without weights.
        benchmark: Name of the benchmark.
    """

    policy: str
    model: str
    benchmark: str

    def to_json(self) -> dict[str, str]:
        return dict(vars(self))

    def differs(self, there: Origin) -> str:
        """In what way this run's, here, is another's than that of a directory, ``there``, in words; "" if it is not."""
        same_model = self.model == there.model if self.model and there.model else self.policy == there.policy
        parts = [] if same_model else [f"the model is {there.policy} there and {self.policy} here"]
        if self.benchmark != there.benchmark:
            parts.append(f"the benchmark is {there.benchmark} there and {self.benchmark} here")
        return "; ".join(parts)

    @classmethod
    def of(cls, data: Mapping[str, Any], path: Path) -> Origin:
        """From JSON.

        Raises:
            StoreError: it is incomplete.
        """
        values = [data.get(name) for name in ("policy", "model", "benchmark")]
        if not all(isinstance(value, str) for value in values):
            raise StoreError(f"{path} does not say whose experience it is.", "Restore it from a copy, or start another directory.")
        return cls(*map(str, values))


class Directory:
    """One experience directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: int | None = None

    # -- opening ---------------------------------------------------------------------------------------------------------------
    def exists(self) -> bool:
        return os.path.lexists(self.folder / "experience.json")

    def begin(self, source: Origin) -> None:
        """Make the directory, if it is not there.

        Raises:
            StoreError: it is something else, or cannot be written.
        """
        self._refuse_others()
        if self.exists():
            return
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / "experience.json", json.dumps({"schema": SCHEMA, **source.to_json()}, indent=2) + "\n")

    def _refuse_others(self) -> None:
        """Raises StoreError if the folder holds something else; nothing is left there."""
        if self.exists():
            self.source()
            return
        with disk_errors(self.folder):
            there = list(self.folder.iterdir()) if os.path.lexists(self.folder) else []
        if any(path.name not in ("lock", ".experience.json.tmp") for path in there):
            raise StoreError(
                f"{self.folder} is not an experience directory: it has files but no experience.json.", "Name another one."
            )

    def source(self) -> Origin:
        """Whose it is.

        Raises:
            StoreError: there is none, or it is of another version.
        """
        path = self.folder / "experience.json"
        if not self.exists():
            raise StoreError(f"{self.folder} is not an experience directory.", "`agentlab run … --experience DIR` makes one.")
        data = read_json(path)
        if "schema" not in data:
            raise StoreError(
                f"{self.folder} is not an experience directory: its experience.json is something else's.", "Name another."
            )
        if data["schema"] != SCHEMA:
            raise StoreError(
                f"{path} is of schema {data.get('schema')!r}; this version of agentlab reads schema {SCHEMA}.",
                "Read it with the version that wrote it, or name another directory.",
            )
        return Origin.of(data, path)

    def lock(self) -> None:
        """Keep others from adding to it until :meth:`close`.

        Raises:
            StoreError: somebody does, or the folder is something else.
        """
        self._refuse_others()
        path = self.folder / "lock"
        with disk_errors(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise StoreError(
                    f"Cannot lock {path}: {error.strerror}.", "Name a directory on a file system that has locks."
                ) from error
            raise StoreError(
                f"Another process adds to the experience in {self.folder}.",
                "Wait for it, name another directory, or only read this one with experience.add=false.",
            ) from error
        self._lock = descriptor

    def close(self) -> None:
        """Unlock it.  May be called twice."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # -- reading ---------------------------------------------------------------------------------------------------------------
    def rounds(self) -> list[str]:
        """Names of its rounds, in order."""
        folder = self.folder / "rounds"
        with disk_errors(folder):
            found = sorted(p.name for p in folder.iterdir() if ROUND.fullmatch(p.name)) if folder.is_dir() else []
        return found

    def round_folder(self, name: str) -> Path:
        """The folder of a round.

        Raises:
            StoreError: it is not there, or leads elsewhere.
        """
        path = self.folder / "rounds" / name
        if not ROUND.fullmatch(name) or not path.is_dir():
            raise StoreError(f"The round {name} is missing in {self.folder}.", "Restore it, or start a new run with --out DIR.")
        return inside(path, self.folder)

    def about(self, name: str) -> dict[str, Any]:
        """The round.json of a round.

        Raises:
            StoreError: it cannot be read, or does not say what it is to say.
        """
        path = self.round_folder(name) / "round.json"
        data = read_json(path, self.folder)
        tasks = data.get("tasks")
        if type(data.get("number")) is not int or not isinstance(tasks, list) or not all(isinstance(one, str) for one in tasks):
            raise StoreError(f"{path} is corrupt: it does not say which round of which sessions it is.", MEND)
        return data

    def whole(self, name: str) -> dict[str, Any]:
        """As :meth:`about`, of a round whose other files are as they were written.

        Raises:
            StoreError: one of them is missing, was cut or was changed.
        """
        data, folder = self.about(name), self.round_folder(name)
        digests = data.get("files")
        if not isinstance(digests, dict):  # of an earlier version: at least no line was lost
            digests = dict.fromkeys((f"{what}.jsonl" for what in FILES), None)
        for file, digest in digests.items():
            if file not in {*(f"{what}.jsonl" for what in FILES), ROWS}:
                raise StoreError(f"{folder / 'round.json'} is corrupt: it names a file {file!r}.", MEND)
            found = read_bytes(folder / file, self.folder)
            if (found and not found.endswith(b"\n")) if digest is None else (hashlib.sha256(found).hexdigest() != digest):
                raise StoreError(f"{folder / file} is not what was written.", MEND)
        return data

    def lines(self, name: str, what: str) -> list[dict[str, Any]]:
        """``what`` (one of :data:`FILES`) of a round."""
        return read_lines(self.round_folder(name) / f"{what}.jsonl", self.folder)

    def forgotten(self) -> list[str]:
        """Ids that are no longer shown."""
        path = self.folder / "forgotten.json"
        if not os.path.lexists(path):
            return []
        ids = read_json(path, self.folder).get("ids")
        if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
            raise StoreError(
                f"{path} is corrupt: a list of ids was expected.", "Remove it; what was forgotten is then shown again."
            )
        return ids

    # -- writing ---------------------------------------------------------------------------------------------------------------
    def add(self, about: Mapping[str, Any], parts: Mapping[str, Sequence[Mapping[str, Any]]], rows: bytes) -> str:
        """Add a round, as a whole or not at all; its name."""
        name = f"{int((self.rounds() or ['0'])[-1]) + 1:05d}"
        part, folder = self.folder / "rounds" / f".{name}.tmp", self.folder / "rounds" / name
        with disk_errors(part):
            if part.exists():
                shutil.rmtree(part)
            part.mkdir(parents=True)
            for what in FILES:
                write_atomic(part / f"{what}.jsonl", "".join(strict_json(line) + "\n" for line in parts[what]))
            if rows:
                (part / ROWS).write_bytes(rows)
            files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(part.iterdir())}
            write_atomic(part / "round.json", strict_json({"schema": SCHEMA, **about, "files": files}, indent=2) + "\n")
            part.rename(folder)
        return name

    def forget(self, ids: Sequence[str], known: Mapping[str, Sequence[str]]) -> None:
        """Show what ``ids`` name to nobody any more.

        Args:
            known: What may be named, and what that stands for.

        Raises:
            UsageError: there is no such lesson, example or session.
        """
        for one in ids:
            if one not in known:
                raise UsageError(
                    f"There is nothing of the id {one!r} in {self.folder}.", f"`agentlab experience ls {self.folder}`."
                )
        merged = sorted({*self.forgotten(), *(meant for one in ids for meant in known[one])})
        write_atomic(self.folder / "forgotten.json", json.dumps({"ids": merged}, indent=2) + "\n")

"""Runs as they lie on disk, for those who only look: what is torn, missing or foreign is named, the rest is shown.

A run directory may come from somebody else, so nothing in it is trusted: names of files inside it are checked against the
layout, links that lead out of it are not followed, and only WebP is decoded.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from agentlab.disk.files import ATTEMPT, read_json, read_lines
from agentlab.disk.store import SCHEMA, in_order, read_config
from agentlab.results.metrics import SPLIT, Row
from envs.base import Observation, Screenshot
from envs.errors import StoreError, UsageError

SCREEN = re.compile(r"screens/\d{3,6}\.webp")
SESSION = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
OUTCOMES = {"graded", "infrastructure"}


@dataclass(frozen=True)
class Run:
    """What can be read of a run.

    Attributes:
        rows: One per finished attempt.
        problems: What could not be read, in words.
    """

    folder: Path
    config: dict[str, Any]
    rows: list[Row]
    problems: list[str] = field(default_factory=list)

    @property
    def attempts(self) -> int:
        return int(self.config.get("attempts") or 1)

    @property
    def imported(self) -> str:
        """Whose results it was made of ("" if it was run here)."""
        mark = self.config.get("imported")
        return str(mark.get("from")) if isinstance(mark, dict) else ""

    @property
    def title(self) -> str:
        if self.imported:
            return f"{self.config.get('suite')} · {self.config.get('policy')} · imported from {self.imported}"
        adapt = self.config.get("adapt")
        preset = adapt.get("preset", "?") if isinstance(adapt, dict) else adapt
        return f"{self.config.get('suite')} · {self.config.get('policy')} · {preset} · seed {self.config.get('seed')}"


@dataclass(frozen=True)
class Attempt:
    """What can be read of one attempt; everything but ``number`` and ``folder`` may be missing.

    Attributes:
        begin, steps, end: Lines of events.jsonl.
        result: Its row; None while the attempt is being made.
        guidance_after: The words for the next attempt.
        update, words, tokens: update.json, words.json and tokens.json.
        voids: Tries that the machinery broke.
        problems: What could not be read.
    """

    number: int
    folder: Path
    begin: dict[str, Any] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    end: dict[str, Any] = field(default_factory=dict)
    result: Row | None = None
    guidance_after: str = ""
    update: dict[str, Any] | None = None
    words: dict[str, Any] | None = None
    tokens: dict[str, Any] | None = None
    voids: int = 0
    problems: list[str] = field(default_factory=list)


def read_run(folder: Path) -> Run:
    """A run, finished or not.

    Raises:
        StoreError: no run directory, or one of another version.
    """
    config, rows, problems = read_run_config(folder), [], []
    for session in session_folders(folder):
        found, trouble = session_rows(session)
        rows += found
        problems += trouble
    listed = folder / "results.jsonl"
    try:
        read_lines(inside(listed, folder))
    except StoreError as error:
        return Run(folder, config, rows, [*problems, f"{error.message} The rows are those of the attempts."])
    return Run(folder, config, in_order(rows, listed), problems)


def read_run_config(folder: Path) -> dict[str, Any]:
    """The settings of a run that may be somebody else's.

    Raises:
        StoreError: no run directory, one of another version, or its config.json is a link that leads out of it.
    """
    inside(folder / "config.json", folder)
    return read_config(folder)


def session_rows(session: Path) -> tuple[list[Row], list[str]]:
    """The rows of a session up to the first that is missing or cannot be read, and what was wrong with that one."""
    rows: list[Row] = []
    for number, path in enumerate(attempt_folders(session), start=1):
        result = path / "result.json"
        if path.name != f"attempt_{number:02d}" or not os.path.lexists(result):
            break
        try:
            rows.append(checked_row(read_json(inside(result, path) if result.is_symlink() else result)))
        except StoreError as error:
            return rows, [error.message]
    return rows, []


def checked_row(row: Row) -> Row:
    """The row, if it is one that this version writes.

    Raises:
        StoreError: it is not.
    """
    shapes = {
        "task": str, "name": str, "domain": str, "attempt": int, "success": bool, "session_over": bool, "steps": int,
        "unparsable": int, "seconds": dict, "memory": dict, "actions_hash": str, "infrastructure": list,
    }  # fmt: skip
    wrong = [name for name, kind in shapes.items() if not isinstance(row.get(name), kind)]
    if row.get("schema") != SCHEMA or row.get("outcome") not in OUTCOMES or wrong:
        name, number = row.get("task"), row.get("attempt")
        raise StoreError(f"The result of attempt {number} at {name!r} is not of this version ({', '.join(wrong) or 'schema'}).")
    optional: dict[str, Any] = {"score": (int, float), "update": dict, "words": dict, "feasible": bool}
    odd = [name for name, kind in optional.items() if row.get(name) is not None and not isinstance(row[name], kind)]
    if odd:
        raise StoreError(f"The result of attempt {row['attempt']} at {row['task']!r} has no usable {', '.join(odd)}.")
    numbers = [*row["memory"].values(), *(row["seconds"].get(part) for part in SPLIT)]
    if not all(isinstance(n, int | float) for n in numbers):
        raise StoreError(f"The result of attempt {row['attempt']} at {row['task']!r} has times or memory that are no numbers.")
    return row


# -- finding one's way -------------------------------------------------------------------------------------------------------------
def inside(path: Path, folder: Path) -> Path:
    """``path`` with its links followed, if that is still inside ``folder``.

    Raises:
        StoreError: it leads out.
    """
    real = path.resolve()
    if not real.is_relative_to(folder.resolve()):
        raise StoreError(f"{path} leads out of {folder}.", "Nothing outside a run directory is read.")
    if real.exists() and not (real.is_file() or real.is_dir()):
        raise StoreError(f"{path} is no file.", "Pipes and devices are not read.")
    return real


def session_folders(run: Path) -> list[Path]:
    """Folders of the sessions, in alphabetical order."""
    root = run / "sessions"
    if root.is_symlink() or not root.is_dir():
        return []
    with os.scandir(root) as entries:
        names = [e.name for e in entries if SESSION.fullmatch(e.name) and e.is_dir(follow_symlinks=False)]
    return [root / name for name in sorted(names)]


def attempt_folders(session: Path) -> list[Path]:
    """Folders of the attempts, in order."""
    numbered = [(int(m[1]), p) for p in session.glob("attempt_*") if (m := ATTEMPT.fullmatch(p.name)) and not p.is_symlink()]
    return [path for _, path in sorted(numbered)]


def find_session(run: Path, name: str) -> Path:
    """The folder of a session, by its task's id or its folder's name.

    Raises:
        UsageError: there is none.
    """
    if SESSION.fullmatch(name):
        path = run / "sessions" / name
        if path.is_dir() and not path.is_symlink() and not path.parent.is_symlink():
            return path
    known = [p.name for p in session_folders(run)]
    raise UsageError(f"{run} has no session {name!r}.", f"It has {', '.join(known[:12])}{' …' if len(known) > 12 else ''}.")


# -- attempts ----------------------------------------------------------------------------------------------------------------------
def read_attempt(folder: Path) -> Attempt:
    """One attempt, whatever state it is in."""
    problems: list[str] = []
    events = list(_events(folder, problems))
    by_kind = {kind: [e for e in events if e.get("event") == kind] for kind in ("begin", "step", "end")}
    number = ATTEMPT.search(folder.name)
    return Attempt(
        number=int(number[1]) if number else 0,
        folder=folder,
        begin=next(iter(by_kind["begin"]), {}),
        steps=by_kind["step"],
        end=next(iter(by_kind["end"]), {}),
        result=_json(folder / "result.json", problems),
        guidance_after=_text(folder / "guidance.txt", problems),
        update=_json(folder / "update.json", problems),
        words=_json(folder / "words.json", problems),
        tokens=_json(folder / "tokens.json", problems),
        voids=len(list(folder.glob("void_*"))),
        problems=problems,
    )


def _events(folder: Path, problems: list[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_text(folder / "events.jsonl", problems).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, dict):
            yield event
        else:
            problems.append(f"events.jsonl, line {number} is torn")


def _text(path: Path, problems: list[str]) -> str:
    if not path.exists():
        return ""
    try:
        return inside(path, path.parent).read_text(encoding="utf-8", errors="replace")
    except (OSError, StoreError) as error:
        problems.append(str(error))
        return ""


def _json(path: Path, problems: list[str]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        return read_json(inside(path, path.parent))
    except StoreError as error:
        problems.append(error.message)
        return None


def screen_path(folder: Path, name: Any) -> Path:
    """The file of a screen that an event names.

    Raises:
        StoreError: that is no name of a screen, it leads out of the attempt, or there is no such file.
    """
    if not isinstance(name, str) or not SCREEN.fullmatch(name):
        raise StoreError(f"{name!r} is not the name of a screen.")
    path = inside(folder / name, folder)
    if not path.is_file():
        raise StoreError(f"The screen {name} is missing.")
    return path


def read_observation(folder: Path, event: Mapping[str, Any]) -> Observation:
    """What an event of the attempt in ``folder`` says was observed.

    Raises:
        StoreError: its screen cannot be read, or it has neither screen nor text.
    """
    observation: Observation = {}
    if isinstance(text := event.get("observation"), str):
        observation["text"] = text
    if "screen" in event or not observation:
        observation["screenshot"] = read_screen(folder, event.get("screen"))
    return observation


def read_screen(folder: Path, name: Any) -> Screenshot:
    """A screen, [H, W, 3] uint8.

    Raises:
        StoreError: as :func:`screen_path`, or no WebP image.
    """
    path = screen_path(folder, name)
    try:
        with Image.open(path, formats=["WEBP"]) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, Image.DecompressionBombError) as error:
        raise StoreError(f"The screen {name} cannot be decoded: {error}.") from error

"""Runs as they lie on disk: the one reader of configurations, rows and attempts.

Code that works in a run reads it *strictly*: anything damaged is an error.  Code that only looks reads it leniently: what is
incomplete, missing or foreign is named, and the rest is shown.

A run directory may come from somebody else, so nothing in it is trusted: names of files inside it are checked against the
layout, links that lead out of it are not followed, and only WebP is decoded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from agentlab.disk.files import ATTEMPT, inside, mend, parse_json, read_bytes, read_json, read_lines
from agentlab.disk.lost import MOST_ATTEMPTS, RESULTS, unfinished, without_attempt
from agentlab.disk.names import FOLDER, folder_name
from agentlab.disk.row import SCHEMA, Row, parse_row
from envs.base import Observation, Screenshot
from envs.errors import StoreError, UsageError

SHOWN = 5
"""Attempts named in a message."""
ADAPTER = "adapter"
"""Folder of an attempt's adapter, inside the attempt's."""
LARGEST_SCREEN = 64 * 2**20
"""Bytes of the largest screen that is decoded, which is done in memory."""
SCREEN = re.compile(r"screens/\d{3,6}\.webp")


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
        """Attempts per task: as configured, or as many as were made where the configuration gives no such number."""
        value = self.config.get("attempts")
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_ATTEMPTS:
            return value
        return min(max((row.attempt for row in self.rows), default=1), MOST_ATTEMPTS)

    @property
    def imported(self) -> str:
        """Whose results it was made of ("" if it was run here)."""
        mark = self.config.get("imported")
        return str(mark.get("from")) if isinstance(mark, dict) else ""

    @property
    def title(self) -> str:
        if self.imported:
            return f"{self.config.get('suite')} · {self.config.get('policy')} · imported from {self.imported}"
        return run_title(self.config)


def run_title(config: Mapping[str, Any]) -> str:
    """What a run is, for the head of its tables: with who writes the words, where words are learned."""
    adapt = config.get("adapt")
    method = adapt.get("preset", "?") if isinstance(adapt, dict) else adapt
    words = adapt.get("words") if isinstance(adapt, dict) else None
    if isinstance(words, dict):
        does = ["words"] * (words.get("method", "none") != "none") + ["judge"] * ("judge_accepts" in words)
        method = f"{method} ({' and '.join(does)}: {words.get('engine', '?')})" if does else method
    return f"{config.get('suite')} · {config.get('policy')} · {method} · seed {config.get('seed')}"


@dataclass(frozen=True)
class Attempt:
    """What can be read of one attempt; everything but ``number`` and ``folder`` may be missing.

    Attributes:
        begin, steps, end: Lines of events.jsonl.
        result: Its row; None while the attempt is being made.
        guidance_after: The words for the next attempt.
        update, words, tokens: update.json, words.json and tokens.json.
        adapter: The weights after it exist and were kept.
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
    adapter: bool = False
    voids: int = 0
    problems: list[str] = field(default_factory=list)


# -- runs --------------------------------------------------------------------------------------------------------------------------
def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of the run in ``folder``, which may be somebody else's.

    Raises:
        StoreError: no run there, a corrupt config.json or a link that leads out of the run, or a run of another version.
    """
    path = folder / "config.json"
    if not os.path.lexists(path):
        raise StoreError(
            f"{folder} is not a run directory: it has no config.json.", "Give the directory that `agentlab run` printed."
        )
    data = read_json(path)
    schema, config = data.get("schema"), data.get("config")
    if schema != SCHEMA or not isinstance(config, dict):
        raise StoreError(
            f"{path} is of schema {schema!r}; this version of agentlab reads schema {SCHEMA}.",
            "Read it with the version that wrote it, or start a new run with --out DIR.",
        )
    return config


def read_run(folder: Path, *, strict: bool = False) -> Run:
    """A run, finished or not.

    Args:
        strict: Anything of it that cannot be read is an error, not only its configuration.

    Raises:
        StoreError: no run directory, or one of another version.
    """
    config = read_config(folder)
    rows, problems = _all_rows(folder, strict=strict)
    run = Run(folder, config, rows, problems)
    if "attempts" in config and config["attempts"] != run.attempts:
        problems.append(
            f"{folder / 'config.json'}: attempts is {_short(config['attempts'])}, which is not a number of attempts from 1 to"
            f" {MOST_ATTEMPTS}; {run.attempts} were made."
        )
    return run


def _short(value: Any) -> str:
    """A value of somebody's, for a message."""
    shown = f"{value:.3g}" if isinstance(value, float) else "a huge number" if _huge(value) else repr(value)
    return shown if len(shown) <= 40 else f"{shown[:40]} …"


def _huge(value: Any) -> bool:
    return isinstance(value, int) and value.bit_length() > 64


def read_rows(folder: Path) -> list[Row]:
    """One row per finished attempt, in the order of results.jsonl, then by session and attempt.

    Raises:
        StoreError: one of them cannot be read.
    """
    return _all_rows(folder, strict=True)[0]


def _all_rows(folder: Path, *, strict: bool) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    problems: list[str] = []
    for session in session_folders(folder):
        found, trouble = session_rows(session, strict=strict)
        rows += found
        problems += trouble
    listed = folder / RESULTS
    order: dict[tuple[Any, Any], None] = {}
    try:
        order = {(line.get("task"), line.get("attempt")): None for line in read_lines(listed)}
    except (StoreError, TypeError) as error:  # the order is a nicety; the result.json files are the truth
        what = error.message if isinstance(error, StoreError) else f"{listed} is damaged."
        problems.append(f"{what} The rows are those of the attempts.")
    known = {(row.task, row.attempt): row for row in rows}
    unknown = [key for key in order if key not in known]
    if not problems:
        problems += [problem for key in unknown if (problem := unfinished(folder, *key))]
    if gone := without_attempt(folder, unknown):
        some = ", ".join(f"{task}/{attempt}" for task, attempt in gone[:SHOWN]) + (" …" if len(gone) > SHOWN else "")
        problems.append(f"Of {listed} {len(gone)} lines have no attempts in this run and are not counted: {some}.")
    return [known[key] for key in [*(k for k in order if k in known), *(k for k in known if k not in order)]], problems


def session_rows(session: Path, *, strict: bool = False) -> tuple[list[Row], list[str]]:
    """The rows of a session up to the first that is missing or cannot be read, and what was wrong with that one.

    Raises:
        StoreError: with ``strict``, one that cannot be read, or another task's.
    """
    rows: list[Row] = []
    for number, path in enumerate(attempt_folders(session), start=1):
        result = path / "result.json"
        if path.name != f"attempt_{number:02d}" or not os.path.lexists(result):
            later = any(os.path.lexists(folder / "result.json") for folder in attempt_folders(session)[number:])
            return rows, [f"{result} is missing, and later attempts have theirs: they are not counted."] if later else []
        try:
            rows.append(read_row(result))
        except StoreError as error:
            if strict:
                raise
            return rows, [error.message]
    return rows, []


def read_row(result: Path) -> Row:
    """The row in a result.json, checked against the folders it lies in.

    Raises:
        StoreError: it cannot be read, is not of this version, or is that of another task or attempt.
    """
    row = parse_row(read_bytes(result), result)
    attempt, session = result.parent, result.parent.parent
    if folder_name(row.task) != session.name:
        raise StoreError(
            f"{session} holds the result of another task, {row.task!r}.",
            f"The folder of that task is called {folder_name(row.task)}; move it there, or out of the run.",
        )
    if attempt.name != f"attempt_{row.attempt:02d}":
        raise StoreError(f"{attempt} holds the result of another attempt, {row.attempt}.", mend(result))
    return row


# -- finding one's way -------------------------------------------------------------------------------------------------------------
def session_folders(run: Path) -> list[Path]:
    """Folders of the sessions, in alphabetical order."""
    root = run / "sessions"
    if root.is_symlink() or not root.is_dir():
        return []
    with os.scandir(root) as entries:
        names = [e.name for e in entries if FOLDER.fullmatch(e.name) and e.is_dir(follow_symlinks=False)]
    return [root / name for name in sorted(names)]


def attempt_folders(session: Path) -> list[Path]:
    """Folders of the attempts, in order."""
    numbered = [(int(m[1]), p) for p in session.glob("attempt_*") if (m := ATTEMPT.fullmatch(p.name)) and not p.is_symlink()]
    return [path for _, path in sorted(numbered)]


def find_session(run: Path, name: str) -> Path:
    """The folder of a session, by its task's id or its folder's name.

    Raises:
        UsageError: the run has no such session.
    """
    for folder in dict.fromkeys((name, folder_name(name))):
        path = run / "sessions" / folder
        if FOLDER.fullmatch(folder) and path.is_dir() and not path.is_symlink() and not path.parent.is_symlink():
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
        result=_row(folder / "result.json", problems),
        guidance_after=_text(folder / "guidance.txt", problems),
        update=_json(folder / "update.json", problems),
        words=_json(folder / "words.json", problems),
        tokens=_json(folder / "tokens.json", problems),
        adapter=(folder / ADAPTER).is_dir(),
        voids=len(list(folder.glob("void_*"))),
        problems=problems,
    )


def _row(path: Path, problems: list[str]) -> Row | None:
    if not os.path.lexists(path):
        return None
    try:
        return read_row(path)
    except StoreError as error:
        problems.append(error.message)
        return None


def _events(folder: Path, problems: list[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_text(folder / "events.jsonl", problems).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            event = parse_json(line)
        except ValueError:
            event = None
        if isinstance(event, dict):
            yield event
        else:
            problems.append(f"events.jsonl, line {number} is incomplete")


def _text(path: Path, problems: list[str]) -> str:
    if not os.path.lexists(path):
        return ""
    try:
        data = read_bytes(path)
    except StoreError as error:
        problems.append(error.message)
        return ""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        problems.append(f"{path} is not UTF-8: what could not be read is shown as \N{REPLACEMENT CHARACTER}.")
        return data.decode("utf-8", "replace")


def _json(path: Path, problems: list[str]) -> dict[str, Any] | None:
    if not os.path.lexists(path):
        return None
    try:
        return read_json(path)
    except StoreError as error:
        problems.append(error.message)
        return None


def screen_path(folder: Path, name: Any) -> Path:
    """The file of a screen that an event names.

    Raises:
        StoreError: that is not a name of a screen, it leads out of the attempt, or there is no such file.
    """
    if not isinstance(name, str) or not SCREEN.fullmatch(name):
        raise StoreError(f"{name!r} is not the name of a screen.")
    path = inside(folder / name, folder)
    if not path.is_file():
        raise StoreError(f"The screen {name} is missing.")
    if path.stat().st_size > LARGEST_SCREEN:
        raise StoreError(f"The screen {name} is too large to be one.", "It is not decoded.")
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
        StoreError: as :func:`screen_path`, or it is not a WebP image.
    """
    path = screen_path(folder, name)
    try:
        with Image.open(path, formats=["WEBP"]) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError) as error:
        raise StoreError(f"The screen {name} cannot be decoded: {error}.") from error

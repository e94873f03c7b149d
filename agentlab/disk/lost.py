"""Lines of results.jsonl beside the attempts they are of: where the two differ, neither is thrown away.

The result.json files are the truth and results.jsonl is made of them; but where somebody removed or lost session folders, its lines are
all that is left.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agentlab.disk.files import disk_errors, parse_json, read_bytes
from agentlab.disk.names import folder_name
from agentlab.disk.row import Row, parse_row
from envs.errors import StoreError

RESULTS = "results.jsonl"
MOST_ATTEMPTS = 1000
"""Attempts per task that a run may have."""
ASIDE = re.compile(r"results_set_aside_([0-9]{1,9})\.jsonl")


def listed(run: Path) -> tuple[list[Row], int]:
    """The rows of results.jsonl, each line by itself, and how many lines are none (a torn last one is not counted)."""
    path = run / RESULTS
    if not os.path.lexists(path):
        return [], 0
    try:
        lines = read_bytes(path).split(b"\n")
    except StoreError:
        return [], 1
    rows, odd = [], 0
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                rows.append(parse_row(json.dumps(parse_json(line)).encode(), path))
        except (ValueError, StoreError):
            odd += number < len(lines)
    return rows, odd


def without_attempt(run: Path, lines: Iterable[tuple[Any, Any]]) -> list[tuple[str, int]]:
    """Those (task, attempt) of results.jsonl whose attempt is not in the run, nor set aside there."""
    return [line for line in lines if (folder := _folder(run, *line)) and not folder.is_dir() and not _set_aside(folder)]


def unfinished(run: Path, task: Any, attempt: Any) -> str:
    """What to say of an attempt that is there and has a line in results.jsonl, but no result."""
    made = _folder(run, task, attempt)
    if made is None or not made.is_dir():
        return ""
    return f"{made / 'result.json'} is missing; `agentlab run` with the run's settings restores it."


def _folder(run: Path, task: Any, attempt: Any) -> Path | None:
    """Where the attempt of a line should be; None where the line, which may be anybody's, names none."""
    if not isinstance(task, str) or not isinstance(attempt, int) or not 1 <= attempt <= MOST_ATTEMPTS:
        return None
    return run / "sessions" / folder_name(task) / f"attempt_{attempt:02d}"


def _set_aside(attempt: Path) -> bool:
    """The process died while the session was setting attempts aside, before results.jsonl said so."""
    return any(folder.is_dir() for folder in attempt.parent.glob(f"set_aside_*/{attempt.name}"))


def keep_lines(run: Path) -> str:
    """Before results.jsonl is made anew: keep it under another name if it says what no attempt of the run does; returns what to say.

    Raises:
        StoreError: it cannot be renamed.
    """
    rows, odd = listed(run)
    lost = odd + len(without_attempt(run, [(row.task, row.attempt) for row in rows]))
    if not lost:
        return ""
    path = run / RESULTS
    with disk_errors(path):
        taken = [int(m[1]) for p in run.iterdir() if (m := ASIDE.fullmatch(p.name))]
        kept = path.rename(run / f"results_set_aside_{max(taken, default=0) + 1:02d}.jsonl")
    what = "line has no attempt" if lost == 1 else "lines have no attempts"
    return f"Of {path} {lost} {what} in this run (any more): it is kept as {kept.name}, and made anew from the attempts that are there."

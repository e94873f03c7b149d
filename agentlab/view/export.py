"""The viewer with its data as a folder of files that opens from disk, without a server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agentlab.disk.files import disk_errors, fresh_folder, write_atomic
from agentlab.view.library import Library
from agentlab.view.server import HERE, PAGES
from envs.errors import StoreError, UsageError

SHOWN = 3
"""Runs that cannot be read, given in a message."""


def export(paths: Sequence[Path], folder: Path, say: Callable[[str], None] = lambda line: None) -> int:
    """Write the page and everything it shows of these runs into ``folder``; returns how many sessions that are.

    Args:
        say: Told of each run that cannot be read, where others can.

    Raises:
        UsageError: no run there.
        StoreError: none of the runs there can be read; the folder has something else in it, or cannot be written.
    """
    library = Library(paths)
    runs = library.index()
    if not runs["runs"]:
        raise UsageError(f"There are no runs in {', '.join(map(str, paths))}.", "Give run directories, or folders of them.")
    problems = [line["problem"] for line in runs["runs"] if line["problem"]]
    if len(problems) == len(runs["runs"]):
        raise StoreError(f"Nothing is written, as no run there can be read: {' '.join(problems[:SHOWN])}")
    for problem in problems:
        say(f"Left out: {problem}")
    fresh_folder(folder)
    with disk_errors(folder):
        for name in PAGES.values():
            text = (HERE / name).read_text(encoding="utf-8")
            (folder / name).write_text(text.replace('name="agentlab" content="live"', 'name="agentlab" content="static"'), "utf-8")
    _write(folder, "index", runs)
    sessions = 0
    for line in runs["runs"]:
        if line["problem"]:
            continue
        run = library.run(line["id"])
        _write(folder, line["id"], run)
        for session in run["sessions"]:
            sessions += 1
            _export_session(library, folder, line["id"], session["name"])
    return sessions


def _export_session(library: Library, folder: Path, run: str, name: str) -> None:
    session = library.session(run, name)
    _write(folder, f"{run}/{name}", session)
    for attempt in session["attempts"]:
        target = folder / "data" / run / name / str(attempt["number"])
        names = {seen["screen"] for seen in (*attempt["steps"], attempt["final"])}
        for screen in sorted(filter(None, names)):
            with disk_errors(target):
                target.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(library.screen(run, name, str(attempt["number"]), screen), target / screen)


def _write(folder: Path, key: str, data: Any) -> None:
    """Data as a script: a page opened from disk may load those, but not JSON."""
    path = folder / "data" / f"{key}.js"
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, f"agentlabData({json.dumps(key)}, {json.dumps(data, allow_nan=False, separators=(',', ':'))});\n")

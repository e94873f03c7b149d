"""OSWorld's own result directories as a run that ``view``, ``report`` and ``compare`` read.

    <results>/<action space>/<observation type>/<model>/<domain>/<task id>/
        traj.jsonl            a line per action: step_num, action, response, screenshot_file … (upstream's lib_run_single.py)
        result.txt            the score; missing if the task did not finish
        step_<n>_<time>.png   the screen *after* an action; the first screen is kept by some runners only (:mod:`.osworld_traj`)
    <results>/…/<model>/args.json   settings

A results directory may come from anybody: it is parsed, nothing in it is executed, links are not followed.  A run made from it says
so in its configuration and cannot be continued, replayed or learned from.
"""

from __future__ import annotations

import io
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from agentlab.disk import rows
from agentlab.disk.files import finite, parse_json, read_bytes, read_json
from agentlab.disk.record import AttemptWriter
from agentlab.disk.row import Breakage, Seconds
from agentlab.disk.store import RunStore
from agentlab.exchange import osworld_traj as traj
from agentlab.exchange.imported import Imported
from agentlab.exchange.plain import text
from agentlab.run.config import RunConfig
from envs.base import Screenshot, TaskSpec
from envs.errors import StoreError, UsageError
from retrospect.trace import Step, Trace

ENV_ID = "agentlab/osworld-v0"
STEPS = 15
"""Steps of a task where args.json does not say: upstream's own default."""
LARGEST = 40_000_000
"""Pixels of a screen."""
PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Names of domains and tasks."""


def import_osworld(
    results: Path,
    folder: Path,
    *,
    examples: Annotated[
        Path | None, typer.Option(metavar="DIR", help="OSWorld's evaluation_examples, for the instructions of the tasks.")
    ] = None,
) -> Imported:
    """Make a run of OSWorld's own results, to view it and to compare others with it.

    The results may be any level of a result directory, as long as it is of one model; ``folder`` is new or empty.

    Args:
        examples: OSWorld's ``evaluation_examples``, for the instructions, which its results do not have.

    Raises:
        UsageError: no results there, or those of several models.
        StoreError: ``folder`` is not empty, or cannot be written.
    """
    if not results.is_dir():
        raise UsageError(f"{results} is not a folder.", "Give a result directory of OSWorld.")
    done = Imported()
    found = list(_task_folders(results.resolve(), done))
    models = sorted({task.parent.parent for task in found})
    if not found:
        raise UsageError(f"{results} has no results of OSWorld.", "They are looked for as <domain>/<task id>/traj.jsonl.")
    if len(models) > 1:
        names = ", ".join(str(m.relative_to(results.resolve())) for m in models[:8])
        raise UsageError(f"{results} has results of {len(models)} settings.", f"Import them one by one: {names}.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder} is not empty.", "Choose another folder for the run.")
    args = _args(models[0], done)
    store = RunStore.open(folder, _config(models[0], args, folder))
    try:
        for task in found:
            _Task(task, store, args, examples, done).write()
    finally:
        store.close()
    return done


def _task_folders(results: Path, done: Imported) -> Iterator[Path]:
    """Folders with a trajectory or a result, in order."""
    for place, folders, files in os.walk(results):
        folders.sort()
        path = Path(place)
        if not {"traj.jsonl", "result.txt"} & set(files):
            continue
        folders.clear()
        if PART.fullmatch(path.name) and PART.fullmatch(path.parent.name):
            done.tasks += 1
            yield path
        else:
            done.remarks.append(f"{path}: not read, its name is not that of a task in a domain")


def _args(model: Path, done: Imported) -> dict[str, Any]:
    path = model / "args.json"
    try:
        return read_json(path, model) if os.path.lexists(path) else {}
    except StoreError as error:
        done.remarks.append(f"args.json: not read ({error})")
        return {}


def _config(model: Path, args: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A configuration that says what is known, and where it comes from."""
    sampling = {name: args[key] for name, key in (("temperature", "temperature"), ("top_p", "top_p")) if _number(args.get(key))}
    known = RunConfig(suite="osworld", policy=text(args.get("model")) or model.name, attempts=1, out=folder).to_json()
    settings = {key: value for key, value in args.items() if isinstance(value, str | int | float | bool | None)}
    unknown = {"seed": None, "limit": None, "sampling": sampling, "model": {}, "env": {}}
    return known | unknown | {"imported": {"from": "osworld", "args": settings}}


class _Task:
    """One task directory, on its way to being a session with one attempt."""

    def __init__(self, folder: Path, store: RunStore, args: Mapping[str, Any], examples: Path | None, done: Imported) -> None:
        self.folder, self.done = folder, done
        domain, budget = folder.parent.name, args.get("max_steps")
        steps = int(budget) if isinstance(budget, int) and budget > 0 else STEPS
        self.spec = TaskSpec(ENV_ID, f"{domain}/{folder.name}", 0, steps, domain)
        self.session = store.session(self.spec.id)
        self.writer = AttemptWriter(self.session.start_attempt(1))
        self.examples = examples
        self._notes: list[traj.Entry] = []

    def remark(self, what: str) -> None:
        self.done.remarks.append(f"{self.folder.parent.name}/{self.folder.name}: {what}")

    def write(self) -> None:
        """Record the attempt; its row only if it has a score, or if the machinery is known to have ended it."""
        started = time.perf_counter()
        entries, errors = self._entries()
        instruction = self._instruction()
        self.writer.begin(self.spec, 1, instruction, "", 0.0)
        steps, last = self._steps(entries)
        score = self._score()
        if score is not None:
            ended_by = traj.ended_by(steps)
            self.writer.end({"screen": last}, score, ended_by)
            played = rows.Played(Trace(instruction, steps, {}, score, ended_by, attempt=1), started, guidance="")
            row = rows.graded(self.spec, played, [], success=score >= 1, over=True)
            self.session.commit(1, row.model_copy(update={"seconds": Seconds()}))  # how long it took is not known
            self.done.graded += 1
            self.done.solved += score >= 1
        elif errors:
            broken = [Breakage(component="osworld", message=message) for message in errors]
            self.session.commit(1, rows.broken(self.spec, 1, "", broken, 0.0))
            self.remark("no result, and an error in its trajectory: counted as ended by the machinery")
        else:
            self.remark("no result: it did not finish, or is still running")

    def _steps(self, entries: Sequence[traj.Entry]) -> tuple[list[Step], str]:
        """Record the steps; returns them, and the last screen."""
        steps: list[Step] = []
        first = traj.first_screen(self.folder)
        screen = self._screen(first) if first else ""
        for _, group in groupby(entries, key=lambda entry: entry.get("step_num")):
            actions = list(group)
            steps.append(traj.step_of(len(steps) + 1, actions))
            before, after = traj.screen_before(actions[0]), traj.screen_after(actions[-1])
            self.writer.step(steps[-1], {"screen": self._screen(before) if before is not None else screen})
            screen = self._screen(after) if after != "" else ""
        final = next((note["final_state"] for note in self._notes if "final_state" in note), None)
        return steps, screen if final is None else self._screen(final)

    def _entries(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Lines of traj.jsonl: actions, and what errors they report."""
        entries, errors = [], []
        for number, line in enumerate(self._read("traj.jsonl").split("\n"), start=1):
            if not line.strip():
                continue
            try:
                entry = parse_json(line)
            except ValueError:
                entry = None
            if not isinstance(entry, dict):
                self.remark(f"traj.jsonl, line {number} is incomplete")
            elif traj.is_action(entry):
                entries.append(entry)
                if "instruction" in entry:
                    self._notes.append(entry)
            elif "Error" in entry:
                errors.append(text(entry["Error"]))
            elif traj.is_note(entry):
                self._notes.append(entry)
            else:
                self.remark(f"traj.jsonl, line {number} is of an unknown kind")
        return entries, errors

    def _score(self) -> float | None:
        raw = self._read("result.txt").strip()
        words = {"True": 1.0, "False": 0.0}
        if not raw:
            return None
        try:
            score = words[raw] if raw in words else float(raw)
        except ValueError:
            score = math.nan
        if not 0 <= score <= 1:
            self.remark(f"result.txt says {raw[:40]!r}, which is not a score")
            return None
        return score

    def _instruction(self) -> str:
        """From instruction.txt or the trajectory (some runners write it), or from the examples."""
        noted = next((text(note["instruction"]) for note in self._notes if note.get("instruction")), "")
        written = self._read("instruction.txt", needed=False).strip() or noted
        if written or self.examples is None:
            return written
        relative = Path(self.folder.parent.name) / f"{self.folder.name}.json"
        for root in (self.examples / "examples", self.examples):
            try:
                if os.path.lexists(root / relative):
                    return text(read_json(root / relative, self.examples).get("instruction"))
            except StoreError as error:
                self.remark(error.message)
                break
        self.remark("its instruction is not among the examples")
        return ""

    def _read(self, name: str, *, needed: bool = True) -> str:
        path = self.folder / name
        if not os.path.lexists(path):
            if needed and name == "traj.jsonl":
                self.remark("no traj.jsonl")
            return ""
        try:
            return read_bytes(path, self.folder).decode("utf-8", "replace")
        except StoreError as error:
            self.remark(f"{name}: not read ({error.message})")
            return ""

    def _screen(self, name: Any) -> str:
        """Name of a screen in the run, "" if it is unavailable."""
        if not isinstance(name, str) or Path(name).name != name:
            self.remark("a step without a screen" if name is None else f"{name!r} is not the name of a screen")
            return ""
        path = self.folder / name
        try:
            if os.path.lexists(path):
                return self.writer.screen(_decode(read_bytes(path, self.folder)))
            self.remark(f"{name} is missing")
        except (OSError, ValueError, SyntaxError, StoreError, MemoryError, Image.DecompressionBombError) as error:
            self.remark(f"{name}: not a screen ({error})")
        return ""


def _decode(data: bytes) -> Screenshot:
    """A PNG, [H, W, 3] uint8."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        if image.width * image.height > LARGEST:
            raise StoreError(f"it is {image.width}x{image.height}.")
        return np.asarray(image.convert("RGB"))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and finite(value) is not None

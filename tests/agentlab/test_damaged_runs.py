"""Finished runs corrupted at random, and everything that reads a run: an error of one line or an answer, never a traceback or a hang.

``AGENTLAB_CORRUPTIONS=2000 pytest tests/agentlab/test_damaged_runs.py`` is the long one, of other corruptions each time; every failure
names its seed, and ``AGENTLAB_CORRUPTION=SEED`` tries that one alone.
"""

import functools
import json
import os
import random
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from made_runs import Made, make_run, task

from agentlab.disk.files import read_json, read_text
from agentlab.disk.record import load_trace
from agentlab.disk.runs import attempt_folders, read_config, read_run, session_folders
from agentlab.disk.store import RunStore
from agentlab.exchange.export import export_run
from agentlab.replay.rescore import settings as rescore_settings
from agentlab.replay.targets import find_target
from agentlab.results.compare import compare
from agentlab.results.pages import markdown
from agentlab.results.report import make_report
from agentlab.view.export import export as export_view
from agentlab.view.library import Library
from envs.errors import LabError

LONG = "AGENTLAB_CORRUPTIONS" in os.environ or "AGENTLAB_CORRUPTION" in os.environ
COUNT = int(os.environ.get("AGENTLAB_CORRUPTIONS", "300"))
ONLY = os.environ.get("AGENTLAB_CORRUPTION")
"""The one seed to try."""
SHELF = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where copies are made: nothing of them is to survive anything."""
PATIENCE, WAITING = 60, 900
"""Seconds after which a corruption counts as a hang: of this process's own work, and of waiting for whatever (a busy machine too)."""
UPDATE = {"method": "rosa", "accepted": True, "seconds": 0.01, "kl_mean": 0.2}
VALUES = [
    b"null",
    b"[]",
    b"{}",
    b"-1",
    b"1e999",
    b"NaN",
    b"9" * 400,
    b'"\\ud800"',
    b'"\xff"',
    b"[" * 5000,
    b"true",
    b'"x"',
    b'{"a":1}',
]
WAYS = ["flip", "cut", "empty", "value", "insert", "pipe", "circle", "out", "folder", "remove", "rename", "copy", "grow", "mode"]
KEEPS = {"flip", "cut", "empty", "value", "insert", "pipe", "circle", "out", "folder", "grow"}
"""Ways that leave the file's name where it was: a result that is not read is then always said."""


@functools.cache
def rows_of(run: Path) -> int:
    return len(read_run(run).rows)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    learned = Made(update=UPDATE, guidance_after="Try the other one.", words={"characters": 18})
    sessions = [
        (task("a"), [learned, Made(True)]),
        (task("b/c"), [learned]),
        (task("d", 2), [Made(broken="browser")]),
    ]
    with tempfile.TemporaryDirectory(dir=SHELF) as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield make_run(Path(place) / "run", sessions)


def corrupt(run: Path, chance: random.Random) -> str:
    """Damage one file; returns how."""
    path = chance.choice(sorted(p for p in run.rglob("*") if p.is_file()))
    how = chance.choice(WAYS)
    data = path.read_bytes()
    path.unlink()  # the copies are links to the whole run's files
    path.write_bytes(data)
    if how in ("flip", "cut", "empty", "insert", "value"):
        path.write_bytes(rewritten(how, data, chance))
    elif how == "rename":
        path.rename(path.with_name(chance.choice(["x", "config.json", "result.json", "attempt_99", "events.jsonl"])))
    elif how == "copy":
        folder = chance.choice(sorted(p for p in run.rglob("*") if p.is_dir() and p != path.parent))
        shutil.copy(path, folder / path.name)
    elif how == "grow":
        os.truncate(path, 2**32)
    elif how == "mode":
        path.chmod(chance.choice([0, 0o222, 0o777]))
    else:
        supplant(how, path, chance)
    return f"{how} {path.relative_to(run)}"


def rewritten(how: str, data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(max(len(data), 1))
    if how == "flip":
        return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
    if how == "insert":
        return data[:at] + chance.choice(VALUES) + data[at:]
    places = [i for i in range(len(data)) if data[i : i + 2] == b": "]
    if how == "value" and places:  # of one key
        start = chance.choice(places) + 2
        ends = [e for e in (data.find(mark, start) for mark in (b",", b"\n", b"}")) if e >= 0]
        return data[:start] + chance.choice(VALUES) + data[min(ends, default=len(data)) :]
    return b"" if how == "empty" else data[:at]


def supplant(how: str, path: Path, chance: random.Random) -> None:
    path.unlink()
    if how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how != "remove":
        path.symlink_to(path.name if how == "circle" else chance.choice(["/dev/zero", "/etc/passwd", "/nowhere"]))


def report(run: Path) -> None:
    made = make_report(read_run(run))
    markdown(made.title, made.sections)


def view(run: Path) -> None:
    library = Library([run])
    library.index()
    for key in library.runs():
        for line in library.run(key)["sessions"]:
            json.dumps(library.session(key, line["name"]), allow_nan=False).encode()


def resume(run: Path, errors: list[str]) -> None:
    store = RunStore.open(run, read_config(run))
    try:
        for attempt in (path for folder in session_folders(run) for path in attempt_folders(folder)):
            for read in (
                load_trace,
                lambda folder: read_text(folder / "guidance.txt"),
                lambda folder: read_json(folder / "words.json"),
            ):
                try:
                    read(attempt)
                except LabError as error:
                    errors.append(f"taking up: {error.message}")
    finally:
        store.close()


def further(run: Path, out: Path, seed: int) -> dict[str, Callable[[], object]]:
    """What writes much: all of it in a long run, one of it after the other elsewhere."""
    verbs: dict[str, Callable[[], object]] = {
        **{
            f"export {form}": functools.partial(export_run, run, form, out / form)
            for form in ("datasets", "osworld", "androidworld")
        },
        "view --export": lambda: export_view([run], out / "view"),
    }
    return verbs if LONG else dict([list(verbs.items())[seed % len(verbs)]])


def look(run: Path, other: Path, out: Path, seed: int) -> list[str]:
    """Everything that reads; returns the errors meant for a person, and lets any other pass."""
    errors: list[str] = []
    verbs = {
        "report": lambda: report(run),
        "view": lambda: view(run),
        "compare": lambda: compare([read_run(other), read_run(run)], force=True).sections(),
        "replay": lambda: list(find_target(run).attempts()),
        "rescore": lambda: rescore_settings(read_run(run), "rosa", [], policy="ui-tars-nano"),
        **{f"export {form}": functools.partial(export_run, run, form, out / form) for form in ("atif", "sft", "pairs")},
        **further(run, out, seed),
        "resume": lambda: resume(run, errors),
    }
    for name, verb in verbs.items():
        try:
            verb()
        except LabError as error:
            errors.append(f"{name}: {error.message}")
    return errors


class HangError(BaseException):
    """Not an ``Exception``: no guard of what is tried catches it."""


def hangs(*_: object) -> None:
    raise HangError


def check(whole: Path, seed: int, place: Path) -> str:
    """Corrupt a copy of the run and walk; returns what is wrong ("" if nothing is)."""
    chance = random.Random(seed)
    run = place / "run"
    shutil.copytree(whole, run, copy_function=os.link)
    how = corrupt(run, chance)
    before = signal.signal(signal.SIGALRM, hangs)
    working = signal.signal(signal.SIGPROF, hangs)
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    signal.alarm(WAITING)
    try:
        errors = look(run, whole, place / "out", seed)
        try:
            found = read_run(run)
        except LabError:
            return "" if errors else f"seed {seed}, {how}: nobody says so"
        lost = len(found.rows) < rows_of(whole) and how.split()[0] in KEEPS
        return f"seed {seed}, {how}: lost without a word" if lost and not (found.problems or errors) else ""
    except (Exception, HangError) as error:  # noqa: BLE001 - what is looked for
        return f"seed {seed}, {how}:\n{traceback.format_exc(limit=-4)}{type(error).__name__}"
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGALRM, before)
        signal.signal(signal.SIGPROF, working)


@settings(
    max_examples=1 if ONLY else COUNT, deadline=None, derandomize="AGENTLAB_CORRUPTIONS" not in os.environ, database=None,
    phases=[Phase.generate], suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(seed=st.just(int(ONLY)) if ONLY else st.integers(0, 2**32))
def test_no_corruption_of_a_run_is_a_traceback_a_hang_or_a_silent_loss(whole, seed):
    with tempfile.TemporaryDirectory(dir=whole.parent) as place:
        found = check(whole, seed, Path(place))
    assert not found, found

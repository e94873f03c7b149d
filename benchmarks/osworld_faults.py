"""Faults injected into OSWorld runs on the light desktop: what they cost, and that they cost nothing else.

    python benchmarks/osworld_faults.py --out FOLDER --faults 150 --spacing 8 --result benchmarks/results/osworld_faults.json

Runs whose scores are known go on until so many faults have hit them: ``scripted`` solves its task, ``noop`` does not, and ``mess`` leaves
what no evaluator can read (a folder or an unreadable file where the result should be, a closed browser).  The faults are in containers,
in the channels while a task is set up and while it is graded, in the browser's debugging channel, in the programs of the host, and in
the run itself.  Held throughout, and a violation ends with exit code 1:

- no false reward and no false zero: every attempt is graded, with the score that it would have had without faults;
- no void that the agent caused: what ``mess`` leaves is scored, and no more attempts of it break than there were faults;
- no lost attempt: what was finished before the runner was killed is there, unchanged, after the run is continued;
- no orphan: when a run has been started again and ended, the engine has no container of a dead run; nobody types ``gc``;
- nobody else's container is touched: one without our labels, and one with our labels that is not in this ledger.

A command goes on after the last complete run in ``--out``.  ``--kinds engine`` ends the Docker Engine and starts it again, which all
its users notice; without ``--live-restore`` their containers would end, so it is refused then.  Needs root (a port is
blocked by killing the engine's proxy for it), the light desktop's image and ``agentlab fetch osworld --suite light``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from channel_faults import CHANNEL_FAULTS, Faults, tapped
from docker.models.containers import Container
from guest_faults import (
    CONTAINER_FAULTS,
    ENGINE_SECONDS,
    ENGINE_SIGNALS,
    GRADER_KILLED,
    RUNNER_KILLED,
    kill_grader,
    kinds_of,
    restart_engine,
)

from agentlab.run.config import RunConfig
from agentlab.run.runner import Runner
from envs import containers
from envs.containers import Ledger, Owner
from envs.containers.engine import ENGINE_FAULTS
from envs.osworld import providers
from envs.osworld.suite import LIGHT_FOLDER

TASKS = (
    "settings/settings-workspaces", "settings/settings-window-style", "os/files-rename", "os/files-new-folder",
    "text_editor/editor-drop-a-line", "os/terminal-sorted-list", "chrome/browser-opening-hours",
)  # fmt: skip
TRUTH = {"scripted": 1.0, "noop": 0.0, "mess": 0.0}
ORDER = ("noop", "scripted", "mess", "scripted")
RETRIES = 8
DISK = "size=16m,uid=1000,gid=1000,mode=0755"
MOST_WITHOUT_PROGRESS = 3
"""Faults before an attempt must have been finished: what never gets to a score says nothing about false ones."""
MOST_WAITING = 2
"""Faults of channels that wait for their moment at once."""
QUIET_SECONDS = 900.0
"""A run that neither ends nor can be hit for so long hangs."""


# -- the runs ----------------------------------------------------------------------------------------------------------------------
def configuration(folder: Path, policy: str, workers: int) -> RunConfig:
    mess = policy == "mess"
    return RunConfig(
        suite=f"osworld:{write_mess(folder.parent / 'mess')}" if mess else "osworld-light", policy="scripted" if mess else policy,
        tasks=None if mess else TASKS, attempts=1, limit=len(tasks_of(policy)), max_steps=2 if policy == "noop" else None,
        out=folder, workers=workers, infra_retries=RETRIES, env={"provider": "light"},
    )  # fmt: skip


def tasks_of(policy: str) -> Sequence[str]:
    return tuple(f"os/{name}" for name in MESSES) if policy == "mess" else TASKS


WAIT = "for i in $(seq 300); do wmctrl -l | grep -q Terminal && break; sleep 0.2; done"
TERMINAL = [
    {"type": "launch", "parameters": {"command": ["xfce4-terminal", "--working-directory", "/home/user/Documents"]}},
    {"type": "execute", "parameters": {"command": ["sh", "-c", WAIT]}},
]  # fmt: skip
OUT = {"type": "vm_file", "path": "/home/user/Documents/out.txt", "dest": "out.txt"}
TEXT = {"func": "compare_text_file", "result": OUT, "expected": OUT | {"dest": "gold.txt", "path": "/etc/hostname"}}
TABLE = {
    "func": "compare_table", "options": {"rules": [{"type": "sheet_data", "sheet_idx0": 0, "sheet_idx1": "EI0"}]},
    "result": OUT | {"dest": "out.xlsx"}, "expected": OUT | {"dest": "gold.xlsx"},
}  # fmt: skip
MESSES: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "a-folder": (TEXT, [{"kind": "type", "text": "mkdir out.txt", "submit": True}]),
    "not-readable": (TEXT, [{"kind": "type", "text": "touch out.txt; chmod 000 out.txt", "submit": True}]),
    "without-end": (TEXT, [{"kind": "type", "text": "ln -s /dev/zero out.txt", "submit": True}]),
    "no-document": (TABLE, [{"kind": "type", "text": "head -c 5000 /dev/urandom > out.txt", "submit": True}]),
    "browser-closed": (None, [{"kind": "type", "text": "pkill chrome; pkill socat", "submit": True}]),
}
"""Task -> how it is graded, and what its agent leaves."""


def write_mess(folder: Path) -> Path:
    """Tasks whose agents leave what cannot be read; each scores 0 by OSWorld's own code."""
    browser = json.loads((LIGHT_FOLDER / "chrome" / "browser-opening-hours.json").read_text())
    (folder / "os").mkdir(parents=True, exist_ok=True)
    for name, (evaluator, actions) in MESSES.items():
        config = list(TERMINAL)
        if evaluator is None:  # a browser, and then a terminal in front of it
            evaluator = browser["evaluator"]
            uploads = json.loads(json.dumps(browser["config"][0]))
            for file in uploads["parameters"]["files"]:
                file["local_path"] = str(LIGHT_FOLDER / file["local_path"])
            config = [uploads, *browser["config"][1:], *TERMINAL]
        oracle = [actions, [{"kind": "wait"}], [{"kind": "finished"}]]
        task = {"id": name, "instruction": "Make a mess.", "config": config, "evaluator": evaluator, "oracle": oracle}
        path = folder / "os" / f"{name}.json"
        path.with_suffix(".tmp").write_text(json.dumps(task))
        path.with_suffix(".tmp").replace(path)
    return folder


def run_one(folder: Path, policy: str, workers: int) -> None:
    """One run, in a process of its own; the folder for documents is small enough to be filled."""
    original = providers.light_spec
    providers.light_spec = lambda *of: dataclasses.replace(  # type: ignore[assignment]
        original(*of), small_disks={"/home/user/Documents": DISK}
    )
    with tapped(folder.with_suffix(".faults")):
        Runner(configuration(folder, policy, workers)).run()


def start(folder: Path, policy: str, workers: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, "--run", str(folder), "--policy", policy, "--workers", str(workers)]
    with folder.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)


def rows(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Finished attempts; a torn last line is one that is not."""
    found = {}
    path = folder / "results.jsonl"
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found[row["task"], row["attempt"]] = row
    return found


class Bench:
    """Counts faults and checks what must hold."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.client = containers.connect()
        os.environ["AGENTLAB_STATE"] = str(folder / "state")
        self.ledger = Ledger()
        self.kinds = options.kinds
        self.random = random.Random()
        self.deck: list[str] = []
        self.waiting: list[str] = []
        """Faults of channels that this run has been asked for and that have not been done."""
        self.runs = 0
        self.in_run = 0
        self.progress = (0, 0)
        """Finished attempts of this run, and the faults in it until then."""
        self.injected: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()
        self.violations: list[str] = []
        self.finished: dict[tuple[str, str, int], dict[str, Any]] = {}

    def main(self) -> None:
        self.restore()
        containers.gc(self.ledger)  # of a bench that was stopped
        labels = Owner("foreign", 2**22 - 1, 1, "", 0, 1).labels()
        foreign: list[Container] = []
        try:
            for found in ({}, labels):
                foreign.append(self.client.containers.run(providers.LIGHT_IMAGE, detach=True, labels=found))
            while sum(self.injected.values()) < self.options.faults:
                number = self.runs + 1
                self.random.seed(f"{self.options.seed}/{number}")
                folder = self.folder / f"faults-{self.options.seed}-{number:03d}"
                shutil.rmtree(folder, ignore_errors=True)  # of a bench that was stopped in the middle of it
                folder.with_suffix(".log").unlink(missing_ok=True)
                self.one_run(folder, ORDER[number % len(ORDER)])
                for container in foreign:
                    container.reload()
                    if container.status != "running":
                        self.violations.append(f"{folder.name}: the foreign container {container.name} is {container.status}")
                self.runs = number
                self.save()
        finally:
            for container in foreign:
                container.remove(force=True)

    # -- going on after a stop -------------------------------------------------------------------------------------------------
    def save(self) -> None:
        kept = self.folder / "summary.json"
        kept.with_suffix(".tmp").write_text(json.dumps(self.summary() | {"deck": self.deck}, indent=2) + "\n")
        kept.with_suffix(".tmp").replace(kept)

    def restore(self) -> None:
        kept = self.folder / "summary.json"
        if not kept.exists():
            return
        found = json.loads(kept.read_text())
        self.runs, self.violations = found["runs"], found["violations"]
        self.deck = [kind for kind in found["deck"] if kind in self.kinds]
        self.injected.update(found["faults"])
        self.outcomes.update(found["attempts"])
        self.broken.update(found["failures noticed"])

    # -- one run ---------------------------------------------------------------------------------------------------------------
    def one_run(self, folder: Path, policy: str) -> None:
        self.in_run, self.progress = 0, (0, 0)
        process = start(folder, policy, self.options.workers)
        try:
            while process.poll() is None:
                if sum(self.injected.values()) >= self.options.faults or not self.inject(process, folder):
                    process.wait(QUIET_SECONDS)
                elif process.poll() == -signal.SIGKILL:
                    process = self.continue_after_kill(folder, policy)
        except subprocess.TimeoutExpired:
            self.violations.append(f"{folder.name} hangs")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            self.take_back(folder)
        self.check(folder, policy, process.returncode)

    def inject(self, process: subprocess.Popen[bytes], folder: Path) -> bool:
        """Wait for a moment drawn from the seed and do the next fault; False when the run ended before.

        A fault of a channel is only asked for: it is done, and counted, when its own moment comes.
        """
        faults = Faults(folder.with_suffix(".faults"))
        time.sleep(self.random.uniform(0.0, self.options.spacing))
        kind = self.next_kind()
        if kind in CHANNEL_FAULTS:
            if len(self.waiting) < MOST_WAITING and kind not in self.waiting:
                self.waiting.append(kind)
                faults.want(kind)
            else:
                self.deck.insert(0, kind)
                self.count_done(faults, folder)
            return process.poll() is None
        while process.poll() is None:
            self.count_done(faults, folder)
            if self.since_progress(folder) >= MOST_WITHOUT_PROGRESS:
                time.sleep(1.0)
                continue
            containers.await_engine(self.client, ENGINE_SECONDS)
            running = [row for row in containers.ls(self.ledger) if row.ours and row.state == "running"]
            if running:  # of the oldest, which an attempt is using; the younger ones are booting spares
                victim = self.random.choice(sorted(running, key=lambda row: row.owner.created)[: self.options.workers])
                try:
                    self.do(kind, process, victim.container.id)
                except (*ENGINE_FAULTS, psutil.NoSuchProcess):
                    time.sleep(0.3)
                    continue  # the container, or the grader, ended in this moment or was not there: no fault was done
                self.count(kind, folder)
                return True
            time.sleep(0.3)
        self.deck.append(kind)
        return False

    def count_done(self, faults: Faults, folder: Path) -> None:
        """Count the faults of channels that have been done since."""
        for kind in [kind for kind in self.waiting if not faults.wanted(kind)]:
            self.waiting.remove(kind)
            self.count(kind, folder)

    def take_back(self, folder: Path) -> None:
        """Of a run that has ended: the faults whose moment did not come are for a later one."""
        faults = Faults(folder.with_suffix(".faults"))
        self.count_done(faults, folder)
        for kind in self.waiting:
            faults.take(kind)
            self.deck.insert(0, kind)
        self.waiting = []

    def count(self, kind: str, folder: Path) -> None:
        self.injected[kind] += 1
        self.in_run += 1
        print(f"{sum(self.injected.values()):4d} {folder.name} {kind}", flush=True)

    def since_progress(self, folder: Path) -> int:
        """Faults since an attempt of this run was last finished."""
        if (finished := len(rows(folder))) > self.progress[0]:
            self.progress = (finished, self.in_run)
        return self.in_run - self.progress[1]

    def do(self, kind: str, process: subprocess.Popen[bytes], container: str) -> None:
        if kind == GRADER_KILLED:
            kill_grader(process.pid)
        elif kind == RUNNER_KILLED:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        elif kind in ENGINE_SIGNALS:
            restart_engine(self.client, ENGINE_SIGNALS[kind])
        else:
            CONTAINER_FAULTS[kind](self.client.containers.get(container))

    def next_kind(self) -> str:
        """All kinds equally often, in an order drawn from the seed."""
        if not self.deck:
            self.deck = list(self.kinds)
            self.random.shuffle(self.deck)
        return self.deck.pop()

    def continue_after_kill(self, folder: Path, policy: str) -> subprocess.Popen[bytes]:
        before = rows(folder)
        self.finished |= {(folder.name, *key): row for key, row in before.items()}
        return start(folder, policy, self.options.workers)

    def check_none_left(self, folder: Path, when: str) -> None:
        """By name, so that also one that the ledger does not know is found."""
        found = self.client.containers.list(all=True, filters={"name": f"agentlab-{folder.name}-"}, ignore_removed=True)
        noted = [row.name for row in containers.ls(self.ledger) if row.ours]
        if left := sorted({str(container.name) for container in found} | set(noted)):
            self.violations.append(f"{folder.name}: {when} there are still {left}")

    def check(self, folder: Path, policy: str, code: int | None) -> None:
        made = rows(folder)
        if code != 0:
            self.violations.append(f"{folder.name} ended with exit code {code}")
        if len(made) != len(tasks_of(policy)):
            self.violations.append(f"{folder.name} has {len(made)} of {len(tasks_of(policy))} attempts")
        broken = sum(len(row["infrastructure"]) for row in made.values())
        if policy == "mess" and broken > self.in_run:
            self.violations.append(f"{folder.name}: {broken} attempts broke under {self.in_run} faults")
        for (name, task, attempt), row in self.finished.items():
            if name == folder.name and made.get((task, attempt)) != row:
                self.violations.append(f"{name}: the finished attempt {attempt} of {task} was lost or changed")
        for key, row in made.items():
            self.outcomes[row["outcome"]] += 1
            self.broken.update(f"attempt: {failure['component']}" for failure in row["infrastructure"])
            if row["outcome"] != "graded":
                self.violations.append(f"{folder.name}: {key} under {policy} ended {row['outcome']}")
            elif row["score"] != TRUTH[policy]:
                self.violations.append(f"{folder.name}: false score {row['score']} for {key} under {policy}")
        self.broken["spare"] += folder.with_suffix(".log").read_text(errors="replace").count("; booting another one.")
        self.check_none_left(folder, "at its end")

    def summary(self) -> dict[str, Any]:
        return {
            "seed": self.options.seed, "runs": self.runs, "faults": dict(self.injected), "attempts": dict(self.outcomes),
            "failures noticed": dict(self.broken), "violations": self.violations,
        }  # fmt: skip


def table(bench: Bench) -> str:
    """The lines for docs/osworld.md."""
    lines = ["| fault | times |", "|---|---|", *(f"| {kind} | {count} |" for kind, count in sorted(bench.injected.items()))]
    return "\n".join([*lines, f"| **all** | **{sum(bench.injected.values())}** |"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--spacing", type=float, default=20.0, help="Most seconds between faults; about as long as two episodes.")
    parser.add_argument(
        "--kinds", type=kinds_of, default="all", help="all, containers, channels, engine, or kinds separated by commas."
    )
    parser.add_argument("--out", type=Path, help="Where the runs and the summary are kept.")
    parser.add_argument("--result", type=Path, help="Also write the summary to this file.")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--policy", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_one(options.run, options.policy, options.workers)
        return 0
    if set(options.kinds) & set(ENGINE_SIGNALS) and not containers.connect().info().get("LiveRestoreEnabled"):
        parser.error("it would end everybody's containers: start dockerd with --live-restore")
    folder = options.out or Path(tempfile.mkdtemp(prefix="osworld-faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(options, folder)
    bench.main()
    text = json.dumps(bench.summary(), indent=2)
    if options.result:
        options.result.write_text(text + "\n")
    print(text, table(bench), sep="\n")
    return 1 if bench.violations else 0


if __name__ == "__main__":
    sys.exit(main())

"""What adaptation is worth: every method of a study on the same failing first attempts, from tuning to tables.

    python benchmarks/comparison.py reasoning --stage tune                     # every swept line of every method, on tuning seeds
    python benchmarks/comparison.py reasoning --stage report                   # each method at the line that was best there
    python benchmarks/comparison.py reasoning --stage report --methods next-best,no-repeat --pairs 100
    python benchmarks/report.py                                                # tables and figures

The same command continues a stopped one: a session that is over is not run again, a method is finished before the next one begins.
Outcomes, one line per method and instance, are in ``benchmarks/results/<study>-<stage>.jsonl`` (:mod:`outcomes`); what they were
made with is in ``<study>-<stage>.json``, and the lines chosen by the tuning stage in ``<study>-tuned.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import outcomes
import psutil
from meter import console
from options import CENTRE, RESULTS, Setup, fingerprint
from outcomes import FIRST, Outcome
from pool import ContinuedSession, FirstSession, Job, Pool, reported
from studies import STUDIES, Method, Sets, Study, check_disjoint, instance_key

from agentlab.disk.row import Row
from agentlab.run.config import RunConfig
from agentlab.run.parts import plan
from envs.base import TaskSpec
from envs.errors import UsageError

STAGES = ("tune", "report")
RUN = 0.9
"""Share of its instances that a line of the tuning stage has ended when it counts: the machinery may have cost it some."""


@dataclass(frozen=True)
class Instance:
    """A task instance, the run seed it is of, its key and where its first attempt is recorded."""

    seed: int
    task: TaskSpec
    key: str
    first: Path


@dataclass(frozen=True)
class Piece:
    """One method at one line: what is run as a whole.  ``name`` is the method's, in the tuning stage with the number of the line."""

    name: str
    method: Method
    line: Sets

    @property
    def sets(self) -> Sets:
        return (*self.method.fixed, *self.line)

    @property
    def folder(self) -> str:
        """Of its run directories: plain characters, and a digest of its settings, so that another line never meets its runs."""
        plain = "".join(c if c.isalnum() or c in "-." else "_" for c in self.name)
        return f"{plain}-{hashlib.sha256(' '.join(self.sets).encode()).hexdigest()[:6]}"


class Comparison:
    """One stage of one study."""

    def __init__(self, study: Study, stage: str, args: argparse.Namespace) -> None:
        self.study, self.stage = study, stage
        seeds = study.tuning if stage == "tune" else study.reporting
        pairs = args.pairs or study.pairs[stage == "tune"]
        attempts = min(args.attempts or study.attempts, 5 if stage == "tune" else study.attempts)
        work = (args.work or Path("runs") / "comparison") / f"{study.name}-{fingerprint(study.policy)}"
        self.setup = Setup(
            policy=study.policy, attempts=attempts, seeds=seeds, pairs=pairs, limit=args.limit, work=work, workers=args.workers,
            threads=args.threads, tasks=study.tasks, suite=study.suite, base=study.base,
        )  # fmt: skip
        self.deadline = None if args.minutes is None else time.monotonic() + 60 * args.minutes
        self.file = RESULTS / f"{study.name}-{stage}.jsonl"

    def of_the_other_stage(self) -> set[str]:
        """Keys of the instances of the other stage, as far as it has been run: they are not taken here."""
        other = "report" if self.stage == "tune" else "tune"
        return {o.key for o in outcomes.read(RESULTS / f"{self.study.name}-{other}.jsonl") if o.method == FIRST}

    # -- what is run ---------------------------------------------------------------------------------------------------------------
    def pieces(self, names: Sequence[str] | None, untuned: bool) -> list[Piece]:
        """The pieces of this stage, in the study's order."""
        methods = [self.study.method(name) for name in names] if names else list(self.study.methods)
        if self.stage == "tune":
            return [Piece(f"{m.name} #{n}", m, line) for m in methods if len(m.lines) > 1 for n, line in enumerate(m.lines)]
        chosen = tuned(self.study)
        lacking = [m.name for m in methods if len(m.lines) > 1 and m.name not in chosen]
        if lacking and not untuned:
            raise UsageError(
                f"Nothing was chosen for {', '.join(lacking)} yet.", "Run --stage tune, or report their first lines with --untuned."
            )
        return [Piece(m.name, m, chosen.get(m.name, m.lines[0])) for m in methods]

    def config(self, piece: Piece, seed: int) -> RunConfig:
        return self.setup.config(f"{self.stage}-{piece.folder}", seed, piece.method.preset, self.setup.attempts, piece.sets)

    def first(self, seed: int) -> RunConfig:
        """Of the first attempts.  Any adaptation will do, for the head to be listened to; with one attempt nothing is adapted."""
        return self.setup.config("first", seed, "rosa", 1, CENTRE)

    def run(self, pieces: Sequence[Piece]) -> None:
        """Run the pieces one after the other; outcomes are written after each."""
        any_ = self.setup.config("any", self.setup.seeds[0], "rosa", self.setup.attempts, ())
        with Pool(any_, self.setup.workers, self.setup.threads) as pool:
            population, firsts = self.failing_first(pool)
            console.print(f"{len(population)} failing first attempts of {len(firsts)}")
            self.keep(FIRST, firsts)
            for piece in pieces:
                if self.deadline is not None and time.monotonic() > self.deadline:
                    console.print(f"No time is left for {piece.name}.")
                    break
                self.piece(pool, piece, population)

    def piece(self, pool: Pool, piece: Piece, population: Sequence[Instance]) -> None:
        configs = {seed: self.config(piece, seed) for seed in self.setup.seeds}
        mine = [one for one in population if piece.method.takes(one.task)]
        jobs = [Job(ContinuedSession, configs[one.seed], one.task, n, one.first) for n, one in enumerate(mine)]
        spent = self.setup.work / f"{self.stage}-{piece.folder}.seconds.jsonl"
        try:
            with cpu_seconds(spent):
                pool.run(piece.name, jobs, deadline=self.deadline)
        finally:
            rows = {seed: by_task(pool.store(config).rows()) for seed, config in configs.items()}
            of_each = [(one, rows[one.seed].get(one.task.id)) for one in mine]
            made = [outcomes.outcome(piece.name, one.seed, one.key, found) for one, found in of_each if found and ended(found)]
            self.keep(piece.name, made)
            self.describe(piece, len(mine), spent)

    def failing_first(self, pool: Pool) -> tuple[list[Instance], list[Outcome]]:
        """Instances that the greedy first attempt fails, seeds taking turns, and the outcomes of all first attempts made.

        Instances are made in the suite's order until every seed has its share of failures.  What the other stage has taken, or an earlier
        instance of the same seed asks too, is left out.
        """
        setup = self.setup
        share, taken = -(-setup.pairs // len(setup.seeds)), self.of_the_other_stage()
        found: dict[int, list[Instance]] = {seed: [] for seed in setup.seeds}
        made: dict[int, list[Outcome]] = {seed: [] for seed in setup.seeds}
        for seed in setup.seeds:
            config, start, seen = self.first(seed), 0, set(taken)  # of each seed: more pairs only add instances
            while (lacking := share - len(found[seed])) > 0 and start < setup.limit:
                limit = min(start + lacking + lacking // 8 + 1, setup.limit)
                fresh = self.fresh(plan(config.model_copy(update={"limit": limit}))[start:], seen)
                pool.run(f"first attempts, seed {seed}", [Job(FirstSession, config, task) for task, _ in fresh], keep=True)
                rows = by_task(pool.store(config).rows())
                for task, key in fresh:
                    if len(found[seed]) == share or not ended(of_task := rows.get(task.id)):
                        continue
                    made[seed].append(outcomes.outcome(FIRST, seed, key, of_task, first=True))
                    if made[seed][-1].ended == "failed":
                        found[seed].append(Instance(seed, task, key, pool.session(config, task).attempt_folder(1)))
                start = limit
        turns = zip(*found.values(), strict=False)
        population = [one for turn in turns for one in turn][: setup.pairs]
        return population, [one for outcomes_ in made.values() for one in outcomes_]

    @staticmethod
    def fresh(tasks: Sequence[TaskSpec], seen: set[str]) -> list[tuple[TaskSpec, str]]:
        """The instances that ask what none before has asked, with their keys, which join ``seen``."""
        found = []
        for task in tasks:
            key = instance_key(task)
            if key not in seen:
                seen.add(key)
                found.append((task, key))
        return found

    # -- what is kept --------------------------------------------------------------------------------------------------------------
    def keep(self, name: str, made: Sequence[Outcome]) -> None:
        """Put the outcomes of one method into the file, in the place of those that it had."""
        kept = [o for o in outcomes.read(self.file) if o.method != name]
        check_disjoint(self.of_the_other_stage(), {o.key for o in (*kept, *made)})
        order = {FIRST: -1} | {m.name: n for n, m in enumerate(self.study.methods)}
        both = sorted([*kept, *made], key=lambda o: (order.get(o.method.partition(" #")[0], 999), o.method))
        outcomes.write(self.file, both)

    def describe(self, piece: Piece, wanted: int, spent: Path) -> None:
        """What the outcomes of a piece were made with."""
        path = self.file.with_suffix(".json")
        data = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"methods": {}}
        used = [json.loads(line) for line in spent.read_text(encoding="utf-8").splitlines()] if spent.exists() else []
        data |= {
            "study": self.study.name, "stage": self.stage, "policy": self.study.policy, "weights": fingerprint(self.study.policy),
            "suite": self.study.suite, "attempts": self.setup.attempts, "seeds": list(self.setup.seeds), "pairs": self.setup.pairs,
        }  # fmt: skip
        data["methods"][piece.name] = {
            "preset": piece.method.preset,
            "sets": list(piece.sets),
            "uses": list(piece.method.uses),
            "only": bool(piece.method.only),
            "lines": len(piece.method.lines),
            "swept": swept(self.study).get(piece.method.name, 0),
            "wanted": wanted,
            "cpu_seconds": round(sum(u["cpu"] for u in used), 1),
            "commit": commit(),
        }
        data["command"] = self.command(data["methods"])
        path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def command(self, names: Mapping[str, Mapping[str, Any]]) -> str:
        """What makes these methods' outcomes, over as many instances; of each what it was made with."""
        words = ["python benchmarks/comparison.py", self.study.name, "--stage", self.stage]
        if self.setup.pairs != self.study.pairs[self.stage == "tune"]:
            words += ["--pairs", str(self.setup.pairs)]
        if self.stage == "report" and any(about["lines"] > 1 and not about["swept"] for about in names.values()):
            words.append("--untuned")
        if self.stage == "report" and {*names} != {m.name for m in self.study.methods}:
            chosen = ";".join(m.name for m in self.study.methods if m.name in names)
            words += ["--methods", f'"{chosen}{";" if ";" not in chosen else ""}"']
        return " ".join(words)


def by_task(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each session, in the order of its attempts."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.task, []).append(row)
    return {task: sorted(some, key=lambda r: r.attempt) for task, some in found.items()}


def ended(rows: Sequence[Row] | None) -> bool:
    """Whether a session is over."""
    return bool(rows) and rows[-1].session_over  # type: ignore[index]  # bool(rows) has excluded None


@contextmanager
def cpu_seconds(path: Path, every: float = 20.0) -> Iterator[None]:
    """Note in ``path`` the CPU seconds of this process and its children while the block runs, now and then: it may be killed.

    Wall-clock says nothing here: dozens of sessions share a batch, and others share the machine.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    before, stop = _cpu(), threading.Event()

    def note() -> None:
        nonlocal before
        now = _cpu()
        if now > before:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"cpu": round(now - before, 2)}) + "\n")
        before = now

    def watch() -> None:
        while not stop.wait(every):
            note()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        note()


def _cpu() -> float:
    """CPU seconds of this process and the children it has now (browsers)."""
    total = time.process_time()
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
            total += times.user + times.system
        except psutil.Error:
            continue
    return total


def commit() -> str:
    """Of the code that ran, with a ``+`` where files were changed since."""
    where = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=False, cwd=where).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--", "..", ":!results") else "")


# -- choosing ----------------------------------------------------------------------------------------------------------------------
def tuned(study: Study) -> dict[str, Sets]:
    """The chosen line of each method, from ``<study>-tuned.json``."""
    path = RESULTS / f"{study.name}-tuned.json"
    if not path.exists():
        return {}
    return {name: tuple(one["line"]) for name, one in json.loads(path.read_text(encoding="utf-8"))["chosen"].items()}


def swept(study: Study) -> dict[str, int]:
    """How many of its lines each method's line was chosen from."""
    path = RESULTS / f"{study.name}-tuned.json"
    chosen = json.loads(path.read_text(encoding="utf-8"))["chosen"] if path.exists() else {}
    return {name: len(one["lines"]) for name, one in chosen.items()}


def choose(study: Study) -> None:
    """Choose a line for every method that has lines, out of those that have been run, and write ``<study>-tuned.json``.

    Best: the highest mean of success within 2, 3, … attempts, over the instances that all these lines have ended; a tie goes to the
    earlier line.  A line counts only if it was run to its end, with the settings that it has now: one that was stopped has ended
    few, and first those that it solved.
    """
    about = RESULTS / f"{study.name}-tune.json"
    ran = json.loads(about.read_text(encoding="utf-8"))["methods"] if about.exists() else {}
    found: dict[str, dict[int, dict[Any, Outcome]]] = {}
    for one in outcomes.read(RESULTS / f"{study.name}-tune.jsonl"):
        name, _, number = one.method.partition(" #")
        if number:
            found.setdefault(name, {}).setdefault(int(number), {})[one.instance] = one
    path = RESULTS / f"{study.name}-tuned.json"
    chosen: dict[str, Any] = {}
    for method in study.methods:
        now = {n: [*method.fixed, *line] for n, line in enumerate(method.lines)}
        of_line = {n: ran.get(f"{method.name} #{n}", {}) for n in now}
        by_line = {
            n: v
            for n, v in found.get(method.name, {}).items()
            if n in now and of_line[n].get("sets") == now[n] and len(v) >= RUN * of_line[n]["wanted"]
        }
        shared = set.intersection(*(set(v) for v in by_line.values())) if by_line else set()
        if not shared:
            continue
        area = {
            n: float(np.mean([o.within(k) for i, o in v.items() if i in shared for k in range(2, 6)])) for n, v in by_line.items()
        }
        best = max(sorted(area), key=lambda n: area[n])
        chosen[method.name] = {
            "line": list(method.lines[best]), "instances": len(shared), "of_lines": len(method.lines),
            "lines": [{"line": list(method.lines[n]), "mean": round(area[n], 4)} for n in sorted(area)],
        }  # fmt: skip
    text = json.dumps({"command": f"python benchmarks/comparison.py {study.name} --stage tune", "chosen": chosen}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    console.print({name: (one["line"], one["lines"]) for name, one in chosen.items()})


def main() -> None:
    """Run a stage, and write its outcomes."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--stage", choices=STAGES, default="report")
    parser.add_argument("--methods", help="comma-separated; default: all of the study")
    parser.add_argument("--lines", help="comma-separated numbers of the lines to tune, from 0; default: all")
    parser.add_argument("--pairs", type=int, help="failing first attempts, over all seeds [default: the study's]")
    parser.add_argument("--attempts", type=int, help="T_max [default: the study's; of the tuning stage at most 5]")
    parser.add_argument("--limit", type=int, default=2000, help="most first attempts per seed")
    parser.add_argument("--workers", type=int, default=64, help="sessions in flight")
    parser.add_argument("--threads", type=int, default=1, help="of the model's arithmetic")
    parser.add_argument("--minutes", type=float, help="begin no further session after this long")
    parser.add_argument("--untuned", action="store_true", help="report methods that were not tuned at their first line")
    parser.add_argument("--work", type=Path, help="folder of the run directories [default: runs/comparison]")
    args = parser.parse_args()
    study = STUDIES[args.study]
    with reported():
        comparison = Comparison(study, args.stage, args)
        names = [n.strip() for n in args.methods.split(";" if ";" in args.methods else ",") if n.strip()] if args.methods else None
        pieces = comparison.pieces(names, args.untuned)
        if args.lines is not None:
            pieces = [p for p in pieces if p.name.partition(" #")[2] in args.lines.split(",")]
        comparison.run(pieces)
        if args.stage == "tune":
            choose(study)


if __name__ == "__main__":
    main()

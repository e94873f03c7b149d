"""Paired comparisons on failing first attempts: the shared half of the adaptation benchmarks.

Attempt 1 is greedy and the same for every method.  The task instances that it fails are the population; each method then runs on
exactly those, from the same failure, and all comparisons are paired by instance.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from agentlab.config import RunConfig, resolve
from agentlab.metrics import Row, bootstrap_mean, exact_repeats, mcnemar, paired_bootstrap, sessions
from agentlab.progress import RunProgress
from agentlab.runner import Runner
from envs.base import TaskSpec

console = Console(stderr=True)


@dataclass(frozen=True)
class Method:
    """A column of the comparison: a preset of ``--adapt`` and the ``--set`` options that differ from it."""

    name: str
    preset: str
    sets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setup:
    """What all methods share.

    Attributes:
        policy: Policy name or path.
        attempts: T_max, the shared first attempt included.
        seeds: Run seeds; each gives its own instances.
        limit: Instances per seed, before those that attempt 1 solves are dropped.
        work: Folder of the run directories (finished work is reused).
        workers: Sessions in flight.
        tasks: Task names, or None for the suite's own.
    """

    policy: str
    attempts: int
    seeds: tuple[int, ...]
    limit: int
    work: Path
    workers: int = 4
    tasks: tuple[str, ...] | None = None

    def config(self, folder: str, seed: int, preset: str, attempts: int, sets: Iterable[str]) -> RunConfig:
        flags = {
            "suite": "miniwob",
            "policy": self.policy,
            "adapt": {"preset": preset},
            "attempts": attempts,
            "seed": seed,
            "limit": self.limit,
            "tasks": self.tasks,
            "workers": self.workers,
            "out": self.work / f"s{seed}-{folder}",
        }
        return resolve(flags, sets=["sampling.first_greedy=true", *sets])


def run(config: RunConfig, title: str, tasks: Sequence[TaskSpec] | None = None) -> list[Row]:
    """Make (or continue) a run, on ``tasks`` instead of the configuration's own if given."""
    runner = Runner(config)
    if tasks is not None:
        runner.tasks = list(tasks)
    console.print(f"[bold]{title}[/bold]  {len(runner.tasks)} sessions")
    if not runner.tasks:
        return []
    with RunProgress(console, len(runner.tasks), config.attempts) as progress:
        runner.on_row = progress.row
        return runner.run(progress.start)


def failing_first(setup: Setup, seed: int) -> tuple[list[TaskSpec], list[Row]]:
    """The instances that the greedy first attempt fails, and the rows of all first attempts."""
    config = setup.config("first", seed, "none", 1, ())
    runner = Runner(config)
    rows = run(config, f"seed {seed}: first attempts")
    failed = {s.task for s in sessions(rows) if s.failed_first}
    return [t for t in runner.tasks if t.id in failed], rows


@dataclass(frozen=True)
class Outcome:
    """One method over the whole population.

    Attributes:
        solved_at: Attempt that solved each instance, 0 if none did; in the order of the population.
        names: Task name of each instance.
        rows: All attempts.
    """

    method: Method
    solved_at: np.ndarray
    names: list[str]
    rows: list[Row]

    def within(self, k: int) -> np.ndarray:
        """1.0 where an instance was solved at an attempt <= k."""
        return ((self.solved_at > 0) & (self.solved_at <= k)).astype(float)


def compare(setup: Setup, methods: Sequence[Method]) -> tuple[list[Outcome], dict[str, Any]]:
    """Run every method on the same failing first attempts; returns outcomes and figures of the first attempts."""
    population: list[tuple[int, TaskSpec]] = []
    first_rows: list[Row] = []
    for seed in setup.seeds:
        failing, rows = failing_first(setup, seed)
        population += [(seed, task) for task in failing]
        first_rows += rows
    found = []
    for method in methods:
        solved: dict[tuple[int, str], int] = {}
        rows = []
        for seed, group in itertools.groupby(population, key=lambda p: p[0]):
            tasks = [task for _, task in group]
            config = setup.config(method.name, seed, method.preset, setup.attempts, method.sets)
            these = run(config, f"seed {seed}: {method.name}", tasks)
            solved.update({(seed, s.task): s.solved_at or 0 for s in sessions(these)})
            rows += [{**row, "task": f"{seed}/{row['task']}"} for row in these]
        at = np.array([solved.get((seed, task.id), 0) for seed, task in population])
        found.append(Outcome(method, at, [task.name for _, task in population], rows))
    first = {"instances": len({(r["task"], r["seed"]) for r in first_rows}), "success": _mean(r["success"] for r in first_rows)}
    return found, {"first_attempts": first, "population": len(population)}


def table(outcomes: Sequence[Outcome], references: Sequence[str], attempts: int) -> list[dict[str, Any]]:
    """One JSON-serialisable line per method: success within k with 95 % intervals, and paired differences to the references."""
    by_name = {o.method.name: o for o in outcomes}
    lines = []
    for o in outcomes:
        retries = [r for r in o.rows if r["attempt"] > 1 and r["outcome"] == "graded"]
        steps = sum(r["steps"] for r in retries)
        graded = [r for r in o.rows if r["outcome"] == "graded"]
        solved = int((o.solved_at > 0).sum())
        line: dict[str, Any] = {
            "method": o.method.name,
            "preset": o.method.preset,
            "sets": list(o.method.sets),
            "n": len(o.solved_at),
            "within": {k: _interval(o.within(k)) for k in range(2, attempts + 1)},
            "average_attempts": len(graded) / len(o.solved_at),
            "attempts_per_solved": len(graded) / solved if solved else None,
            "exact_repeats": exact_repeats(o.rows),
            "unparsable": sum(r["unparsable"] for r in retries) / steps if steps else None,
            "seconds": {p: _mean(r["seconds"][p] for r in retries) for p in ("acting", "environment", "words", "weights", "rest")},
            "infrastructure": sum(r["outcome"] != "graded" for r in o.rows),
            "against": {},
        }
        for name in references:
            if name == o.method.name or name not in by_name:
                continue
            line["against"][name] = {k: _versus(by_name[name], o, k) for k in range(2, attempts + 1)}
        lines.append(line)
    return lines


def _interval(values: np.ndarray) -> dict[str, float]:
    mean, (low, high) = bootstrap_mean([float(v) for v in values], seed=0)
    return {"mean": mean, "low": low, "high": high}


def _versus(reference: Outcome, other: Outcome, k: int) -> dict[str, float]:
    a, b = reference.within(k), other.within(k)
    mean, (low, high) = paired_bootstrap([float(v) for v in a], [float(v) for v in b], seed=0)
    lost, won, p = mcnemar([bool(v) for v in a], [bool(v) for v in b])
    return {"difference": mean, "low": low, "high": high, "won": won, "lost": lost, "p": p}


def _mean(values: Iterable[Any]) -> float | None:
    numbers = [float(v) for v in values]
    return sum(numbers) / len(numbers) if numbers else None


# -- what people read ----------------------------------------------------------------------------------------------------------
def markdown(lines: Sequence[dict[str, Any]], attempts: int, reference: str | None = None) -> str:
    """A Markdown table: success within k (95 % interval at the last), attempts, repeats; and the difference to ``reference``."""
    heads = [
        "method",
        *(f"≤{k}" for k in range(2, attempts + 1)),
        "95 % at ≤" + str(attempts),
        "attempts / solved",
        "repeats",
        "unparsable",
    ]
    if reference:
        heads += [f"≤2 vs {reference}", f"≤{attempts} vs {reference}", "McNemar p"]
    out = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for line in lines:
        last = line["within"][attempts]
        cells = [f"`{line['method']}`", *(f"{line['within'][k]['mean']:.3f}" for k in range(2, attempts + 1))]
        cells += [f"{last['low']:.3f}–{last['high']:.3f}", _number(line["attempts_per_solved"], 2)]
        cells += [_number(line["exact_repeats"], 3), _number(line["unparsable"], 3)]
        if reference:
            versus = line["against"].get(reference)
            cells += [_points(versus[2]), _points(versus[attempts]), f"{versus[attempts]['p']:.1g}"] if versus else ["", "", ""]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def figure(outcomes: Sequence[Outcome], attempts: int, path: Path, title: str) -> None:
    """Success within k attempts with 95 % bootstrap bands, one line per method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(figsize=(7.2, 4.4), constrained_layout=True)
    ks = list(range(1, attempts + 1))
    for o in outcomes:
        stats = [_interval(o.within(k)) for k in ks]
        (line,) = axes.plot(ks, [s["mean"] for s in stats], marker="o", markersize=4, label=o.method.name)
        axes.fill_between(ks, [s["low"] for s in stats], [s["high"] for s in stats], alpha=0.12, color=line.get_color())
    axes.set(xlabel="attempts", ylabel="solved (of failing first attempts)", xticks=ks, ylim=(0, 1), title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=150)
    plt.close(fig)


def save(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    console.print(f"wrote {path}")


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _points(versus: dict[str, float]) -> str:
    return f"{100 * versus['difference']:+.1f} ({100 * versus['low']:+.1f}…{100 * versus['high']:+.1f})"

"""Paired comparisons on failing first attempts: the shared half of the adaptation benchmarks.

The population are the task instances that the greedy first attempt fails; every method goes on from that recorded attempt
(:mod:`pool`), so all comparisons are paired by instance.  Intervals are 95 % bootstrap intervals that resample whole task names:
instances of one task are alike.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from meter import console
from options import CENTRE, Method, Setup
from pool import ContinuedSession, FirstSession, Job, Pool

from agentlab.disk.row import Row
from agentlab.results.metrics import exact_repeats, mcnemar, paired_bootstrap, sessions, unparsable_draws
from agentlab.run.config import RunConfig
from agentlab.run.runner import plan
from envs.base import TaskSpec

CHUNK = 60
"""First attempts per seed that are made at a time, until enough have failed."""


@dataclass(frozen=True)
class Pair:
    """An instance whose first attempt failed, and where that attempt is recorded."""

    seed: int
    task: TaskSpec
    first: Path


def _first(setup: Setup, seed: int, limit: int) -> RunConfig:
    """Of the first attempts.  Any adaptation will do, for the head to be listened to; with one attempt nothing is adapted."""
    # Nothing is learned here; all of it is said so that recorded first attempts outlive a change of the preset.
    return setup.config("first", seed, "rosa", 1, CENTRE, limit)


# -- running -----------------------------------------------------------------------------------------------------------------------
def failing_first(pool: Pool, setup: Setup) -> tuple[list[Pair], list[Row]]:
    """Instances that the greedy first attempt fails, seeds taking turns, and the rows of all first attempts made.

    Instances are made in the suite's order until every seed has its share of ``setup.pairs`` failures.
    """
    share = -(-setup.pairs // len(setup.seeds))
    found: dict[int, list[Pair]] = {seed: [] for seed in setup.seeds}
    rows: list[Row] = []
    for limit in itertools.count(CHUNK, CHUNK):
        limit = min(limit, setup.limit)
        open_seeds = [seed for seed in setup.seeds if len(found[seed]) < share]
        configs = {seed: _first(setup, seed, limit) for seed in open_seeds}
        plans = {seed: plan(config) for seed, config in configs.items()}
        pool.run("first attempts", [Job(FirstSession, configs[s], task) for s in open_seeds for task in plans[s]], keep=True)
        for seed in open_seeds:
            made = pool.store(configs[seed]).rows()
            failed = {s.task for s in sessions(made) if s.failed_first}
            stores = {task.id: pool.session(configs[seed], task) for task in plans[seed]}
            found[seed] = [Pair(seed, t, stores[t.id].attempt_folder(1)) for t in plans[seed] if t.id in failed][:share]
        if limit == setup.limit or all(len(pairs) >= share for pairs in found.values()):
            break
    for seed in setup.seeds:
        rows += [row.model_copy(update={"task": f"{seed}/{row.task}"}) for row in pool.store(_first(setup, seed, limit)).rows()]
    turns = itertools.zip_longest(*found.values())
    return [pair for turn in turns for pair in turn if pair is not None], rows


@dataclass(frozen=True)
class Outcome:
    """One method over the whole population.

    Attributes:
        solved_at: Attempt that solved each instance, 0 if none did; in the order of the population.
        attempts_made: Graded attempts at each instance, the first included.
        names: Task name of each instance.
        rows: All attempts.
    """

    method: Method
    solved_at: np.ndarray
    attempts_made: np.ndarray
    names: list[str]
    rows: list[Row]

    def within(self, k: int) -> np.ndarray:
        """1.0 where an instance was solved at an attempt <= k."""
        return ((self.solved_at > 0) & (self.solved_at <= k)).astype(float)


def compare(setup: Setup, methods: Sequence[Method]) -> tuple[list[Outcome], dict[str, Any]]:
    """Run every method on the same failing first attempts; returns outcomes over the instances that all methods have finished."""
    deadline = None if setup.minutes is None else time.monotonic() + 60 * setup.minutes
    with Pool(setup.config("any", setup.seeds[0], "rosa2", setup.attempts, ()), setup.workers, setup.threads) as pool:
        population, first_rows = failing_first(pool, setup)
        console.print(f"{len(population)} failing first attempts of {len(first_rows)}")
        configs = {
            (m.name, seed): setup.config(m.name, seed, m.preset, m.attempts or setup.attempts, m.sets)
            for m in methods
            for seed in setup.seeds
        }
        jobs = [
            Job(ContinuedSession, configs[m.name, pair.seed], pair.task, number, pair.first)
            for number, pair in enumerate(population)
            for m in methods
        ]
        pool.run("methods", jobs, deadline=deadline)
        rows = {key: pool.store(config).rows() for key, config in configs.items()}
    finished = _finished(population, methods, rows)
    facts = {
        **setup.facts(),
        "first_attempts": {"made": len(first_rows), "success": float(np.mean([r.success for r in first_rows]))},
        "population": len(finished),
        "population_found": len(population),
        "task_names": len({pair.task.name for pair in finished}),
    }
    return [_outcome(m, finished, rows) for m in methods], facts


def _finished(population: Sequence[Pair], methods: Sequence[Method], rows: dict[tuple[str, int], list[Row]]) -> list[Pair]:
    """The instances whose sessions are over under every method."""
    over = {(key, r.task) for key, made in rows.items() for r in made if r.session_over}
    return [p for p in population if all(((m.name, p.seed), p.task.id) in over for m in methods)]


def _outcome(method: Method, population: Sequence[Pair], rows: dict[tuple[str, int], list[Row]]) -> Outcome:
    wanted = {(pair.seed, pair.task.id) for pair in population}
    kept: list[Row] = []
    by_pair = {}
    for seed in {pair.seed for pair in population}:
        these = [r for r in rows[method.name, seed] if (seed, r.task) in wanted]
        by_pair |= {(seed, s.task): s for s in sessions(these)}
        kept += [row.model_copy(update={"task": f"{seed}/{row.task}"}) for row in these]
    found = [by_pair[pair.seed, pair.task.id] for pair in population]
    return Outcome(
        method,
        np.array([s.solved_at or 0 for s in found]),
        np.array([s.attempts for s in found]),
        [pair.task.name for pair in population],
        kept,
    )


# -- numbers -----------------------------------------------------------------------------------------------------------------------
def table(outcomes: Sequence[Outcome], references: Sequence[str], attempts: int) -> list[dict[str, Any]]:
    """One JSON-serialisable line per method: success within k with intervals, and paired differences to the references."""
    by_name = {o.method.name: o for o in outcomes}
    lines = []
    for o in outcomes:
        retries = [r for r in o.rows if r.attempt > 1 and r.graded]
        steps, solved, made = sum(r.steps for r in retries), int((o.solved_at > 0).sum()), int(o.attempts_made.sum())
        lines.append({
            "method": o.method.name,
            "preset": o.method.preset,
            "sets": list(o.method.sets),
            "n": len(o.solved_at),
            "within": {str(k): _interval(o.within(k), o.names) for k in range(2, attempts + 1)},
            "area": float(np.mean([o.within(k).mean() for k in range(2, attempts + 1)])) if len(o.names) else 0.0,
            "solved": solved,
            "average_attempts": made / len(o.solved_at) if len(o.solved_at) else None,
            "attempts_per_solved": made / solved if solved else None,
            "exact_repeats": exact_repeats(o.rows),
            "unparsable": sum(r.unparsable for r in retries) / steps if steps else None,
            "unparsable_draws": unparsable_draws(retries),
            "infrastructure": sum(not r.graded for r in o.rows),
            "updates": updates(o.rows),
            "against": {
                name: {str(k): _versus(by_name[name], o, k) for k in range(2, attempts + 1)}
                | {"attempts_per_solved": _saving(by_name[name], o)}
                for name in references
                if name != o.method.name and name in by_name and o.names
            },
        })  # fmt: skip
    return lines


def updates(rows: Iterable[Row]) -> dict[str, Any] | None:
    """How the weight updates of a method went; None if it made none."""
    made = [r.update for r in rows if r.update is not None]
    if not made:
        return None
    done = [u.numbers for u in made if u.accepted]
    return {
        "made": len(made),
        "accepted": len(done),
        "fallback": sum(bool(u.numbers.get("fallback")) for u in made),
        "kl_mean": float(np.mean([u["kl_mean"] for u in done])) if done else None,
        "log_odds_shift": float(np.mean([u["log_odds_shift"] for u in done])) if done else None,
        "residual_ratio": float(
            np.median([u["residual_after"] / u["residual_before"] for u in done if u.get("residual_before")] or [1.0])
        ),
        "rank": float(np.mean([u["rank"] for u in done])) if done else None,
    }


def _interval(values: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    if not len(values):
        return {"mean": 0.0, "low": 0.0, "high": 1.0}
    mean, (low, high) = paired_bootstrap([0.0] * len(values), values.tolist(), seed=0, groups=names)
    return {"mean": mean, "low": low, "high": high}


def _versus(reference: Outcome, other: Outcome, k: int) -> dict[str, float]:
    a, b = reference.within(k), other.within(k)
    mean, (low, high) = paired_bootstrap(a.tolist(), b.tolist(), seed=0, groups=other.names)
    lost, won, p = mcnemar([bool(v) for v in a], [bool(v) for v in b])
    return {"difference": mean, "low": low, "high": high, "won": won, "lost": lost, "p": p}


def _saving(reference: Outcome, other: Outcome, resamples: int = 2000) -> dict[str, float] | None:
    """Attempts per solved instance, relative to the reference (-0.3: 30 % fewer), by task names resampled."""
    labels = np.unique(np.array(other.names), return_inverse=True)[1]
    sums = [
        np.bincount(labels, weights=values)
        for o in (reference, other)
        for values in (o.attempts_made.astype(float), (o.solved_at > 0).astype(float))
    ]  # attempts and solved of the reference, attempts and solved of the other; each [G]
    if not (sums[1].sum() and sums[3].sum()):
        return None
    drawn = np.random.default_rng(0).integers(0, len(sums[0]), size=(resamples, len(sums[0])))
    totals = [s[drawn].sum(axis=1) for s in sums]
    usable = (totals[1] > 0) & (totals[3] > 0)
    ratios = (totals[2] / np.maximum(totals[3], 1) / (totals[0] / np.maximum(totals[1], 1)))[usable] - 1
    low, high = np.quantile(ratios, [0.025, 0.975])
    change = sums[2].sum() / sums[3].sum() / (sums[0].sum() / sums[1].sum()) - 1
    return {"change": float(change), "low": float(low), "high": float(high)}


def save(path: Path, data: Any) -> None:
    """Write a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    console.print(f"wrote {path}")

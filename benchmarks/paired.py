"""The task instances that the greedy first attempt fails, and where that attempt is recorded, for :mod:`transfer`."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meter import console
from options import CENTRE, Setup
from pool import FirstSession, Job, Pool

from agentlab.disk.row import Row
from agentlab.results.metrics import sessions
from agentlab.run.config import RunConfig
from agentlab.run.parts import plan
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


def save(path: Path, data: Any) -> None:
    """Write a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    console.print(f"wrote {path}")

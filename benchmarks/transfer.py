"""Does an update learned at one instance help or hurt at *other* instances of the task?

    python benchmarks/transfer.py --pairs 100

From the failed first attempt at one instance one update is made; under it, other instances of the same task get one greedy attempt
each, paired with the frozen policy's greedy attempt at them.  Instances that the frozen policy fails show help, those that it solves
show harm.  Writes ``benchmarks/results/transfer.json``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from meter import console
from options import RESULTS, Method, arguments, command_line, setup_of
from paired import Pair, failing_first, save
from pool import Job, Pool, TransferSession, reported

from agentlab.disk.names import folder_name
from agentlab.results.resampling import clusters, paired_bootstrap, sign_flip
from agentlab.run.parts import plan
from envs.base import TaskSpec

METHODS = [Method("rosa", "rosa"), Method("rosa-paper", "rosa-paper"), Method("rl", "rl"), Method("slot", "slot")]


def targets(pair: Pair, tasks: Sequence[TaskSpec], count: int) -> list[TaskSpec]:
    """The next ``count`` instances of the pair's task, in the suite's order, round and round."""
    same = [task for task in tasks if task.name == pair.task.name]
    here = next(i for i, task in enumerate(same) if task.id == pair.task.id)
    return (same[here + 1 :] + same[:here])[:count]


def contrast(frozen: Sequence[bool], adapted: Sequence[bool], names: Sequence[str]) -> dict[str, Any]:
    """Frozen against adapted over the same (source, target) instances."""
    mean, (low, high) = paired_bootstrap([float(v) for v in frozen], [float(v) for v in adapted], seed=0, groups=clusters(names))
    hurt, helped = (
        sum(x and not y for x, y in pairs) for pairs in (zip(frozen, adapted, strict=True), zip(adapted, frozen, strict=True))
    )
    p = sign_flip([float(v) for v in frozen], [float(v) for v in adapted], clusters(names))
    failed, solved = sum(not v for v in frozen), sum(frozen)
    return {
        "n": len(frozen), "frozen": sum(frozen) / len(frozen), "adapted": sum(adapted) / len(adapted),
        "difference": mean, "low": low, "high": high, "helped": helped, "of_failed": failed, "hurt": hurt, "of_solved": solved, "p": p,
    }  # fmt: skip


def main() -> None:
    """Run, and write the result."""
    assert __doc__ is not None
    parser = arguments(__doc__, name="transfer", seeds="1001,1002,1003", pairs=100)
    parser.add_argument("--targets", type=int, default=2, help="other instances per failing one")
    parser.add_argument("--methods", default=",".join(m.name for m in METHODS))
    parser.add_argument("--set", action="append", default=[], help="setting of all methods")
    args = parser.parse_args()
    setup = setup_of(args)
    methods = [m for m in METHODS if m.name in args.methods.split(",")]
    deadline = None if setup.minutes is None else time.monotonic() + 60 * setup.minutes
    with reported(), Pool(setup.config("any", setup.seeds[0], "rosa", 1, ()), setup.workers, setup.threads) as pool:
        population, first = failing_first(pool, setup)
        solved = {r.task: r.success for r in first if r.graded}
        seen = {
            seed: [t for t in plan(setup.config("any", seed, "none", 1, ())) if f"{seed}/{t.id}" in solved] for seed in setup.seeds
        }
        moves = [(pair, to) for pair in population for to in targets(pair, seen[pair.seed], args.targets)]
        jobs: dict[tuple[str, int, str], Job] = {}
        for number, (pair, to) in enumerate(moves):
            for m in methods:
                # A directory per source instance: the same target may be reached from several.
                folder = f"transfer-{m.name}/{folder_name(pair.task.id)}"
                config = setup.config("x", pair.seed, m.preset, 1, (*m.sets, *args.set)).model_copy(
                    update={"out": setup.work / f"s{pair.seed}-{folder}"}
                )
                jobs[m.name, number, to.id] = Job(TransferSession, config, to, number, pair.first)
        pool.run("transfer", list(jobs.values()), deadline=deadline)
        lines = []
        for m in methods:
            done: list[tuple[bool, bool, str]] = []
            for number, (pair, to) in enumerate(moves):
                job = jobs[m.name, number, to.id]
                made = pool.session(job.config, to).rows()
                if made and made[-1].graded:
                    done.append((solved[f"{pair.seed}/{to.id}"], made[-1].success, to.name))
            if done:
                lines.append({"method": m.name, **contrast([d[0] for d in done], [d[1] for d in done], [d[2] for d in done])})
    save(RESULTS / f"{args.name}.json", {"command": command_line(), **setup.facts(), "methods": lines})
    for line in lines:
        console.print(line)


if __name__ == "__main__":
    main()

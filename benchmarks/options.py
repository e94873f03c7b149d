"""What the adaptation benchmarks share on their command lines: which policy, which instances, how many at a time."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentlab.run.config import RunConfig
from agentlab.run.resolve import resolve
from policies.registry import BUNDLED, bundled_checkpoint

RESULTS = Path(__file__).parent / "results"
GREEDY = ("sampling.temperature=0", "sampling.no_repeat=false")
"""Of an adaptation alone, without the sampling that the preset adds."""
CENTRE = ("adapt.weights.beta=1.0", *GREEDY)
"""Of ROSA alone: what the sweep's lines start from, whatever the preset has been given since."""


@dataclass(frozen=True)
class Method:
    """A row of the tables: a preset of ``--adapt`` and the ``--set`` options that differ from it.

    Attributes:
        attempts: T_max if it is not that of the others (greedy retries repeat themselves: one is enough to see it).
    """

    name: str
    preset: str
    sets: tuple[str, ...] = ()
    attempts: int | None = None


@dataclass(frozen=True)
class Setup:
    """What all methods share.

    Attributes:
        policy: Policy name or path.
        attempts: T_max, the shared first attempt included.
        seeds: Run seeds; each gives its own instances.
        pairs: Failing first attempts wanted, over all seeds.
        limit: Most first attempts per seed.
        work: Folder of the run directories (finished work is reused).
        workers: Sessions in flight.
        threads: Of the model's arithmetic.
        minutes: After this long no further instance is begun; None: until all are done.
        tasks: Task names, or None for the suite's own.
        suite: Benchmark.
        base: ``--set`` options of all methods.
    """

    policy: str
    attempts: int
    seeds: tuple[int, ...]
    pairs: int
    limit: int
    work: Path
    workers: int
    threads: int = 1
    minutes: float | None = None
    tasks: tuple[str, ...] | None = None
    suite: str = "miniwob"
    base: tuple[str, ...] = ()

    def config(
        self, folder: str, seed: int, preset: str, attempts: int, sets: Iterable[str], limit: int | None = None
    ) -> RunConfig:
        """The configuration of one method at one seed."""
        flags = {
            "suite": self.suite,
            "policy": self.policy,
            "adapt": {"preset": preset},
            "attempts": attempts,
            "seed": seed,
            "limit": limit or self.limit,
            "tasks": self.tasks,
            "out": self.work / f"s{seed}-{folder}",
        }
        return resolve(flags, sets=["sampling.first_greedy=true", *self.base, *sets])

    def facts(self) -> dict[str, Any]:
        """What a result must be read with."""
        return {"policy": self.policy, "weights": fingerprint(self.policy), "attempts": self.attempts, "seeds": list(self.seeds)}


def arguments(description: str, *, name: str, seeds: str, pairs: int) -> argparse.ArgumentParser:
    """The options that the benchmarks share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default=BUNDLED)
    parser.add_argument("--seeds", default=seeds)
    parser.add_argument("--pairs", type=int, default=pairs, help="failing first attempts, over all seeds")
    parser.add_argument("--limit", type=int, default=2000, help="most first attempts per seed")
    parser.add_argument("--attempts", type=int, default=5)
    parser.add_argument("--workers", type=int, default=16, help="sessions in flight")
    parser.add_argument("--threads", type=int, default=1, help="of the model's arithmetic; the browser wants a core of its own")
    parser.add_argument("--minutes", type=float, help="begin no further instance after this long")
    parser.add_argument("--tasks", help="comma-separated task names; default: the suite's own")
    parser.add_argument("--work", type=Path, help="folder of the run directories [default: runs/benchmarks-<weights>]")
    parser.add_argument("--name", default=name, help="name of the result files")
    return parser


def setup_of(args: argparse.Namespace) -> Setup:
    """What the command line says."""
    work = args.work or Path("runs") / f"benchmarks-{fingerprint(args.policy)}"
    seeds = tuple(int(s) for s in args.seeds.split(","))
    tasks = tuple(args.tasks.split(",")) if args.tasks else None
    return Setup(args.policy, args.attempts, seeds, args.pairs, args.limit, work, args.workers, args.threads, args.minutes, tasks)


def command_line() -> str:
    """The command that this process was started with, without the folder that it worked in."""
    words = sys.argv[1:]
    if "--work" in words:
        at = words.index("--work")
        words = words[:at] + words[at + 2 :]
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *(word or '""' for word in words)])


def fingerprint(policy: str) -> str:
    """Eight digits that change with the weights, so that runs of different weights never mix."""
    folder = bundled_checkpoint() if policy == BUNDLED else Path(policy)
    digest = hashlib.sha256(policy.encode() if not folder.is_dir() else b"")
    for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else []:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]

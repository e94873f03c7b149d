"""Time and memory per method, one session at a time (ROSA Table 10, ROSA2 Table 4).

    python benchmarks/costs.py --limit 20

Runs ``agentlab run miniwob --workers 1`` once per method, each in a process of its own so that its peak memory is its own, over the
same instances.  Writes ``benchmarks/results/costs.json``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from meter import console
from options import RESULTS, command_line, fingerprint
from paired import save

from agentlab.disk.row import SPLIT, Row
from agentlab.disk.runs import read_rows
from agentlab.results.metrics import peak_memory
from policies.registry import BUNDLED

METHODS = ("none", "best-of-k", "textgrad", "rosa-paper", "rosa", "rosa2", "rl", "slot")


def line(method: str, rows: list[Row]) -> dict[str, Any]:
    """Seconds and memory of one run."""
    graded = [r for r in rows if r.graded]
    taught = [r for r in graded if r.update or r.words]  # only a failed attempt that is not the last one is learned from
    acting = sum(r.seconds.acting for r in taught)
    updates = [r.update for r in graded if r.update is not None]
    return {
        "method": method,
        "attempts": len(graded),
        "seconds": {part: sum(getattr(r.seconds, part) for r in graded) / len(graded) for part in SPLIT},
        "weights_of_acting": sum(r.seconds.weights for r in taught) / acting if acting else None,
        "words_of_acting": sum(r.seconds.words for r in taught) / acting if acting else None,
        "update_tokens": sum(u.numbers["T"] for u in updates) / len(updates) if updates else None,
        "adapter_mb": max((u.numbers["adapter_mb"] for u in updates), default=0.0),
        "peak_mb": peak_memory(rows),
    }


def main() -> None:
    """Run, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default=BUNDLED)
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--attempts", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1001)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--work", type=Path)
    args = parser.parse_args()
    work = args.work or Path("runs") / f"benchmarks-{fingerprint(args.policy)}" / "costs"
    lines = []
    for method in args.methods.split(","):
        folder = work / f"s{args.seed}-{method}"
        run = ["run", "miniwob", "--policy", args.policy, "--adapt", method, "--limit", args.limit, "--attempts", args.attempts]
        run += ["--seed", args.seed, "--workers", 1, "--out", folder, "--set", "overlap=false"]  # all of an update is seen
        done = subprocess.run([sys.executable, "-m", "agentlab", *map(str, run)], stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)
        lines.append(line(method, read_rows(folder)))
        console.print(lines[-1])
    facts = {"command": command_line(), "policy": args.policy, "weights": fingerprint(args.policy), "limit": args.limit}
    save(RESULTS / "costs.json", {**facts, "methods": lines})


if __name__ == "__main__":
    main()

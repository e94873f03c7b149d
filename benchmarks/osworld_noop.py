"""Doing nothing must not be rewarded: the policy ``noop`` over our light tasks and over OSWorld's own that the light desktop can drive.

    python benchmarks/osworld_noop.py --out FOLDER --result benchmarks/results/osworld_noop.json

OSWorld's tasks are those of the fetched task set (or of ``AGENTLAB_OSWORLD_TASKS``, a copy of its ``evaluation_examples``) whose set-up and
grading name nothing on the internet.  Every attempt must score 0, or be void because its set-up cannot succeed here (a program that the
light desktop does not have); a feasible task that is rewarded ends the benchmark with exit code 1, unless it is in ``REWARDED``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from agentlab.run.config import RunConfig
from agentlab.run.runner import Runner
from envs.osworld import jobs, upstream
from envs.osworld.suite import OSWorldSuite

REWARDED: dict[str, str] = {}
"""Feasible tasks that OSWorld's own evaluator rewards untouched, with the reason."""


def offline(job: jobs.Job) -> bool:
    """Whether setting up and grading name nothing on the internet."""
    if any(jobs.needed_files(job)) or jobs.needs_google(job):
        return False
    return "http" not in json.dumps([jobs.steps(job), list(jobs.getters(job))])


def run(suite: str, tasks: list[str] | None, folder: Path, workers: int) -> list[dict[str, Any]]:
    config = RunConfig(
        suite=suite, policy="noop", tasks=tuple(tasks) if tasks else None, attempts=1, limit=1000, max_steps=1, out=folder, workers=workers,
        infra_retries=0, env={"provider": "light"},
    )  # fmt: skip
    Runner(config).run()
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--result", type=Path)
    options = parser.parse_args()
    examples = Path(os.environ.get("AGENTLAB_OSWORLD_TASKS") or upstream.tasks_folder())
    every = OSWorldSuite(str(examples / "test_all.json"))
    theirs = sorted(name for name, job in every.jobs.items() if name not in every.excluded() and offline(job))
    summary: dict[str, Any] = {}
    rewarded = {}
    for name, suite, tasks in (("osworld", f"osworld:{examples / 'test_all.json'}", theirs), ("light", "osworld-light", None)):
        rows = run(suite, tasks, options.out / name, options.workers)
        scores = {row["name"]: row["score"] if row["outcome"] == "graded" else None for row in rows}
        voids = {row["name"]: row["infrastructure"][-1]["message"][:200] for row in rows if row["outcome"] != "graded"}
        rewarded |= {task: score for task, score in scores.items() if score and task not in REWARDED}
        counted = Counter("void" if score is None else f"{score:g}" for score in scores.values())
        summary[name] = {"tasks": len(scores), "scores": dict(counted), "void": voids}
    summary["rewarded"] = rewarded
    text = json.dumps(summary, indent=2)
    if options.result:
        options.result.write_text(text + "\n")
    print(text)
    return 1 if rewarded else 0


if __name__ == "__main__":
    sys.exit(main())

"""How often the scripted experts solve their MiniWoB++ tasks, through the real environment.

    python benchmarks/miniwob_oracles.py                        # every task that has an expert, instances 0 to 49
    python benchmarks/miniwob_oracles.py --episodes 10 click-menu use-slider

Prints one line per task: solved/episodes, mean and greatest number of steps, unsolved seeds.  Exit status 1 if a task stays below
``--required`` (0.95).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field

from envs.base import TaskSpec
from envs.miniwob.env import MiniWoBEnv
from envs.miniwob.oracles import oracle_tasks
from envs.miniwob.tasks import ENV_ID

MAX_STEPS = 30


@dataclass
class Tally:
    """Outcomes of one task's episodes."""

    steps: list[int] = field(default_factory=list)
    unsolved: list[int] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return 1 - len(self.unsolved) / len(self.steps)


def episode(env: MiniWoBEnv, task: TaskSpec) -> tuple[float, int]:
    """(score, steps) of the expert on one instance; giving up scores 0."""
    env.reset(options={"task": task})
    score, over, steps = 0.0, False, 0
    while not over:
        reply = env.oracle()
        if reply is None:
            return 0.0, steps
        _, score, terminated, truncated, _ = env.step(reply[1])
        over, steps = terminated or truncated, steps + 1
    return score, steps


def measure(env: MiniWoBEnv, name: str, episodes: int) -> Tally:
    tally = Tally()
    for seed in range(episodes):
        score, steps = episode(env, TaskSpec(ENV_ID, name, seed, MAX_STEPS))
        tally.steps.append(steps)
        if score < 1:
            tally.unsolved.append(seed)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", help="task names; by default all that have an expert")
    parser.add_argument("--episodes", type=int, default=50, help="instances per task, seeds 0, 1, ... (default: 50)")
    parser.add_argument("--required", type=float, default=0.95, help="least acceptable share of solved episodes (default: 0.95)")
    options = parser.parse_args()
    names = options.tasks or oracle_tasks()
    below = []
    env = MiniWoBEnv(oracle=True)
    try:
        print(f"{'task':28} {'solved':>7}  {'steps':>5}  {'max':>3}  unsolved seeds")
        for name in names:
            tally = measure(env, name, options.episodes)
            solved = f"{len(tally.steps) - len(tally.unsolved)}/{len(tally.steps)}"
            mean = sum(tally.steps) / len(tally.steps)
            print(f"{name:28} {solved:>7}  {mean:5.1f}  {max(tally.steps):3}  {tally.unsolved or ''}", flush=True)
            if tally.rate < options.required:
                below.append(name)
    finally:
        env.close()
    print(f"{len(names)} tasks, {len(below)} below {options.required:.0%}: {', '.join(below) or 'none'}")
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())

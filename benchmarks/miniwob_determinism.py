"""Does every attempt at a MiniWoB++ instance start from the same screen?  One line per task page of the package.

    python benchmarks/miniwob_determinism.py [task ...]

Each page is loaded for three seeds in one browser process, and again in another one after an attempt that clicked, dragged, typed
and copied; the goals and the first screens (SHA-256 of the pixels) are compared, and whether different seeds differ.  ``still``
says whether half a second of doing nothing leaves the first screen as it was.  ``envs.miniwob.tasks.EXCLUDED`` is based on this.
"""

from __future__ import annotations

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from envs import actions as act
from envs.base import TaskSpec
from envs.miniwob import tasks
from envs.miniwob.env import MiniWoBEnv

SEEDS = (0, 1, 2)
MESS = (
    act.Click(80, 100), act.Type("abc"), act.Hotkey(("ctrl", "a")), act.Hotkey(("ctrl", "c")),
    act.Drag(60, 120, 110, 150), act.Scroll(80, 130, "down"), act.Click(40, 80),
)  # fmt: skip


@dataclass(frozen=True)
class Start:
    goal: str
    pixels: str


def _spec(name: str, seed: int) -> TaskSpec:
    return TaskSpec(tasks.ENV_ID, name, seed, max_steps=99)


def _digest(screen: np.ndarray) -> str:
    return hashlib.sha256(screen.tobytes()).hexdigest()[:12]


def _start(env: MiniWoBEnv, name: str, seed: int) -> Start:
    observation, info = env.reset(options={"task": _spec(name, seed)})
    return Start(info["instruction"], _digest(observation["screenshot"]))


def first_visit(name: str) -> tuple[list[Start], bool]:
    """The start of each seed, and whether the first screen stands still."""
    env = MiniWoBEnv()
    try:
        starts = [_start(env, name, seed) for seed in SEEDS]
        observation, *_ = env.step(act.Wait())
        return starts, _digest(observation["screenshot"]) == starts[-1].pixels
    finally:
        env.close()


def second_visit(name: str) -> list[Start]:
    """The start of each seed after a careless attempt at it."""
    env = MiniWoBEnv()
    try:
        starts = []
        for seed in SEEDS:
            _start(env, name, seed)
            for action in MESS:
                _, _, terminated, truncated, _ = env.step(action)
                if terminated or truncated:
                    break
            starts.append(_start(env, name, seed))
        return starts
    finally:
        env.close()


def _map(function, names):  # two pages at once; one environment stays open so that all share one browser process
    keeper = MiniWoBEnv()
    keeper.reset(seed=0)
    try:
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(function, names))
    finally:
        keeper.close()


def main(names: list[str]) -> None:
    names = names or list(tasks.pages())
    first, second = _map(first_visit, names), _map(second_visit, names)
    print(f"{'task':32} goal   screen still seeds differ")
    good = 0
    for name, (starts, still), again in zip(names, first, second, strict=True):
        goal = all(a.goal == b.goal for a, b in zip(starts, again, strict=True))
        screen = all(a.pixels == b.pixels for a, b in zip(starts, again, strict=True))
        differ = len({(s.goal, s.pixels) for s in starts}) > 1
        good += goal and screen
        words = ("same" if goal else "DIFF", "same" if screen else "DIFF", "yes" if still else "NO", "yes" if differ else "no")
        print(f"{name:32} {words[0]:6} {words[1]:6} {words[2]:5} {words[3]}")
    print(f"{good} of {len(names)} pages start the same way every time.")


if __name__ == "__main__":
    main(sys.argv[1:])

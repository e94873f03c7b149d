"""What a cluster costs, and what is lost when its nodes die.  Several real nodes of Ray on this machine; needs `pip install '.[ray]'`.

    python benchmarks/cluster.py speed --nodes 1,2,4 --episodes 24    # MiniWoB's episodes per minute, against threads in the same run
    python benchmarks/cluster.py kills --kills 100                    # nodes killed while a run goes on

``speed`` says what passing screens and actions between processes costs: all nodes share this machine's processors, so more of them are not
faster here, as they are where each is a machine.  ``kills`` compares the killed run's rows with those of threads, row by row.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "agentlab"))

from placed_runs import OWN, lived
from real_ray import RealRay

from agentlab.disk.runs import read_rows
from agentlab.run.resolve import resolve
from agentlab.run.runner import Runner

NAMES = ("node-1", "node-2", "node-3", "node-4")
STEP_SECONDS = 0.2
"""Of the game that is played while nodes are killed: an episode takes about a second."""


def run(out: Path, cluster: str | None, on_row: Callable[[Any], None] = lambda row: None, **flags: Any) -> tuple[list[Any], float]:
    """(rows, seconds from the first attempt's begin on, without loading the model or starting nodes)."""
    runner = Runner(
        resolve({"out": out, "cluster": cluster} | flags), on_row=on_row, say=lambda line: print(f"  {line}", flush=True)
    )
    began = time.monotonic()
    rows = runner.run(lambda rows: None)
    return rows, time.monotonic() - began


# -- speed -------------------------------------------------------------------------------------------------------------------------
def speed(work: Path, nodes: list[int], episodes: int, policy: str) -> dict[str, Any]:
    """Episodes per minute in threads and on nodes, one browser for each of as many sessions, in turn."""
    pages = {"suite": "miniwob", "policy": policy, "attempts": 1, "limit": episodes, "seed": 7}
    found: dict[str, Any] = {"policy": policy, "episodes": episodes, "processors": os.cpu_count(), "at a time": {}}
    with cluster_of(work, NAMES[: max(nodes)], {"browsers": 1}) as ray:
        for count in sorted(nodes, reverse=True):
            for name in ray.names()[count:]:
                ray.kill(name)
            time.sleep(5)
            timed = {}
            for kind, where in (("threads", None), ("nodes", "ray")):
                rows, seconds = run(work / f"{kind}-{count}", where, workers=count, **pages)
                at_work = sum(row.seconds.environment for row in rows)
                timed[kind] = {
                    "episodes per minute": 60 * len(rows) / seconds, "seconds": seconds, "steps": sum(row.steps for row in rows),
                    "in the environment": at_work, "rest": sum(row.seconds.rest for row in rows),
                }  # fmt: skip
                timed[kind]["load"] = os.getloadavg()[0]
                print(f"{count} at a time, {kind}: {timed[kind]}", flush=True)
            same = lived(read_rows(work / f"threads-{count}")) == lived(read_rows(work / f"nodes-{count}"))
            timed["ratio"] = timed["nodes"]["episodes per minute"] / timed["threads"]["episodes per minute"]
            found["at a time"][str(count)] = timed | {"same rows": same}
    return found


# -- kills -------------------------------------------------------------------------------------------------------------------------
def kills(work: Path, wanted: int, nodes: int) -> dict[str, Any]:
    """Kill a node in the midst of an episode and start it again, over and over, until ``wanted`` have died; then compare."""
    journal = work / "journal"
    game: dict[str, Any] = {
        "suite": "placed:Placed", "policy": "guessing:Guesser", "attempts": 5, "adapt": {"preset": "textgrad"}, "limit": 20 * wanted,
        "infra_retries": 5,
    }  # fmt: skip
    before = {process.pid for process in psutil.process_iter()}
    with cluster_of(work, NAMES[:nodes], {"desktops": 1}) as ray:
        told: list[tuple[str, int]] = []
        dead: list[dict[str, Any]] = []
        runner = Runner(
            resolve({"out": work / "killed", "cluster": "ray", "env": {"journal": str(journal), "seconds": STEP_SECONDS}} | game),
            on_row=lambda row: told.append((row.task, row.attempt)),
            say=lambda line: print(f"  {line}", flush=True),
        )

        def play() -> None:
            with contextlib.suppress(KeyboardInterrupt):  # enough have died
                runner.run()
            runner.stop.set()

        running = threading.Thread(target=play)  # Ray starts nodes in the main thread only
        running.start()
        _kill(ray, journal, wanted, dead, runner.stop, told)
        running.join()
        rows = read_rows(work / "killed")
        time.sleep(10)
        orphans = [
            p for p in psutil.process_iter(["cmdline"]) if p.pid not in before and "ray::Host" in " ".join(p.info["cmdline"] or ())
        ]
    reference, _ = run(work / "threads", None, **game | {"limit": max(row.seed for row in rows) + 1})
    by_key = {(row["task"], row["attempt"]): row for row in lived(reference)}
    false = [row for row in lived(rows) if row["outcome"] == "graded" and row != by_key[row["task"], row["attempt"]]]
    return {
        "nodes": nodes, "kills": len(dead), "in the midst of an episode": sum(d["in flight"] for d in dead),
        "attempts finished": len(told), "finished attempts lost": len(set(told) - {(row.task, row.attempt) for row in rows}),
        "false rewards": len(false), "attempts voided by a lost node": sum(len(row.infrastructure) for row in rows),
        "sessions ended by the machinery": sum(not row.graded for row in rows), "processes left": len(orphans),
    }  # fmt: skip


def _kill(
    ray: RealRay, journal: Path, wanted: int, dead: list[dict[str, Any]], stop: threading.Event, told: list[tuple[str, int]]
) -> None:
    """The killer: one node at a time, where an episode has begun and not ended, so far as the journal says."""
    chance = random.Random(0)
    while len(dead) < wanted and not stop.is_set():
        busy = [name for name in ray.names() if _last(journal, name) == "begin"]
        if not busy:
            time.sleep(0.05)
            continue
        name = chance.choice(busy)
        time.sleep(chance.uniform(0, 2 * STEP_SECONDS))
        ray.kill(name)
        dead.append({"node": name, "in flight": _last(journal, name) == "begin"})
        print(f"killed {name}, {len(dead)} of {wanted}; {len(told)} attempts finished", flush=True)
        with journal.open("a") as file:
            file.write(f"gone 0 {name}\n")
        ray.add(name, {"desktops": 1})
    stop.set()


def _last(journal: Path, node: str) -> str:
    """What the node did last: begin or end an episode."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    return next((line.split()[0] for line in reversed(lines) if line.split()[2:] == [node]), "")


@contextmanager
def cluster_of(work: Path, names: tuple[str, ...], resources: dict[str, float]) -> Iterator[RealRay]:
    ray = RealRay(work / "state", OWN)
    try:
        for name in names:
            ray.add(name, resources)
        ray.wait()
        print(f"{len(names)} nodes are up", flush=True)
        yield ray
    finally:
        ray.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "kills"])
    parser.add_argument("--nodes", default="1,2,4", help="speed: how many, one after the other")
    parser.add_argument("--episodes", type=int, default=24)
    parser.add_argument("--policy", default="scripted", help="speed: scripted costs nothing itself")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--work", type=Path, help="folder for the runs; a temporary one by default")
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        if given.what == "speed":
            found = speed(work, [int(n) for n in given.nodes.split(",")], given.episodes, given.policy)
        else:
            found = kills(work, given.kills, len(NAMES))
    print(json.dumps(found, indent=2))
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

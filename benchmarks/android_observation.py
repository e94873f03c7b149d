"""What an observation of an AndroidWorld phone costs: over our guest server, and over upstream's, in one run.

    AGENTLAB_ANDROID=1 AGENTLAB_ANDROID_PYTHON=<python with upstream's android_world> python benchmarks/android_observation.py

A stand-in phone of 1080x2400 behind both servers; from asking to the array in the policy's hands, at once (no waiting for the screen
to come to rest).  Rounds alternate between the servers, so that a busy machine is busy for both.  Besides the clock, the processor
time of server and client together is taken.  Without AGENTLAB_ANDROID upstream's server is a stand-in whose picture route does the
same (nested lists as JSON, by FastAPI); the JSON says which of the two it was.  Exit code 1 where the bounds are not kept.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/envs/androidworld")]

import servers  # noqa: E402 - of the tests' folder
from rich.progress import track  # noqa: E402

from envs.androidworld import upstream as upstream_client  # noqa: E402
from envs.androidworld.device import Look, decode  # noqa: E402
from envs.androidworld.ours import OurDevice  # noqa: E402
from envs.androidworld.upstream import UpstreamDevice  # noqa: E402
from envs.connection import Connection  # noqa: E402

WIDTH, HEIGHT = 1080, 2400
BOUND_S, RATIO = 0.150, 50.0
RESULT = ROOT / "benchmarks/results/android_observation.json"


@dataclass
class Route:
    """One way to look at the phone, with what each look has cost, seconds."""

    name: str
    process: psutil.Process
    look: Callable[[], np.ndarray]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def measure(self, tries: int) -> np.ndarray:
        """Look so often; the last picture."""
        for _ in range(tries):
            spent, started = self._spent(), time.perf_counter()
            pixels = self.look()
            self.wall.append(time.perf_counter() - started)
            self.cpu.append(self._spent() - spent)
        return pixels

    def _spent(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system + time.process_time()

    def summary(self) -> dict[str, float | int]:
        """Milliseconds; the kernel counts processor time in hundredths of a second, so that is a mean."""
        return {
            "looks": len(self.wall),
            "wall_ms_min": round(1000 * min(self.wall), 1),
            "wall_ms_median": round(1000 * statistics.median(self.wall), 1),
            "cpu_ms_mean": round(1000 * statistics.mean(self.cpu), 1),
        }


def routes(ours: servers.StandinServer, upstream: servers.StandinServer) -> list[Route]:
    """The policy's own route, two others of our server, and upstream's."""
    device, theirs, plain = (
        OurDevice("127.0.0.1", ours.port),
        UpstreamDevice("127.0.0.1", upstream.port),
        Connection("127.0.0.1", ours.port),
    )

    def image(kind: str) -> Callable[[], np.ndarray]:
        return lambda: decode(bytes(plain.send("GET", "/screenshot", seconds=60, params={"format": kind}).body))

    def pixels(look: Look) -> np.ndarray:
        return look.screenshot

    here, there = psutil.Process(ours.pid), psutil.Process(upstream.pid)
    return [
        Route("ours", here, lambda: pixels(device.look(tree=False, settle=False))),
        Route("ours, with UI elements", here, lambda: pixels(device.look(tree=True, settle=False))),
        Route("ours, PNG", here, image("png")),
        Route("upstream", there, lambda: pixels(theirs.look(tree=False, settle=False))),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="each has one picture over upstream's server")
    parser.add_argument("--tries", type=int, default=20, help="looks over our server in each round")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    upstream_client.SECONDS["/screenshot"] = 1800.0  # a run gives it three minutes; a busy machine may need more to measure it
    with (
        tempfile.TemporaryDirectory() as folder,
        servers.StandinServer("ours", Path(folder) / "ours", WIDTH, HEIGHT) as ours,
        servers.StandinServer("upstream", Path(folder) / "upstream", WIDTH, HEIGHT) as upstream,
    ):
        found = routes(ours, upstream)
        for route in found[:-1]:
            route.look()  # the first one imports and allocates
        for _ in track(range(args.rounds), "rounds"):
            pictures = [route.measure(1 if route.name == "upstream" else args.tries) for route in found]
            assert all(np.array_equal(one, pictures[-1]) for one in pictures), "the routes show different pictures"
    return report(found, args)


def report(found: list[Route], args: argparse.Namespace) -> int:
    """Print and store the table; 0 if the bounds are kept."""
    costs = {route.name: route.summary() for route in found}
    ours, theirs = costs["ours"], costs["upstream"]
    ratios = {key: round(theirs[key] / ours[key], 1) for key in ("wall_ms_min", "wall_ms_median", "cpu_ms_mean")}
    result = {
        "command": f"python benchmarks/android_observation.py --rounds {args.rounds} --tries {args.tries}",
        "upstream_is": "its package" if servers.python() else "a stand-in for its package",
        "screen": [WIDTH, HEIGHT],
        "cpus": os.cpu_count(),
        "load_average": [round(one, 1) for one in os.getloadavg()],
        "costs": costs,
        "upstream_to_ours": ratios,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    for name, cost in costs.items():
        print(f"{name:24} " + "  ".join(f"{key} {value}" for key, value in cost.items()))
    print("upstream to ours: " + "  ".join(f"{key} {value}x" for key, value in ratios.items()))
    kept = ours["wall_ms_min"] <= 1000 * BOUND_S and min(ratios.values()) >= RATIO
    return 0 if kept else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers go with it
    raise SystemExit(main())

"""What the light desktop costs: booting it, keeping it, looking at it, and having a clean one.

    python benchmarks/osworld_desktop.py --result benchmarks/results/osworld_desktop.json

Needs a Docker Engine and the image (``agentlab containers build``).  Wall times mean something on a quiet machine only: the load
before the measurement is in the result, and so is the CPU time of a boot.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from envs import containers
from envs.containers import Container, Fleet, SparePool
from envs.osworld.providers import LIGHT_BOOT_SECONDS, SERVER, light_spec, probe

REST_SECONDS = 60.0
SPARE_SECONDS = 0.1


def seconds(what: Callable[[], object]) -> float:
    started = time.perf_counter()
    what()
    return time.perf_counter() - started


def spread(values: list[float], factor: float = 1.0, digits: int = 2) -> dict[str, float]:
    """Median, least and most."""
    found = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: round(value * factor, digits) for name, value in found.items()}


def stats(container: Container) -> dict[str, Any]:
    return dict(containers.connect().containers.get(container.id).stats(stream=False))


def memory_mb(container: Container) -> float:
    """As ``docker stats`` shows it: without the file pages that the kernel can drop at once."""
    found = stats(container)["memory_stats"]
    inactive = found["stats"].get("total_inactive_file", found["stats"].get("inactive_file", 0))
    return float(found["usage"] - inactive) / 1e6


def boots(fleet: Fleet, count: int) -> dict[str, Any]:
    """Booted one after the other; the last one is looked at."""
    walls, cpu, idle, looks = [], [], [], []
    for _ in range(count):
        started = time.perf_counter()
        container = fleet.start(light_spec(), probe, LIGHT_BOOT_SECONDS)
        walls.append(time.perf_counter() - started)
        cpu.append(stats(container)["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9)
        with httpx.Client(base_url=f"http://127.0.0.1:{container.ports[SERVER]}", timeout=60, trust_env=False) as client:
            client.get("/agentlab/rest", params={"seconds": REST_SECONDS})
            idle.append(memory_mb(container))
            looks += [seconds(lambda: client.get("/screenshot").raise_for_status()) for _ in range(10)]
        fleet.stop(container)
    return {
        "boot_s": spread(walls), "boot_cpu_s": spread(cpu), "idle_mb": spread(idle, digits=0), "screenshot_ms": spread(looks, 1e3, 1),
    }  # fmt: skip


def resets(fleet: Fleet, count: int) -> dict[str, float]:
    """From asking for a clean desktop to having one that answers, when a spare is waiting."""
    pool = SparePool(fleet, light_spec(), probe, size=1, boot_timeout=LIGHT_BOOT_SECONDS)
    walls = []
    try:
        pool.fill()
        for _ in range(count):
            while not pool.waiting():
                time.sleep(SPARE_SECONDS)
            started = time.perf_counter()
            container = pool.take()
            walls.append(time.perf_counter() - started)
            pool.give_back(container)
    finally:
        pool.close()
    return spread(walls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10, help="How many boots, and how many resets.")
    parser.add_argument("--result", type=Path, help="Also write the result to this file.")
    options = parser.parse_args()
    found: dict[str, Any] = {"count": options.count, "cores": os.cpu_count(), "load_before": round(os.getloadavg()[0], 1)}
    with Fleet("measured") as fleet:
        found |= boots(fleet, options.count)
        found["reset_s"] = resets(fleet, options.count)
    text = json.dumps(found, indent=2)
    print(text)
    if options.result:
        options.result.write_text(text + "\n")


if __name__ == "__main__":
    main()

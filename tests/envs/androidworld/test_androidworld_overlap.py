"""Several emulators that start from one prepared phone: they boot side by side, and of many cold ones one installs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import servers

BOOT_S = 3.0
"""How long the stand-in boots, most of it waiting, as a real emulator's restore from a snapshot does."""


def container(folder, volume):
    """One container: a disk of its own, the volume in common."""
    folder.mkdir()
    return servers.StandinServer("ours", folder / "phone", STANDIN_VOLUME=str(volume), STANDIN_BOOT_S=str(BOOT_S))


def together(stack, folders, volume):
    """(servers, the longest of their boots in seconds, as they measured it) of containers that are started at once."""
    made = [container(folder, volume) for folder in folders]
    for one in made:
        stack.callback(one.stop)
    with ThreadPoolExecutor(len(made)) as threads:
        list(threads.map(servers.StandinServer.start, made))
    health = [httpx.get(f"{one.url}/health", timeout=10, trust_env=False).json() for one in made]
    return made, max(one["boot_s"] for one in health), [one["warm"] for one in health]


def test_the_second_start_of_three_takes_hardly_longer_than_that_of_one(tmp_path):
    volume = tmp_path / "volume"
    volume.mkdir()
    with ExitStack() as stack:
        cold, _, warm = together(stack, [tmp_path / f"cold{n}" for n in range(3)], volume)
        installed = [one.events().count("install apps") for one in cold]
        assert sorted(installed) == [0, 0, 1] and sorted(warm) == [False, True, True], "one installs, the others wait for it"
        for one in cold:
            one.stop()
        alone, single, _ = together(stack, [tmp_path / "one"], volume)
        alone[0].stop()
        _, all_three, warm = together(stack, [tmp_path / f"three{n}" for n in range(3)], volume)
        print(f"one {single} s, the slowest of three {all_three} s: {all_three / single:.2f}")
        assert warm == [True] * 3 and single > BOOT_S and all_three <= 1.3 * single, (single, all_three)

"""Several emulators that start from one prepared phone: they boot side by side, and of many cold ones one installs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import servers

BOOT_S, MOST_BOOT_S = 3.0, 60.0
"""How long the stand-in boots, all of it waiting, as most of a real emulator's restore from a snapshot is."""
WORK = 10
"""It waits so many times as long as this machine works at a boot: three that boot at once share its processors, and that is not
what is measured."""


def container(folder, volume, boot_s):
    """One container: a disk of its own, the volume in common."""
    folder.mkdir()
    return servers.StandinServer("ours", folder / "phone", STANDIN_VOLUME=str(volume), STANDIN_BOOT_S=str(boot_s))


def together(stack, folders, volume, boot_s):
    """(servers, the longest of their boots in seconds, as they measured it) of containers that are started at once."""
    made = [container(folder, volume, boot_s) for folder in folders]
    for one in made:
        stack.callback(one.stop)
    with ThreadPoolExecutor(len(made)) as threads:
        list(threads.map(servers.StandinServer.start, made))
    health = [httpx.get(f"{one.url}/health", timeout=10, trust_env=False, verify=False).json() for one in made]
    for one in made:
        one.stop()
    return made, max(one["boot_s"] for one in health), [one["warm"] for one in health]


def test_the_second_start_of_three_takes_hardly_longer_than_that_of_one(tmp_path):
    volume = tmp_path / "volume"
    volume.mkdir()
    with ExitStack() as stack:
        cold, _, warm = together(stack, [tmp_path / f"cold{n}" for n in range(3)], volume, 0.0)
        installed = [one.events().count("install apps") for one in cold]
        assert sorted(installed) == [0, 0, 1] and sorted(warm) == [False, True, True], "one installs, the others wait for it"
        _, work, _ = together(stack, [tmp_path / "none"], volume, 0.0)
        boot_s = min(max(BOOT_S, WORK * work), MOST_BOOT_S)
        _, single, _ = together(stack, [tmp_path / "one"], volume, boot_s)
        _, all_three, warm = together(stack, [tmp_path / f"three{n}" for n in range(3)], volume, boot_s)
        print(f"one {single} s ({work} s of work), the slowest of three {all_three} s: {all_three / single:.2f}")
        assert warm == [True] * 3 and single > boot_s and all_three <= 1.3 * single, (work, single, all_three)

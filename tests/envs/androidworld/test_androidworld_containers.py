"""Emulator containers of a run: several at once, one that dies, none left behind.  The image is ours, the phone in it a stand-in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import servers
from test_androidworld_image import NAMES, image, standin_inside

from envs import actions as act
from envs import containers
from envs.androidworld.env import AndroidWorldEnv
from envs.androidworld.providers import PORT, OurProvider
from envs.androidworld.suite import make_spec
from envs.containers import ContainerSpec
from envs.errors import InfrastructureError

pytestmark = pytest.mark.docker
__all__ = ["image"]

WIFI_OFF = ((18, 24), (50, 16), (50, 18))


class StandinProvider(OurProvider):
    """Our provider with the stand-in phone for an emulator, which needs no KVM and no prepared device."""

    boot_seconds = servers.START_SECONDS

    def spec(self) -> ContainerSpec:
        command, folders, environment = standin_inside(PORT)
        return ContainerSpec(
            image=NAMES[1], mend="", ports=(PORT,), init=True, command=command, environment=environment, read_only_files=folders
        )


@pytest.fixture
def provider(image, ledger, tmp_path):
    made = StandinProvider("android-tests", ledger=ledger, log_dir=tmp_path / "logs")
    yield made
    made.close()


def solve(env):
    env.reset(options={"task": make_spec("android_world", "SystemWifiTurnOff", 30)})
    for x, y in WIFI_OFF:
        env.step(act.Click(x * 1.8, y * 4.0))
    return env.step(act.Finished())[1]


def test_two_workers_a_death_and_nothing_left(provider, ledger):
    envs = [AndroidWorldEnv(provider=provider, screen=(180, 400), settle="none") for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(solve, envs)) == [1.0, 1.0]
    rows = [row for row in containers.ls(ledger) if row.owner.run == "android-tests"]
    assert len(rows) == 2 and len({row.container.ports[PORT] for row in rows}) == 2 and all(row.ours for row in rows)

    dead = provider._containers[envs[0].device]
    assert dead.execute(["id", "-u"], 20) == (0, b"1000\n", b"")
    assert dead.execute(["sleep", "60"], 1)[0] == 124, "bounded inside, where the engine would wait"
    envs[0].reset(options={"task": make_spec("android_world", "SystemWifiTurnOff", 30)})
    dead.remove()
    with pytest.raises(InfrastructureError, match="is gone") as caught:
        envs[0].step(act.Click(1, 1))
    assert caught.value.component == "container"
    assert solve(envs[0]) == 1.0, "another emulator took its place"
    assert solve(envs[1]) == 1.0
    for env in envs:
        env.close()
    provider.close()
    provider.close()
    assert not [row for row in containers.ls(ledger) if row.owner.run == "android-tests"]

"""Episodes on devices from containers, without an engine: used again, replaced when they fail, scored when an end was declared."""

from __future__ import annotations

import numpy as np
import pytest
from fake_devices import FakeContainer, FakeProvider
from gymnasium.utils.env_checker import check_env

from envs import actions as act
from envs.androidworld import providers
from envs.androidworld.device import Look
from envs.androidworld.env import AndroidWorldEnv
from envs.androidworld.suite import make_spec
from envs.errors import InfrastructureError


def environment(provider, **options) -> AndroidWorldEnv:
    return AndroidWorldEnv(provider=provider, screen=(20, 40), settle="none", **options)


def reset(env, name="SystemWifiTurnOff", family="android_world"):
    return env.reset(options={"task": make_spec(family, name, 30)})


def test_an_emulator_is_used_again_and_outlives_the_environment():
    provider = FakeProvider()
    for _ in range(3):
        env = environment(provider)
        reset(env)
        env.close()
        env.close()
    assert provider._pool.booted == 1 and provider._pool.removed == 0


def test_a_task_that_cannot_be_initialised_does_not_cost_the_emulator():
    provider = FakeProvider()
    env = environment(provider)
    reset(env)
    env.device.fails = InfrastructureError("no such table", component="task")
    for _ in range(5):
        with pytest.raises(InfrastructureError, match=r"no such table.*kept"):
            reset(env)
    assert provider._pool.booted == 1


@pytest.mark.parametrize("how", ["sick", "worn", "container"])
def test_an_emulator_that_failed_is_replaced(how, monkeypatch):
    provider = FakeProvider()
    env = environment(provider)
    reset(env)
    device = env.device
    device.fails = InfrastructureError("stalled", component="emulator")
    if how == "sick":
        device.sick = "it does not answer"
    if how == "container":
        monkeypatch.setattr(FakeContainer, "state", "exited")
    for _ in range(providers.STRIKES if how == "worn" else 1):
        with pytest.raises(InfrastructureError):
            reset(env)
    monkeypatch.setattr(FakeContainer, "state", "running")
    reset(env)
    assert env.device is not device and device.closed and (provider._pool.booted, provider._pool.removed) == (2, 1)


def test_failures_with_graded_episodes_between_them_are_not_in_a_row():
    """A device is only given back without a failure when its environment is closed: its failures of a whole run were counted."""
    provider = FakeProvider()
    env = environment(provider)
    for _ in range(2 * providers.STRIKES):
        reset(env)
        assert env.step(act.Finished())[2]
        env.device.fails = InfrastructureError("stalled", component="emulator")
        device = env.device
        with pytest.raises(InfrastructureError):
            reset(env)
        device.fails = None
    assert provider._pool.booted == 1


def test_a_page_of_the_miniwob_family_ends_the_episode_itself():
    env = environment(FakeProvider())
    reset(env, "click-test", "miniwob")
    assert env.step(act.Click(1, 1))[2] is False
    env.device.done, env.device.scored = True, 1.0
    _, reward, terminated, _, info = env.step(act.Click(1, 1))
    assert (reward, terminated, info["ended_by"]) == (1.0, True, "environment")


def test_only_a_declared_end_is_scored_and_an_infeasible_one_is_declared():
    env = environment(FakeProvider())
    for last, expected in ((act.Finished(), 1.0), (act.Fail("cannot"), 1.0), (act.Wait(), 0.0)):
        reset(env)
        env.device.scored = 1.0
        for _ in range(9):
            env.step(act.Wait())
        assert env.step(last)[1] == expected


@pytest.mark.parametrize("accessibility", [False, True])
def test_a_turned_screen_turns_both_spaces(accessibility):
    """Its picture was outside of the observation space, which Gymnasium's wrappers and learners size their buffers by."""
    env = environment(FakeProvider(), accessibility=accessibility)
    upright = env.observation_space
    assert reset(env)[0] in upright
    env.device.look = lambda **asked: Look(np.zeros((20, 40, 3), np.uint8), "[]" if accessibility else None)
    turned = env.step(act.Wait())[0]
    assert turned in env.observation_space and turned not in upright
    assert set(env.observation_space) == set(upright)
    assert env.step(act.Click(39, 19))[4] == {} and "invalid" in env.step(act.Click(19, 39))[4]
    del env.device.look
    assert reset(env)[0] in env.observation_space and env.observation_space == upright
    env.device.look = lambda **asked: Look(np.zeros((21, 40, 3), np.uint8))
    with pytest.raises(InfrastructureError, match="40x21"):
        env.step(act.Wait())


@pytest.mark.filterwarnings("error")
def test_gymnasium_has_nothing_to_complain_about():
    check_env(environment(FakeProvider()), skip_render_check=True)

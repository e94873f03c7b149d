"""The environment over both servers, with the stand-in phone: scoring, answers, retries, bad tasks, what an agent may do."""

from __future__ import annotations

import gymnasium
import httpx
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs import actions as act
from envs.androidworld.addresses import AddressProvider
from envs.androidworld.env import AndroidWorldEnv
from envs.androidworld.suite import make_spec
from envs.errors import InfrastructureError, UsageError

WIFI_OFF = ((18, 24), (50, 16), (50, 18))
"""Settings, its first row, the switch; in hundredths of the screen."""


@pytest.fixture(params=["ours", "small_upstream"])
def server(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def env(server):
    made = make(server)
    yield made
    made.close()


def make(server, **options) -> AndroidWorldEnv:
    return AndroidWorldEnv(provider=f"127.0.0.1:{server.port}", screen=server.size, **({"settle": "none"} | options))


def start(env, name, seed=30, index=0):
    return env.reset(options={"task": make_spec("android_world", name, seed, index)})


def at(env, x, y, kind=act.Click):
    return kind(x * env.action_space.width / 100, y * env.action_space.height / 100)


def taps(env, *points):
    for point in points:
        assert env.step(at(env, *point))[4] == {}


# -- the contract ------------------------------------------------------------------------------------------------------------------
def test_check_env(ours):
    made = make(ours, accessibility=True)
    try:
        check_env(made, skip_render_check=True)
    finally:
        made.close()
        made.close()


def test_by_its_name_in_gymnasium(ours):
    made = gymnasium.make("agentlab/androidworld-v0", provider=f"127.0.0.1:{ours.port}", screen=ours.size, settle="none")
    seen, info = made.reset(seed=0)
    assert seen["screenshot"].shape == (400, 180, 3) and info["instruction"]
    assert made.step(act.Finished())[2] is True
    made.close()


def test_a_task_done_and_declared_scores_and_its_retry_starts_where_it_started(env):
    first, info = start(env, "SystemWifiTurnOff")
    assert info["instruction"] == "Turn wifi off."
    taps(env, *WIFI_OFF)
    _, reward, terminated, truncated, info = env.step(act.Finished())
    assert (reward, terminated, truncated, info["score"], info["ended_by"]) == (1.0, True, False, 1.0, "finished")
    again, info = start(env, "SystemWifiTurnOff")
    assert info["instruction"] == "Turn wifi off." and np.array_equal(first["screenshot"], again["screenshot"])
    assert env.step(act.Finished())[1] == 0.0, "the switch is back where it was"


def test_done_but_not_declared_within_the_budget_is_not_solved(env):
    start(env, "SystemWifiTurnOff")
    taps(env, *WIFI_OFF)
    for _ in range(6):
        assert not any(env.step(at(env, 50, 99))[2:4])
    _, reward, terminated, truncated, info = env.step(at(env, 50, 99))
    assert (reward, terminated, truncated, info["ended_by"]) == (0.0, False, True, "budget")


def test_declared_at_the_last_step_counts(env):
    start(env, "SystemWifiTurnOff")
    taps(env, *WIFI_OFF)
    for _ in range(6):
        env.step(at(env, 50, 99))
    assert env.step(act.Finished())[1:4] == (1.0, True, False)


# -- answers -----------------------------------------------------------------------------------------------------------------------
def answer_of(ours, name, seed=30):
    query = {"family": "android_world", "task": name, "seed": seed, "index": 0}
    return httpx.get(f"{ours.url}/task", params=query, timeout=60).json()["params"]["task_title"]


def test_the_text_of_finished_is_the_answer(env, ours):
    right = answer_of(ours, "TasksHighPriorityTasks")
    start(env, "TasksHighPriorityTasks")
    assert env.step(act.Finished(right))[1] == 1.0
    start(env, "TasksHighPriorityTasks")
    assert env.step(act.Finished("something else"))[1] == 0.0, "an answer of the attempt before is forgotten"
    start(env, "TasksHighPriorityTasks")
    assert env.step(act.Finished())[1] == 0.0


def test_an_answer_given_before_is_not_overwritten_by_closing_words(env, ours):
    start(env, "TasksHighPriorityTasks")
    env.step(act.Answer(answer_of(ours, "TasksHighPriorityTasks")))
    assert env.step(act.Finished("I have answered the question."))[1] == 1.0


def test_the_text_of_finished_need_not_be_an_answer(ours):
    env = make(ours, finished_answers=False)
    start(env, "TasksHighPriorityTasks")
    assert env.step(act.Finished(answer_of(ours, "TasksHighPriorityTasks")))[1] == 0.0
    env.close()


def test_an_information_retrieval_task_that_rewords_itself_has_one_goal_on_every_attempt(env):
    goals = {start(env, "TasksDueOnDate")[1]["instruction"] for _ in range(3)}
    assert len(goals) == 1 and "{" not in goals.pop()


def test_a_task_with_the_time_of_its_making_in_it_is_the_same_on_a_retry(env):
    try:
        goals = {start(env, "MarkorCreateFolder")[1]["instruction"] for _ in range(2)}
    except InfrastructureError as error:
        pytest.fail(str(error))
    assert len(goals) == 1


def test_an_attempt_can_start_from_the_emulators_snapshot(ours, small_upstream):
    env = make(ours, restore="attempt")
    start(env, "SystemWifiTurnOff")
    taps(env, *WIFI_OFF)
    assert env.step(act.Finished())[1] == 1.0
    start(env, "SystemWifiTurnOff")
    assert env.step(act.Finished())[1] == 0.0
    env.close()
    env = make(small_upstream, restore="attempt")
    with pytest.raises(UsageError, match="cannot restore"):
        start(env, "SystemWifiTurnOff")
    env.close()


def test_the_screen_comes_to_rest_before_it_is_shown(ours):
    env = make(ours, settle="stable")
    seen, _ = start(env, "SystemWifiTurnOff")
    assert np.array_equal(seen["screenshot"], env.device.look(tree=False, settle=False).screenshot)
    env.close()


# -- machinery and mistakes --------------------------------------------------------------------------------------------------------
def test_a_task_that_cannot_be_initialised_is_a_failure_of_the_machinery_and_only_that(env):
    for _ in range(4):
        with pytest.raises(InfrastructureError) as caught:
            start(env, "RetroPlayingQueue")
        assert caught.value.component == "task"
        with pytest.raises(UsageError):
            env.step(act.Finished())
    start(env, "SystemWifiTurnOff")
    taps(env, *WIFI_OFF)
    assert env.step(act.Finished())[1] == 1.0


def test_another_goal_on_a_retry_is_a_failure_of_the_machinery(server):
    provider = AddressProvider(f"127.0.0.1:{server.port}")
    env = AndroidWorldEnv(provider=provider, screen=server.size, settle="none")
    start(env, "SystemWifiTurnOff")
    provider.goals = dict.fromkeys(provider.goals, "Something else.")
    with pytest.raises(InfrastructureError, match="another goal"):
        start(env, "SystemWifiTurnOff")
    env.close()
    provider.close()


def test_what_a_device_cannot_do_costs_a_step_and_nothing_else(env):
    start(env, "SystemWifiTurnOff")
    refused = [
        act.OpenApp("Wallet"),
        act.OpenApp("\ud800"),
        act.Type(""),
        act.Hotkey(("hyper",)),
        act.Click(-1, 5),
        act.Type("\x00"),
    ]
    for action in refused:
        _, reward, terminated, truncated, info = env.step(action)
        assert info["invalid"] and not (reward or terminated or truncated)
    for action in (act.OpenApp("Contacts"), act.PressHome()):
        assert "invalid" not in env.step(action)[4]


def test_unicode_is_typed_by_ours_and_refused_by_upstream_which_would_drop_it(env, server):
    start(env, "ContactsAddContact")
    taps(env, (40, 24), (87, 90))
    before = env.step(act.Wait())[0]["screenshot"]
    after, *_, info = env.step(act.Type("Zoë 王"))
    assert ("invalid" in info) == (server.kind == "upstream")
    assert np.array_equal(before, after["screenshot"]) == (server.kind == "upstream")


def test_upstreams_picture_is_ours_but_for_the_line_that_only_we_switch_off(ours, upstream):
    pictures = []
    for one in (ours, upstream):
        env = make(one)
        pictures.append(start(env, "SystemWifiTurnOff")[0]["screenshot"])
        env.close()
    line = pictures[0].shape[0] // 50
    assert np.array_equal(*(picture[line:] for picture in pictures)) and not np.array_equal(*pictures)


def test_a_wrong_screen_and_too_many_environments_are_told(ours):
    env = AndroidWorldEnv(provider=f"127.0.0.1:{ours.port}", screen=(1080, 2400), settle="none")
    with pytest.raises(UsageError, match=r"180x400.*1080x2400.*screen=\[180,400\]"):
        start(env, "SystemWifiTurnOff")
    env.close()
    provider = AddressProvider(f"127.0.0.1:{ours.port}")
    first, second = (AndroidWorldEnv(provider=provider, screen=ours.size, settle="none") for _ in range(2))
    start(first, "SystemWifiTurnOff")
    with pytest.raises(InfrastructureError, match="in use"):
        start(second, "SystemWifiTurnOff")
    first.close()
    start(second, "SystemWifiTurnOff")
    second.close()

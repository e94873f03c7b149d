"""The accessibility tree of a desktop: one that an application keeps from being read is empty, one of a broken guest is a failure."""

from __future__ import annotations

import json

import pytest
from standin import SIZE

from envs import actions as act
from envs.base import MAX_TREE
from envs.errors import InfrastructureError
from envs.osworld import client
from envs.osworld.env import OSWorldEnv


@pytest.fixture
def env(running):
    made = OSWorldEnv(provider=f"address:{running.port}", screen=SIZE, timing="brisk", accessibility=True)
    yield made
    made.close()


def tree(env):
    observation = env.step(act.Hover(5.0, 5.0))[0]
    assert observation in env.observation_space
    return observation["accessibility_tree"]


def test_an_application_that_hangs_does_not_void_the_attempt(env, running):
    """It is the agent's doing, and the guest says so: HTTP 500."""
    assert env.reset(seed=0)[0]["accessibility_tree"] == "<desktop-frame/>"
    running.fail["/accessibility"] = [500] * 3
    assert tree(env) == ""
    assert tree(env) == "<desktop-frame/>"


def test_a_guest_that_has_waited_for_it_is_not_asked_again(env, running, monkeypatch):
    env.reset(seed=0)
    monkeypatch.setattr(client, "HANGS_SECONDS", 0.0)
    running.fail["/accessibility"], before = [500], running.asked.count("/accessibility")
    assert tree(env) == "" and running.asked.count("/accessibility") == before + 1


@pytest.mark.parametrize(("failures", "bus"), [([500] * 3, "no bus"), (["drop"] * 3, "there"), ([500, 500, "drop"], "there")])
def test_a_guest_that_is_broken_does(env, running, failures, bus):
    env.reset(seed=0)
    running.fail["/accessibility"], running.probe["pyatspi"] = failures, bus
    with pytest.raises(InfrastructureError, match="accessibility"):
        tree(env)


def test_a_desktop_without_a_tree_has_an_empty_one(env, running):
    running.answers["/accessibility"] = b'{"AT": null, "status": "success"}'
    assert env.reset(seed=0)[0]["accessibility_tree"] == ""


def test_of_a_tree_larger_than_its_space_the_middle_is_left_out(env, running):
    """That of a spreadsheet of some ten thousand cells was outside of the observation space."""
    long = "<desktop-frame>" + "<cell/>" * 200_000 + "</desktop-frame>"
    running.answers["/accessibility"] = json.dumps({"AT": long}).encode()
    observation = env.reset(seed=0)[0]
    cut = observation["accessibility_tree"]
    assert observation in env.observation_space and len(cut) <= MAX_TREE
    assert (
        cut.startswith("<desktop-frame><cell/>")
        and cut.endswith("<cell/></desktop-frame>")
        and "characters or more left out" in cut
    )

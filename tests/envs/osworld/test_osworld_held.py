"""Keys and buttons that an attempt holds: let go before a guest that is not thrown away is given back."""

from __future__ import annotations

import json

import pytest
from standin import SIZE

from envs import actions as act
from envs.errors import InfrastructureError
from envs.osworld.env import OSWorldEnv

LET_GO = [{"op": "release", "button": 1}, {"op": "free", "keysyms": ["Shift_L", "U0061"]}]


@pytest.fixture
def env(running):
    made = OSWorldEnv(provider=f"address:{running.port}", screen=SIZE, timing="brisk")
    yield made
    made.close()


def hold(env):
    env.step((act.KeyDown(("shift", "a", "b")), act.KeyUp(("b",)), act.MouseDown(5.0, 5.0)))


@pytest.mark.parametrize("ends", ["reset", "close"])
def test_what_an_attempt_holds_is_let_go_when_it_is_over(env, running, ends):
    """The next attempt at this desktop, and its user, had Shift down."""
    env.reset(seed=0)
    hold(env)
    running.operations.clear()
    env.reset(seed=0) if ends == "reset" else env.close()
    assert running.operations == LET_GO
    env.close()
    assert running.operations == LET_GO, "once"


def test_an_attempt_that_holds_nothing_asks_nothing_of_the_guest(env, running):
    env.reset(seed=0)
    env.step((act.KeyDown(("a",)), act.KeyUp(("a",)), act.Drag(5.0, 5.0, 9.0, 9.0), act.LongPress(5.0, 5.0)))
    running.operations.clear()
    env.reset(seed=0)
    assert running.operations == []


def test_so_is_what_an_action_that_broke_off_may_have_pressed(env, running):
    env.reset(seed=0)
    env.step(act.Hover(5.0, 5.0))
    running.fail["/agentlab/input"] = [500]
    with pytest.raises(InfrastructureError):
        env.step(act.Drag(5.0, 5.0, 9.0, 9.0))
    running.operations.clear()
    env.reset(seed=0)
    assert running.operations == LET_GO[:1]


def test_a_guest_with_another_server_lets_go_too(env, running):
    commands = []
    running.execute = lambda command: commands.append(command) or ""
    env.reset(seed=0)
    running.fail["/agentlab/input"] = [404] * 10
    hold(env)
    commands.clear()
    env.close()
    assert [json.loads(command[3]) for command in commands] == [LET_GO]


def test_a_guest_that_is_gone_is_no_second_failure(env, running):
    env.reset(seed=0)
    hold(env)
    running.fail["/agentlab/input"] = ["drop"] * 10
    env.close()
    env.close()

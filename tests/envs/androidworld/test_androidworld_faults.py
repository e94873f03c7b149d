"""Ways for the machinery to fail, over both servers: no reward from a failure, no wait without end, nothing lost.

Fifty of them in every test run; ``AGENTLAB_FAULTS=all`` injects every kind on every route, a hundred.
"""

from __future__ import annotations

import itertools
import os
import time
from contextlib import contextmanager

import faults
import pytest

from envs import actions as act
from envs.androidworld import ours as our_client
from envs.androidworld import upstream as upstream_client
from envs.androidworld.env import AndroidWorldEnv
from envs.androidworld.suite import make_spec
from envs.errors import InfrastructureError, UsageError

TASK = "SystemWifiTurnOff"
WIFI_OFF = ((18, 24), (50, 16), (50, 18))
STALL = 3600.0
PATIENCE = 2.0
"""What the stalled route is given in these tests, instead of a minute or more."""

OUR_ROUTES = ("/task/initialize", "/screenshot", "/step", "/task/score")
UPSTREAM_FAULTS = (
    ("/suite/reinitialize", "error500"), ("/suite/reinitialize", "refuse"), ("/suite/reinitialize", "html"),
    ("/task/initialize", "error500"), ("/task/initialize", "refuse"), ("/task/initialize", "stall"),
    ("/reset", "malformed"), ("/task/goal", "wrong_shape"), ("/task/goal", "empty"),
    ("/screenshot", "truncate"), ("/screenshot", "malformed"), ("/screenshot", "stall"), ("/screenshot", "wrong_shape"),
    ("/execute_action", "error500"), ("/execute_action", "refuse"), ("/execute_action", "stall"),
    ("/task/score", "error500"), ("/task/score", "malformed"), ("/task/score", "wrong_shape"), ("/task/score", "refuse"),
)  # fmt: skip
if os.environ.get("AGENTLAB_FAULTS") == "all":  # a hundred of them: some minutes more
    UPSTREAM_FAULTS = tuple(itertools.product(dict.fromkeys(route for route, _ in UPSTREAM_FAULTS), faults.KINDS))


@contextmanager
def environment(server, port):
    env = AndroidWorldEnv(provider=f"127.0.0.1:{port}", screen=server.size, settle="none")
    try:
        yield env
    finally:
        env.close()


def episode(env, *, solve):
    """The reward of one attempt at switching Wi-Fi off."""
    env.reset(options={"task": make_spec("android_world", TASK, 30)})
    if solve:
        for x, y in WIFI_OFF:
            env.step(act.Click(x * env.action_space.width / 100, y * env.action_space.height / 100))
    return env.step(act.Finished())[1]


def spoiled(server, client, kind, route, monkeypatch):
    """One episode into which one fault is injected: it must fail as machinery, in bounded time, and leave nothing behind."""
    with faults.FaultProxy(server.port) as proxy:
        with environment(server, proxy.port) as env, monkeypatch.context() as patch:
            proxy.inject(kind, path=route, seconds=STALL)
            if kind == "stall":
                patch.setitem(client.SECONDS, route, PATIENCE)
            started = time.monotonic()
            with pytest.raises(InfrastructureError) as caught:
                episode(env, solve=True)
            assert time.monotonic() - started < 120
            assert [one for one, _ in proxy.injected] == [kind] and caught.value.component != "unknown"
            with pytest.raises(UsageError):
                env.step(act.Finished())
        # Past the proxy, which drops a stalled request when it is closed: the device itself has nothing left of it.
        with environment(server, server.port) as env:
            assert episode(env, solve=False) == 0.0
            assert episode(env, solve=True) == 1.0


@pytest.mark.parametrize("route", OUR_ROUTES)
@pytest.mark.parametrize("kind", faults.KINDS)
def test_a_fault_before_our_server(ours, monkeypatch, kind, route):
    spoiled(ours, our_client, kind, route, monkeypatch)


@pytest.mark.parametrize(("route", "kind"), UPSTREAM_FAULTS)
def test_a_fault_before_upstreams_server(small_upstream, monkeypatch, kind, route):
    spoiled(small_upstream, upstream_client, kind, route, monkeypatch)


def test_at_least_fifty_faults_are_injected_here():
    assert len(OUR_ROUTES) * len(faults.KINDS) + len(UPSTREAM_FAULTS) >= 50


@pytest.mark.parametrize("which", ["ours", "small_upstream"])
@pytest.mark.parametrize("task", [TASK, "TasksHighPriorityTasks"])
def test_an_emulator_that_dies_before_scoring_is_no_failed_task(request, which, task):
    """Upstream's checks call some tasks not done without a look at the device (here: one without an answer)."""
    server = request.getfixturevalue(which)
    with environment(server, server.port) as env:
        env.reset(options={"task": make_spec("android_world", task, 30)})
        observe = env._observe

        def die():
            seen = observe()
            server.control(dead=True)
            return seen

        env._observe = die
        started = time.monotonic()
        try:
            with pytest.raises(InfrastructureError):
                env.step(act.Finished())
        finally:
            server.control()
        assert time.monotonic() - started < 200
    server.wait_until_ready()
    with environment(server, server.port) as env:
        assert episode(env, solve=True) == 1.0


@pytest.mark.parametrize("which", ["ours", "small_upstream"])
def test_a_killed_server_voids_the_attempt_and_nothing_else(request, which):
    server = request.getfixturevalue(which)
    with environment(server, server.port) as env:
        env.reset(options={"task": make_spec("android_world", TASK, 30)})
        server.kill()
        with pytest.raises(InfrastructureError):
            env.step(act.Click(1, 1))
        server.start()
        assert episode(env, solve=True) == 1.0, "the same environment goes on"
        env.reset(options={"task": make_spec("android_world", TASK, 30)})
        server.kill()
        server.start()
        with pytest.raises(InfrastructureError):
            env.step(act.Finished())  # the new process knows nothing of the attempt: no score

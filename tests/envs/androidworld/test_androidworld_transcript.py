"""What upstream's server was recorded to answer: the client reads it, and the server of these tests answers the same."""

from __future__ import annotations

import json

import httpx
import numpy as np
import pytest
import servers
import transcript

from envs.androidworld.device import Instance
from envs.androidworld.upstream import UpstreamDevice
from envs.errors import InfrastructureError

OTHERWISE = {"openapi (truncated)", "click by index with empty ui_elements -> ValueError 500"}
"""Not compared: the recorded server had nothing on its screen, and its description of itself has names of upstream's functions."""
DRAWN = "/task/goal"
"""Goals of instances are drawn by upstream's package; compared only where that is installed."""


@pytest.fixture(scope="module")
def exchanges():
    return transcript.read()


def test_the_transcript_is_read_whole(exchanges):
    assert len(exchanges) > 60 and {one.status for one in exchanges} == {200, 400, 404, 422, 500}
    assert sum(one.whole for one in exchanges) > 50


def test_the_server_of_these_tests_answers_as_upstreams_did(exchanges, tmp_path):
    """In the recorded order, since most answers depend on the requests before; bodies to the byte."""
    once = httpx.Limits(max_keepalive_connections=0)  # after a 500 the server hangs up
    with (
        servers.StandinServer("upstream", tmp_path / "phone") as server,
        httpx.Client(base_url=server.url, timeout=120, trust_env=False, limits=once) as client,
    ):
        for one in exchanges:
            if one.title in OTHERWISE or one.route == "/screenshot":
                continue
            headers = {"Content-Type": "application/json"} if one.sent else {}
            reply = client.request(one.method, one.target, content=one.sent or None, headers=headers)
            assert (reply.status_code, reply.headers["content-type"]) == (one.status, one.content_type), one
            if one.whole and (one.route != DRAWN or servers.python() or one.status != 200):
                assert reply.text == one.answer, one


def test_a_picture_is_nested_rows_of_pixels(small_upstream):
    with httpx.Client(base_url=small_upstream.url, timeout=120) as client:
        assert client.get("/screenshot").status_code == 422
        pixels = client.get("/screenshot", params={"wait_to_stabilize": False}).json()["pixels"]
    width, height = small_upstream.size
    assert np.asarray(pixels).shape == (height, width, 3) and all(isinstance(one, int) for one in pixels[0][0])


def played(exchanges, *titles):
    """A player of the exchanges of these titles."""
    chosen = [next(one for one in exchanges if one.title == title) for title in titles]
    return transcript.Player(chosen)


ATTEMPT = ("reinitialize", "initialize", "reset (query param, required)", "goal unchanged")


def test_the_client_plays_an_attempt_on_recorded_answers(exchanges):
    rest = (
        "click",
        "answer: stored in env.interaction_cache",
        "score (adb mocked, so validator cannot parse)",
        "tear_down",
        "health",
    )
    with played(exchanges, *ATTEMPT, *rest) as player:
        device = UpstreamDevice("127.0.0.1", player.port)
        assert device.missing() == ""
        assert (
            device.begin(Instance("android_world", "SystemBrightnessMax", 42, 0), restore=False)
            == "Turn brightness to the max value."
        )
        device.perform({"type": "tap", "x": 540, "y": 1200})
        device.answer("42")
        assert device.score() == 0.0
        device.end()
        device.close()
    task = "task_type=SystemBrightnessMax&task_idx=0"
    assert player.asked == [
        "GET /health", "GET /suite/reinitialize?n_task_combinations=1&seed=42&task_family=android_world",
        f"POST /task/initialize?{task}", "POST /reset?go_home=true", f"GET /task/goal?{task}", "POST /execute_action",
        "POST /execute_action", f"GET /task/score?{task}", "POST /reset?go_home=true", f"POST /task/tear_down?{task}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("title", "component"),
    [
        ("initialize again without tear_down -> RuntimeError (after time+snapshot restore already ran)", "task"),
        ("missing params", "task"),
        ("unknown task", "guest"),
        ("bad family", "guest"),
    ],
)
def test_a_recorded_refusal_to_begin_is_a_failure_of_the_machinery(exchanges, title, component):
    failing = next(one for one in exchanges if one.title == title)
    good = [next(one for one in exchanges if one.title == name) for name in (*ATTEMPT, "tear_down")]
    with transcript.Player([failing, *(one for one in good if one.route != failing.route)]) as player:
        device = UpstreamDevice("127.0.0.1", player.port)
        with pytest.raises(InfrastructureError, match=f"HTTP {failing.status}") as caught:
            device.begin(Instance("android_world", "SystemBrightnessMax", 42, 0), restore=False)
    assert caught.value.component == component


@pytest.mark.parametrize(
    "title", ["score before initialize -> unhandled RuntimeError", "score lost: new object is not initialized"]
)
def test_a_recorded_score_that_failed_is_no_score(exchanges, title):
    with played(exchanges, *ATTEMPT, title) as player:
        device = UpstreamDevice("127.0.0.1", player.port)
        device.begin(Instance("android_world", "SystemBrightnessMax", 42, 0), restore=False)
        with pytest.raises(InfrastructureError, match="HTTP 500") as caught:
            device.score()
    assert caught.value.component == "grader"


def test_every_action_that_upstream_was_recorded_to_refuse_is_a_failure_if_it_ever_comes_to_that(exchanges):
    """The client checks actions itself; a 500 of this route therefore says that the machinery failed."""
    refused = [one for one in exchanges if one.route == "/execute_action" and one.status != 200]
    assert len(refused) >= 10
    for one in refused:
        with transcript.Player([one]) as player, pytest.raises(InfrastructureError, match=f"HTTP {one.status}"):
            UpstreamDevice("127.0.0.1", player.port).perform({"type": "tap", "x": 1, "y": 1})


def test_every_action_that_the_client_sends_is_one_that_upstream_was_recorded_to_take(exchanges):
    from envs.androidworld.upstream import to_json_action

    taken = [json.loads(one.sent) for one in exchanges if one.route == "/execute_action" and one.status == 200 and one.sent]
    forms = {(action["action_type"], *sorted(set(action) - {"action_type"})) for action in taken}
    operations = [
        *({"type": kind, "x": 5, "y": 6} for kind in ("tap", "double_tap", "long_press")),
        {"type": "swipe", "x": 5, "y": 600, "end_x": 5, "end_y": 6, "duration_ms": 300},
        {"type": "text", "text": "hi", "submit": False}, {"type": "text", "text": "", "submit": True},
        *({"type": "key", "key": f"KEYCODE_{key}"} for key in ("HOME", "BACK", "ENTER")),
        {"type": "open_app", "name": "Contacts"},
    ]  # fmt: skip
    for operation in operations:
        action = to_json_action(operation)
        assert (action["action_type"], *sorted(set(action) - {"action_type"})) in forms, action

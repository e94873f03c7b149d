"""Our guest server when the phone, the task or the server fails: every route says so, nothing is scored, every wait ends."""

from __future__ import annotations

import threading
import time

import httpx
import pytest
import servers
from test_androidworld_attempts import connect, guest, post, refused

__all__ = ["guest"]


def test_a_task_that_cannot_be_set_up_is_a_failure_of_the_machinery(guest, ours):
    ours.control(fail="pm clear")
    error = refused(guest, "/task/initialize", 500, "task_setup_failed", task="ContactsAddContact")
    assert error["detail"]["exception"] == "AdbControllerError" and "pm clear" in error["detail"]["trace"]
    assert guest.get("/task/active").json()["attempt"] is None
    ours.control()
    attempt = post(guest, "/task/initialize", task="ContactsAddContact")["attempt"]
    ours.control(fail="content query")
    refused(guest, "/task/score", 500, "task_score_failed", attempt=attempt)
    ours.control()
    assert post(guest, "/task/score", attempt=attempt)["score"] == 0.0


def test_an_action_that_the_phone_refuses_is_not_the_agents_mistake(guest, ours):
    ours.control(fail="input tap")
    refused(guest, "/step", 500, "action_failed", actions=[{"type": "tap", "x": 5, "y": 5}])


def test_a_dead_phone_is_said_to_be_dead_by_every_route(guest, ours):
    attempt = post(guest, "/task/initialize", task="SystemWifiTurnOff")["attempt"]
    ours.control(dead=True)
    health = guest.get("/health")
    assert (health.status_code, health.json()["state"], health.json()["code"]) == (503, "dead", "device_dead")
    refused(guest, "/step", 503, "device_dead", actions=[{"type": "tap", "x": 5, "y": 5}])
    refused(guest, "/task/score", 503, "device_dead", attempt=attempt)
    for path in ("/screen", "/screenshot", "/observation"):
        assert guest.get(path).json()["error"]["code"] == "device_dead", path
    # A mistake of the caller is still one, and what needs no phone still works.
    refused(guest, "/step", 400, "bad_action", actions=[{"type": "fly"}])
    assert guest.get("/task", params={"task": "SystemWifiTurnOff"}).status_code == 200
    ours.control()
    assert guest.get("/health").json()["state"] == "ready"
    assert guest.get("/screenshot").status_code == 200


def test_no_score_of_a_dead_phone_not_even_of_a_task_that_does_not_look(guest, ours):
    attempt = post(guest, "/task/initialize", task="TasksHighPriorityTasks")["attempt"]
    ours.control(dead=True)
    refused(guest, "/task/score", 503, "device_dead", attempt=attempt)
    ours.control()
    assert post(guest, "/task/score", attempt=attempt)["score"] == 0.0


def test_a_black_screen_is_not_healthy(guest, ours):
    ours.control(blank=True)
    for path in ("/screenshot", "/observation"):
        error = guest.get(path, params={"stable": False}).json()["error"]
        assert error["code"] == "screen_blank" and "draw a mark" in error["message"]
    health = guest.get("/health")
    assert (health.status_code, health.json()["state"], health.json()["device"]["screen_drawn"]) == (503, "blank", False)
    ours.control()
    assert guest.get("/health").json()["state"] == "ready"


@pytest.fixture(scope="module")
def hasty(tmp_path_factory):
    """A server whose bounds are a twentieth, so that a stall is over soon."""
    with servers.StandinServer("ours", tmp_path_factory.mktemp("hasty") / "phone", GUEST_PATIENCE="0.05") as server:
        yield server


def test_a_stall_is_bounded_and_passes(hasty):
    with connect(hasty) as guest:
        hasty.control(stall_s=40)
        started = time.monotonic()
        assert guest.get("/screenshot").json()["error"]["code"] == "device_stalled"
        assert time.monotonic() - started < 20
        # Its thread still has the phone: everybody else is told so, health included, at once.
        assert guest.get("/screen").json()["error"]["code"] == "device_stalled"
        assert guest.get("/health").json()["state"] == "stalled"
        hasty.control()
        deadline = time.monotonic() + 30
        while guest.get("/health").status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert guest.get("/screenshot").status_code == 200


def test_a_phone_whose_adb_hangs_is_told_within_five_seconds(hasty):
    with connect(hasty) as guest:
        hasty.control(stall_s=40, adb_too=True)
        started = time.monotonic()
        health = guest.get("/health")
        assert (health.status_code, health.json()["state"]) == (503, "dead") and time.monotonic() - started < 10
        hasty.control()


def test_a_killed_server_starts_warm_and_scores_nothing_of_before(tmp_path):
    server = servers.StandinServer("ours", tmp_path / "phone")
    try:
        with connect(server.start()) as guest:
            assert guest.get("/health").json()["warm"] is False
            attempt = post(guest, "/task/initialize", task="SystemWifiTurnOffVerify")["attempt"]
            assert post(guest, "/task/score", attempt=attempt)["score"] == 1.0
            boot = guest.get("/version").json()["boot"]
        server.kill()
        with connect(server.start()) as guest:
            assert guest.get("/health").json()["warm"] is True and guest.get("/version").json()["boot"] != boot
            refused(guest, "/task/score", 409, "no_task", attempt=attempt)
            post(guest, "/task/initialize", task="SystemWifiTurnOffVerify")
        assert [event for event in server.events() if event.startswith("install")] == ["install forwarder", "install apps"]
        assert server.events() == ["start cold", "install forwarder", "install apps", "stop", "start clean", "start clean"]
    finally:
        server.stop()


def test_a_guest_whose_emulator_is_gone_says_so_and_ends(tmp_path):
    server = servers.StandinServer("ours", tmp_path / "phone", GUEST_GRACE_S="2")
    try:
        with connect(server.start()) as guest:
            server.control(gone=True)
            assert guest.get("/health").json()["state"] == "dead"
            assert guest.get("/screenshot").json()["error"]["code"] == "device_dead"
        assert server.wait(60) == 5
    finally:
        server.stop()


def test_a_phone_can_be_prepared_and_nothing_else(tmp_path):
    only = servers.StandinServer("prepare", tmp_path / "phone").start(ready=False)
    assert only.wait(servers.START_SECONDS) == 0, only.log.read_text()
    assert "install apps" in only.events()
    with servers.StandinServer("ours", tmp_path / "phone") as server, connect(server) as guest:
        assert guest.get("/health").json()["warm"] is True
        assert server.events().count("install apps") == 1


def test_applications_that_cannot_be_installed_end_the_container(tmp_path):
    server = servers.StandinServer("ours", tmp_path / "phone", GUEST_GRACE_S="5")
    server.control(fail="pm list packages")
    server.start(ready=False)
    try:
        seen = {}
        with connect(server) as guest:
            while server.exit_code() is None:
                try:
                    seen = guest.get("/health").json()
                    refusal = guest.get("/screenshot").json()["error"]["code"]
                    assert refusal == ("boot_failed" if seen["state"] == "failed" else refusal)
                except httpx.TransportError:
                    time.sleep(0.1)  # not there yet, or gone
        assert server.exit_code() == 6 and (seen["state"], seen["code"]) == ("failed", "boot_failed")
        assert "installing" in seen["detail"]
    finally:
        server.stop()


def test_two_clients_cannot_mix_their_attempts(guest):
    """Both play at once; each either gets the score of its own attempt or is told that it is over."""
    outcomes = []

    def play(task):
        attempt = guest.post("/task/initialize", json={"task": task}).json()["attempt"]
        for _ in range(3):
            reply = guest.post("/task/score", json={"attempt": attempt})
            outcomes.append((task, reply.status_code, reply.json().get("score")))

    players = [threading.Thread(target=play, args=(task,)) for task in ("SystemWifiTurnOnVerify", "SystemWifiTurnOff")]
    for player in players:
        player.start()
    for player in players:
        player.join()
    assert len(outcomes) == 6
    for task, status, score in outcomes:
        assert status == 409 or score == (1.0 if task == "SystemWifiTurnOnVerify" else 0.0)

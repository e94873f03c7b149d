"""Replays of AndroidWorld runs over both real servers and the stand-in phone, by the command that users type."""

from __future__ import annotations

import json

import in_process
import pytest

pytestmark = pytest.mark.android

TAPS = ((18, 24), (50, 16), (50, 18))
"""SystemWifiTurnOff, in hundredths of the screen."""


@pytest.fixture(params=["ours", "small_upstream"])
def server(request):
    return request.getfixturevalue(request.param)


def agentlab(*arguments):
    done = in_process.agentlab(*arguments, COLUMNS="200")
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def run(server, tmp_path):
    """One task solved as demonstrated, and declared done at the end of the demonstration."""
    width, height = server.size
    steps = [[{"kind": "click", "x": x * width / 100, "y": y * height / 100}] for x, y in TAPS]
    (tmp_path / "shown.json").write_text(json.dumps({"SystemWifiTurnOff": steps}))
    code, printed = agentlab(
        "run", "androidworld", "--provider", f"127.0.0.1:{server.port}", "--out", tmp_path / "run", "--seed", 30, "--policy", "scripted",
        "--tasks", "SystemWifiTurnOff", "--limit", 1, "--attempts", 1, "--set", f"androidworld.screen={json.dumps(server.size)}",
        "--set", "androidworld.settle=none", "--set", f"androidworld.demonstrations={tmp_path / 'shown.json'}",
    )  # fmt: skip
    assert code == 0, printed
    (row,) = map(json.loads, (tmp_path / "run/results.jsonl").read_text().splitlines())
    assert row["score"] == 1.0
    return tmp_path / "run"


def replayed(run):
    (one,) = json.loads((run / "replay/replay.json").read_text())["attempts"]
    return one


def test_a_run_is_reproduced_and_a_tampered_tap_is_told_at_its_step(server, run):
    address = f"127.0.0.1:{server.port}"
    code, printed = agentlab("replay", run, "--provider", address)
    assert code == 0, printed
    one = replayed(run)
    steps = json.loads((run / "results.jsonl").read_text())["steps"]
    assert (one["reproduced"], one["score_replayed"], one["compared"]) == (True, 1.0, steps + 1)
    assert "env.demonstrations" in printed and f"0,0,{server.size[0]},{round(0.055 * server.size[1])}" in printed

    (path,) = run.glob("sessions/*/attempt_01/events.jsonl")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    second = [event for event in events if event["event"] == "step"][1]
    second["actions"][0].update(x=server.size[0] * 0.5, y=server.size[1] * 0.9)
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    code, printed = agentlab("replay", run, "--provider", address, "--patience", 0)
    assert code == 1, printed
    one = replayed(run)
    assert (one["diverged_after"], one["score_recorded"], one["score_replayed"]) == (2, 1.0, 0.0)


def test_without_a_provider_the_recorded_address_is_not_called(run):
    code, printed = agentlab("replay", run)
    assert code == 3 and ("KVM" in printed or "Docker" in printed or "image" in printed), printed

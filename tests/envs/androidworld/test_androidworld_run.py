"""Whole runs over both servers and the stand-in phone, by the command that users type."""

from __future__ import annotations

import json

import faults
import pytest
from in_process import agentlab

DEMONSTRATED = {
    "SystemWifiTurnOff": ((18, 24), (50, 16), (50, 18)),
    "SystemBluetoothTurnOn": ((18, 24), (50, 24), (50, 18)),
}
"""Task -> taps that solve it, in hundredths of the screen."""


@pytest.fixture
def demonstrations(tmp_path):
    """A function: the file of demonstrations for a server's screen."""

    def write(server):
        width, height = server.size
        path = tmp_path / "demonstrations.json"
        steps = {
            name: [[{"kind": "click", "x": x * width / 100, "y": y * height / 100}] for x, y in taps]
            for name, taps in DEMONSTRATED.items()
        }
        path.write_text(json.dumps(steps))
        return path

    return write


def run(server, out, *arguments, port=None):
    """Run the command; its exit code, what it printed, and the rows it left."""
    screen = json.dumps(server.size)
    done = agentlab(
        "run", "androidworld", "--provider", f"127.0.0.1:{port or server.port}", "--out", out, "--seed", 30,
        "--set", f"androidworld.screen={screen}", "--set", "androidworld.settle=none", *arguments, COLUMNS="200",
    )  # fmt: skip
    rows = (
        [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()] if (out / "results.jsonl").exists() else []
    )
    return done.returncode, done.stdout + done.stderr, rows


@pytest.fixture(params=["ours", "small_upstream"])
def server(request):
    return request.getfixturevalue(request.param)


def test_the_scripted_policy(server, tmp_path, demonstrations):
    arguments = (
        "--policy", "scripted", "--attempts", "2", "--set", f"androidworld.demonstrations={demonstrations(server)}",
        "--tasks", "SystemWifiTurnOff,SystemBrightnessMax,RetroPlayingQueue", "--limit", "3", "--set", "infra_retries=1",
    )  # fmt: skip
    code, printed, rows = run(server, tmp_path / "run", *arguments)
    assert code == 0, printed
    found = {(row["name"], row["attempt"]): (row["outcome"], row["score"], row["reward"]) for row in rows}
    assert found == {
        ("SystemWifiTurnOff", 1): ("graded", 1.0, 1),
        ("SystemBrightnessMax", 1): ("graded", 0.0, -1),
        ("SystemBrightnessMax", 2): ("graded", 0.0, -1),
        ("RetroPlayingQueue", 1): ("infrastructure", None, None),
    }
    broken = next(row["infrastructure"] for row in rows if row["name"] == "RetroPlayingQueue")
    assert [one["component"] for one in broken] == ["task", "task"]
    code, again, same = run(server, tmp_path / "run", *arguments)
    assert code == 0 and same == rows, again


def test_the_bundled_policy_learns_by_rosa2(server, tmp_path):
    code, printed, rows = run(
        server, tmp_path / "run", "--policy", "ui-tars-nano", "--adapt", "rosa2", "--attempts", "2", "--tasks", "SystemBrightnessMax",
        "--limit", "1", "--set", "max_steps=2",
    )  # fmt: skip
    assert code == 0, printed
    assert [(row["outcome"], row["score"], row["ended_by"] != "infrastructure") for row in rows] == [("graded", 0.0, True)] * 2
    first = next((tmp_path / "run" / "sessions").iterdir()) / "attempt_01"
    assert (first / "guidance.txt").read_text().strip() and json.loads((first / "update.json").read_text())["method"] == "rosa"
    assert rows[1]["guidance_hash"] and rows[0]["adapter"]


def test_a_run_through_twenty_faults_loses_nothing_and_invents_nothing(server, tmp_path, demonstrations):
    kinds = [kind for kind in faults.KINDS if kind != "stall"]
    with faults.FaultProxy(server.port) as proxy:
        for number in range(20):
            proxy.inject(kinds[number % len(kinds)], after=9)
        code, printed, rows = run(
            server, tmp_path / "run", "--policy", "scripted", "--attempts", "2", "--limit", "3", "--set", "infra_retries=30",
            "--tasks", "SystemWifiTurnOff,SystemBluetoothTurnOn,SystemBrightnessMax",
            "--set", f"androidworld.demonstrations={demonstrations(server)}", port=proxy.port,
        )  # fmt: skip
        injected = len(proxy.injected)
    assert code == 0, printed
    assert {(row["name"], row["attempt"]): row["score"] for row in rows} == {
        ("SystemWifiTurnOff", 1): 1.0, ("SystemBluetoothTurnOn", 1): 1.0, ("SystemBrightnessMax", 1): 0.0, ("SystemBrightnessMax", 2): 0.0,
    }  # fmt: skip
    failures = sum(len(row["infrastructure"]) for row in rows)
    assert injected >= 4 and failures >= 3, (injected, failures)


def test_more_workers_than_servers_are_refused_before_anything_is_started(ours, tmp_path):
    code, printed, rows = run(ours, tmp_path / "run", "--policy", "noop", "--limit", "2", "--workers", "2", "--set", "max_steps=1")
    assert code == 2 and "Use --workers 1." in printed and not rows

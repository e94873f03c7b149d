"""Runs with several workers, runs that are killed, and what a user may get wrong, by the command that users type."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from test_androidworld_run import DEMONSTRATED, demonstrations, run

__all__ = ["demonstrations"]

TASKS = ("SystemWifiTurnOff", "SystemBluetoothTurnOn", "SystemBrightnessMax", "CameraTakePhoto", "ClockTimerEntry", "NotesIsTodo")


def scored(rows):
    return {(row["name"], row["attempt"]): row["score"] for row in rows}


EXPECTED = {(name, 1): float(name in DEMONSTRATED) for name in TASKS}


def arguments(demonstrations, server):
    return (
        "--policy", "scripted", "--attempts", "1", "--limit", str(len(TASKS)), "--tasks", ",".join(TASKS),
        "--set", f"androidworld.demonstrations={demonstrations(server)}",
    )  # fmt: skip


def test_two_workers_have_a_phone_each(ours, upstream, tmp_path, demonstrations):
    """One of either kind: both play, none plays for two, and the table is the one of a single worker."""
    before = len(ours.inputs()), len(upstream.inputs())
    provider = f"127.0.0.1:{ours.port},{upstream.port}"
    code, printed, rows = run(ours, tmp_path / "run", *arguments(demonstrations, ours), "--workers", "2", "--provider", provider)
    assert code == 0, printed
    assert scored(rows) == EXPECTED and len(rows) == len(TASKS)
    assert len(ours.inputs()) > before[0] and len(upstream.inputs()) > before[1]
    assert f"127.0.0.1:{upstream.port} is upstream's server" in printed and "picture" in printed


def test_a_run_that_is_killed_goes_on_and_loses_nothing(ours, tmp_path, demonstrations):
    out = tmp_path / "run"
    command = [
        sys.executable, "-m", "agentlab", "run", "androidworld", "--provider", f"127.0.0.1:{ours.port}", "--out", str(out), "--seed", "30",
        "--set", f"androidworld.screen={json.dumps(ours.size)}", "--set", "androidworld.settle=none", *arguments(demonstrations, ours),
    ]  # fmt: skip
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    results = out / "results.jsonl"
    deadline = time.monotonic() + 300
    while not (results.exists() and results.read_bytes().count(b"\n") >= 2):
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    lines = results.read_bytes().split(b"\n")
    finished = [line for line in lines[:-1] if line]
    code, printed, rows = run(ours, out, *arguments(demonstrations, ours))
    assert code == 0, printed
    assert scored(rows) == EXPECTED and len(rows) == len(TASKS)
    left = results.read_bytes().split(b"\n")
    assert left[: len(finished)] == finished, "what was finished is there as it was"


def test_the_plan_of_a_7b_run_says_what_is_missing(tmp_path):
    command = [
        sys.executable, "-m", "agentlab", "run", "androidworld", "--policy", "ui-tars-7b-dpo", "--adapt", "rosa2", "--seed", "30",
        "--dry-run", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"COLUMNS": "300", "DOCKER_HOST": "tcp://127.0.0.1:1"},
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert "116" in done.stdout and "OsmAndTrack_1249745677" in done.stdout and "at most 120 steps" in done.stdout
    assert "Missing here" in done.stdout + done.stderr and not (tmp_path / "run").exists()


@pytest.fixture
def website():
    """A server that is not a phone's."""
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    served.RequestHandlerClass.log_message = lambda *arguments: None
    threading.Thread(target=served.serve_forever, args=(0.05,), daemon=True).start()
    yield int(served.server_address[1])
    served.shutdown()
    served.server_close()


def test_a_server_that_is_no_phones_is_told_in_one_line(ours, tmp_path, website):
    code, printed, rows = run(ours, tmp_path / "run", "--policy", "noop", "--limit", "1", port=website)
    assert code == 7 and "does not answer like an AndroidWorld server" in printed and "--provider HOST:PORT" in printed and not rows
    assert len(printed.strip().splitlines()) == 2, printed


def test_the_wrong_screen_is_told_with_the_right_one(ours, tmp_path):
    code, printed, rows = run(
        ours, tmp_path / "run", "--policy", "noop", "--limit", "1", "--set", "androidworld.screen=[1080,2400]"
    )
    assert code == 2 and "'androidworld.screen=[180,400]'" in printed and "Traceback" not in printed and not rows


def test_a_run_in_which_nothing_could_be_attempted_fails(ours, tmp_path):
    code, printed, rows = run(
        ours, tmp_path / "run", "--policy", "noop", "--limit", "1", "--tasks", "RetroPlayingQueue", "--set", "infra_retries=0"
    )
    assert code == 7 and "--retry-infra" in printed and [row["outcome"] for row in rows] == ["infrastructure"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--tasks", "SystemWifiTurnOf"), "Did you mean 'SystemWifiTurnOff'"),
        (("--tasks", "click-test"), "has no task 'click-test'"),
        (("--provider", "ourz"), "HOST:PORT"),
        (("--provider", "127.0.0.1:5000,5000"), "HOST:PORT"),
        (("--adapt", "rosa3"), "rosa"),
    ],
)
def test_what_does_not_exist_is_told_and_nothing_is_started(given, said, tmp_path, monkeypatch, capsys):
    code, printed = in_process(monkeypatch, capsys, "--limit", "1", "--out", str(tmp_path / "run"), *given)
    assert code == 2 and said in printed and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("androidworld.scroll=sideways", "androidworld.scroll"),
        ("androidworld.skroll=finger", "Did you mean 'scroll'"),
        ("androidworld.screen=[0,1]", "androidworld.screen"),
        ("androidworld.demonstrations=/nowhere.json", "not a file of demonstrations"),
    ],
)
def test_bad_settings_are_told_without_a_traceback(setting, said, tmp_path, monkeypatch, capsys):
    code, printed = in_process(monkeypatch, capsys, "--out", str(tmp_path / "run"), "--set", setting)
    assert code == 2 and said in printed and not (tmp_path / "run").exists()


def in_process(monkeypatch, capsys, *given):
    """Exit code and output of a run that ends before anything is started."""
    from agentlab.cli import app as cli

    command = ["agentlab", "run", "androidworld", "--policy", "noop", "--provider", "127.0.0.1:1", *given]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return ended.value.code, printed.out + printed.err

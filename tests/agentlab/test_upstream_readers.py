"""What upstream's own readers make of our exports: run where checkouts of them are, e.g.

AGENTLAB_UPSTREAM=~/src pytest tests/agentlab/test_upstream_readers.py     # with ~/src/OSWorld and ~/src/android_world
"""

import importlib.util
import logging
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
from made_runs import Made, make_run, task
from typer.testing import CliRunner

from agentlab.cli.app import app

UPSTREAM = Path(os.environ.get("AGENTLAB_UPSTREAM", "/nowhere")).expanduser()
OSWORLD = UPSTREAM / "OSWorld" / "show_result.py"
ANDROIDWORLD = UPSTREAM / "android_world" / "android_world"


def exported(form, tmp_path):
    sessions = [
        (task("write a letter", domain="os"), [Made(), Made(success=True)]),
        (task("b", domain="gimp"), [Made(success=True)]),
    ]
    run = make_run(tmp_path / "run", sessions, policy="ui-tars-1.5-7b")
    done = CliRunner().invoke(app, ["export", str(run), "--format", form, "--out", str(tmp_path / form)])
    assert done.exit_code == 0, done.output
    return tmp_path / form


def imported(name, monkeypatch):
    spec = importlib.util.spec_from_file_location(f"android_world.{name}", ANDROIDWORLD / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, f"android_world.{name}", module)
    setattr(sys.modules["android_world"], name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not OSWORLD.is_file(), reason="set AGENTLAB_UPSTREAM to a folder that holds a checkout of xlang-ai/OSWorld")
def test_osworlds_show_result_counts_our_run(tmp_path):
    folder = exported("osworld", tmp_path)
    command = [sys.executable, str(OSWORLD), "--model", "ui-tars-1.5-7b", "--result_dir", str(folder)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Domain: os Runned: 1 Success Rate: 0.0 %" in told and "Domain: gimp Runned: 1 Success Rate: 100.0 %" in told
    assert "Runned: 2 Current Success Rate: 50.0 %" in told
    detailed = subprocess.run([*command, "--detailed"], capture_output=True, text=True, check=True).stdout
    assert detailed.split()[:2] == ["0.00/0", "1.0/1"]  # chrome, gimp


@pytest.mark.skipif(
    not ANDROIDWORLD.is_dir(), reason="set AGENTLAB_UPSTREAM to a folder that holds a checkout of google-research/android_world"
)
def test_androidworlds_checkpointer_reads_our_run(tmp_path, monkeypatch):
    folder = exported("androidworld", tmp_path)
    # Its package wants an emulator's libraries; the reader needs absl's log and its own names, and nothing else.
    monkeypatch.setitem(sys.modules, "absl", types.SimpleNamespace(logging=logging))
    monkeypatch.setitem(sys.modules, "android_world", types.ModuleType("android_world"))
    constants = imported("constants", monkeypatch)
    episodes = imported("checkpointer", monkeypatch).IncrementalCheckpointer(str(folder)).load()
    assert [(e["task_template"], e["is_successful"]) for e in episodes] == [("b", 1.0), ("write-a-letter", 0.0)]
    names = {value for name, value in vars(constants.EpisodeConstants).items() if name.isupper()}
    assert all(names <= set(episode) for episode in episodes)

"""A run that containers die under, and that is killed itself: the short version of ``benchmarks/osworld_faults.py``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from envs.errors import SetupError
from envs.osworld.upstream import grader_python

pytestmark = pytest.mark.docker

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "osworld_faults.py"
KINDS = ["container removed", "container paused", "runner killed"]


@pytest.mark.timeout(1800)
def test_faults_cost_time_and_nothing_else(engine, tmp_path):
    try:
        grader_python()
    except SetupError as error:
        pytest.skip(str(error))
    kinds = [*KINDS, "engine killed"] if os.environ.get("AGENTLAB_ENGINE_OURS") else KINDS
    command = [sys.executable, str(BENCHMARK), "--faults", str(len(kinds)), "--kinds", ",".join(kinds), "--spacing", "10"]
    environment = os.environ | {"PYTHONPATH": str(BENCHMARK.parents[1])}
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["faults"] == dict.fromkeys(kinds, 1)
    assert summary["violations"] == [] and sum(summary["attempts"].values()) == summary["attempts"]["graded"] > 0

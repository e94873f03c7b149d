"""What a screen of a real phone's size costs over the two servers; the clock is read by benchmarks/android_observation.py itself."""

from __future__ import annotations

import json
import sys

import servers

sys.path.insert(0, str(servers.HERE.parents[2] / "benchmarks"))

import android_observation


def test_an_observation_costs_a_fiftieth_of_upstreams_and_shows_the_same(tmp_path, monkeypatch):
    """Of processor time; that all routes show the same picture is checked inside."""
    out = tmp_path / "result.json"
    monkeypatch.setattr(sys, "argv", ["android_observation.py", "--rounds", "1", "--tries", "10", "--out", str(out)])
    android_observation.main()
    result = json.loads(out.read_text())
    assert result["upstream_to_ours"]["cpu_ms_mean"] >= android_observation.RATIO
    assert result["costs"]["ours"]["looks"] == 10 and result["costs"]["upstream"]["looks"] == 1

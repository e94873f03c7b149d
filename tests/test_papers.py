"""The papers' tables of any runs, by numbers that the test chose; and what a checkpoint that was trained says of itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from agentlab.disk.runs import read_run
from tests.agentlab.made_runs import Made, make_run, task

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

UPDATE = {"method": "rosa", "accepted": True, "seconds": 0.5, "adapter_mb": 0.25}


def test_turns_seconds_both_uplifts_costs_and_a_training_baseline(tmp_path):
    import papers

    failed, solved = Made(), Made(success=True)
    checkpoint = tmp_path / "trained"
    checkpoint.mkdir()
    (checkpoint / "training.json").write_text(json.dumps({"method": "sft", "policy": "random", "seconds": 90.0, "examples": 40}))
    frozen = make_run(tmp_path / "none", [(task("a"), [failed, failed, failed]), (task("b"), [solved])], adapt={"preset": "none"})
    learns = make_run(
        tmp_path / "rosa", [(task("a"), [Made(update=UPDATE), solved]), (task("b"), [solved])], adapt={"preset": "rosa"}
    )
    trained = make_run(tmp_path / "sft", [(task("a"), [solved]), (task("b"), [solved])], policy=str(checkpoint))
    page = papers.write([read_run(run) for run in (frozen, learns, trained)], tmp_path / "out").read_text()
    assert page.count("## miniwob · random") == 1 and len(list((tmp_path / "out").glob("*.png"))) == 2
    row = {part: next(x for x in page.split(f"### {part}")[1].splitlines() if x.startswith("| `rosa`")) for part in PARTS}
    cells = {part: [cell.strip() for cell in line.split("|")[2:-1]] for part, line in row.items()}
    assert [cell.split()[0] for cell in cells["Accuracy over turns"]] == ["2", "50.0", "100.0", "100.0"]
    assert cells["Uplift"] == ["50.0", "100.0", "1 of 1", "100.0", "+50.0", "+100.0 %"]
    assert cells["Accuracy over seconds"][-2:] == ["50.0", "100.0"]  # 15 s per attempt; the longest session of all takes 45
    assert cells["Seconds and memory"][0] == "3" and cells["Seconds and memory"][-2:] == ["0.25", "100"]
    assert cells["Training baselines"][0] == "0"
    assert "| `sft + " in page and " | 90 | 40 | " in page


PARTS = ("Accuracy over turns", "Accuracy over seconds", "Uplift", "Seconds and memory", "Training baselines")

"""`agentlab run miniwob --adapt …` with a policy that really learns: what a seed fixes, and which policies may adapt what."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from in_process import agentlab

from agentlab.disk.runs import read_rows

sys.path.insert(0, str(Path(__file__).parents[1] / "retrospect"))

from scripted_endpoint import Answer, ScriptedEndpoint

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("one_browser")]

PATIENCE = 300
"""Seconds; a bound, not an expectation."""


def run(folder: Path, *arguments: object, apart: bool = False) -> subprocess.CompletedProcess[str]:
    """The command, in this process, which has loaded what a model needs, or in one of its own."""
    words = [str(a) for a in ("run", "miniwob", "--out", folder, *arguments)]
    if not apart:
        return agentlab(*words)
    return subprocess.run([sys.executable, "-m", "agentlab", *words], capture_output=True, text=True, timeout=PATIENCE)


def learning(folder: Path, seed: int, attempts: int = 3, apart: bool = False) -> tuple[list[dict], list[str]]:
    """Rows and the final table of a small ROSA2 run of the bundled policy, without times, memory and the folder's name."""
    plan = (
        "--tasks",
        "grid-coordinate,visual-addition",
        "--limit",
        2,
        "--attempts",
        attempts,
        "--workers",
        1,
        "--temperature",
        0.7,
    )
    done = run(folder, "--adapt", "rosa2", "--seed", seed, *plan, apart=apart)
    assert done.returncode == 0, done.stderr
    rows = []
    for row in read_rows(folder):
        kept = {k: v for k, v in row.to_json().items() if k not in {"seconds", "hidden_seconds", "memory", "infrastructure"}}
        for part in ("update", "words"):
            if kept[part]:
                kept[part] = {k: v for k, v in kept[part].items() if "seconds" not in k and "memory" not in k}
        rows.append(kept)
    table = [line for line in done.stdout.splitlines() if not re.search("seconds|memory|machinery|directory", line)]
    return rows, table


def test_the_same_seed_gives_the_same_table_and_another_seed_another(tmp_path: Path) -> None:
    first, again, other = (
        learning(tmp_path / "a", 0),
        learning(tmp_path / "b", 0, apart=True),
        learning(tmp_path / "c", 1, attempts=1),
    )
    assert any(r["update"] and r["update"]["accepted"] for r in first[0]) and any(r["words"] for r in first[0])
    assert first == again
    assert {r["actions_hash"] for r in first[0] if r["attempt"] == 1} != {r["actions_hash"] for r in other[0]}


@pytest.mark.parametrize("method", ["textgrad", "reflexion"])
def test_a_policy_behind_an_endpoint_learns_in_words(tmp_path: Path, method: str) -> None:
    with ScriptedEndpoint(lambda request, number: Answer("Thought: here\nAction: click(start_box='(10,10)')")) as server:
        model = ("--policy", "openai:m", "--set", f"model.base_url={server.url}", "--set", "model.family=plain")
        done = run(tmp_path / "run", *model, "--adapt", method, "--tasks", "click-color", "--limit", 1, "--attempts", 2)
    assert done.returncode == 0, done.stderr
    rows = read_rows(tmp_path / "run")
    assert [r.attempt for r in rows] == [1, 2] and rows[1].guidance_hash and not rows[0].words.error
    assert "Failed before:" in json.dumps(server.requests[-1]["messages"])
    assert "Failed before:" not in json.dumps(server.requests[0]["messages"])

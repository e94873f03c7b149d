"""Runs in upstream's layouts: every session has its own place there, and nothing is named that is not there."""

import gzip
import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import in_process
from made_runs import Made, make_run, task

from agentlab.exchange.export import export_run
from envs import actions as act

sys.path.insert(0, str(Path(__file__).parents[1] / "own"))

TWO = (("", act.Click(1.0, 2.0)), ("", act.Click(3.0, 4.0)))


def results(folder: Path) -> dict[str, float]:
    """Score by folder, as ``show_result.py`` finds them."""
    (model,) = (folder / "pyautogui/screenshot").iterdir()
    return {path.parent.relative_to(model).as_posix(): float(path.read_text()) for path in model.rglob("result.txt")}


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "traj.jsonl").read_text().splitlines()]


def test_every_session_of_a_task_has_a_folder_and_a_task_that_is_there_once_has_upstreams(tmp_path):
    again = [(replace(task("a", seed), repeat=n), [Made(seed == 2)]) for seed in (1, 2) for n in (1, 2)]
    sessions = [*again, (task("b"), [Made(True)]), (task("a", 7, domain="os"), [Made()]), (task("a_1"), [Made(True)])]
    done = export_run(make_run(tmp_path / "run", sessions, repeats=2), "osworld", tmp_path / "out")
    assert results(tmp_path / "out") == {
        "miniwob/a_1-": 0.0, "miniwob/a_1.r2": 0.0, "miniwob/a_2": 1.0, "miniwob/a_2.r2": 1.0,
        "miniwob/b": 1.0, "os/a": 0.0, "miniwob/a_1": 1.0,  # a task that is called like another one's session keeps its name
    }  # fmt: skip
    assert done.count == len(sessions) and done.left_out == []


def test_every_session_is_an_episode_of_androidworlds(tmp_path):
    sessions = [(task("a b", seed), [Made(seed == 2)]) for seed in (1, 2)] + [(task("a-b"), [Made()])]
    done = export_run(make_run(tmp_path / "run", sessions), "androidworld", tmp_path / "out")
    files = list((tmp_path / "out").iterdir())
    made = {path.name: pickle.loads(gzip.decompress(path.read_bytes())) for path in files}  # noqa: S301 - written here just now
    assert len(made) == done.count == 3 and sum(episode["is_successful"] for (episode,) in made.values()) == 1.0


def test_a_screen_that_is_missing_is_named_once_and_not_in_the_trajectory(tmp_path):
    run = make_run(tmp_path / "run", [(task("a"), [Made(True, steps=TWO)])])
    (run / "sessions/a_1/attempt_01/screens/001.webp").unlink()
    done = export_run(run, "osworld", tmp_path / "out")
    assert done.left_out == ["a_1/attempt_01: no step_1_000001.png, because that screen is missing"] and done.images == 1
    (folder,) = (path.parent for path in (tmp_path / "out").rglob("result.txt"))
    assert [line.get("screenshot_file") for line in lines(folder)] == [None, "step_2_000002.png"]


def test_a_run_of_texts_has_no_screens_and_lacks_none(tmp_path):
    ran = in_process.agentlab(
        *("run", "guessing:Guessing", "--policy", "guessing:Guesser", "--limit", "2", "--attempts", "1", "--out", tmp_path / "run")
    )
    assert ran.returncode == 0, ran.stderr
    done = in_process.agentlab("export", tmp_path / "run", "--format", "osworld", "--out", tmp_path / "out")
    assert "left out" not in done.stderr and "2 results and 0 screens written" in done.stdout
    folders = [path.parent for path in (tmp_path / "out").rglob("result.txt")]
    assert len(folders) == 2 and not list((tmp_path / "out").rglob("*.png"))
    assert not any("screenshot_file" in line for folder in folders for line in lines(folder))

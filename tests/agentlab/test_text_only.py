"""A benchmark without any picture, through everything that a run goes through."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "own"))

from guessing import GuesserSession, GuessingEnv, guessing

from agentlab.cli.app import app
from agentlab.disk.record import load_trace
from agentlab.disk.runs import read_rows
from agentlab.run.resolve import resolve
from agentlab.run.runner import Runner
from agentlab.run.session import derive_seed
from envs.errors import LabError
from retrospect.evidence import gather

TESTS = Path(__file__).parents[1] / "own"
RUN = ["run", "guessing:Guessing", "--policy", "guessing:Guesser", "--attempts", "5", "--limit", "4", "--workers", "1"]
SUITE = ["--suite", "guessing:Guessing"]


def agentlab(*arguments, code=0):
    done = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
    refused = done.exception if isinstance(done.exception, LabError) else None
    assert (refused.exit_code if refused else done.exit_code) == code, done.output or done.exception
    return str(refused) if refused else done.output


def lived(rows):
    return [(r.task, r.attempt, r.success, r.actions_hash, r.guidance_hash) for r in rows]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(a run with words that was killed and continued, the same without a kill, one that learns nothing)."""
    folder = tmp_path_factory.mktemp("runs")
    command = [
        sys.executable,
        "-m",
        "agentlab",
        *RUN,
        "--adapt",
        "textgrad",
        "--out",
        folder / "killed",
        "--set",
        "model.seconds=0.2",
    ]
    env = os.environ | {"PYTHONPATH": str(TESTS)}
    process = subprocess.Popen([str(c) for c in command], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    listed, until = folder / "killed/results.jsonl", time.monotonic() + 120
    while not listed.exists() or len(listed.read_text().splitlines()) < 3:
        assert process.poll() is None and time.monotonic() < until, process.stderr.read()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(read_rows(folder / "killed")) < 7
    done = subprocess.run([str(c) for c in command], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    agentlab(*RUN, "--adapt", "textgrad", "--out", folder / "whole")
    agentlab(*RUN, "--adapt", "none", "--out", folder / "frozen")
    return folder / "killed", folder / "whole", folder / "frozen"


def test_a_killed_run_goes_on_as_if_nothing_had_been(runs):
    killed, whole, frozen = (read_rows(run) for run in runs)
    assert lived(killed) == lived(whole)
    assert {r.seed: r.attempt for r in whole if r.success} == {0: 2, 1: 3, 2: 1, 3: 1}  # the numbers are 1, 38, 75 and 12
    assert all(r.words and not r.words.error for r in whole if not r.session_over)
    assert {r.seed: r.attempt for r in frozen if r.success} == {2: 1, 3: 1}  # who learns nothing does the same again


def test_what_was_said_is_recorded_and_learned_from(runs):
    folder = runs[1] / "sessions/guess_1/attempt_01"
    assert sorted(p.name for p in folder.iterdir()) == ["events.jsonl", "guidance.txt", "result.json", "words.json"]
    first, *_, end = map(json.loads, (folder / "events.jsonl").read_text().splitlines()[1:])
    assert first["observation"] == "Your guesses so far:" and "screen" not in first and "feedback" not in first
    assert end["observation"].splitlines()[-1] == "37: too small" and "screen" not in end
    trace = load_trace(folder)
    assert trace.feedback == "My number is not 37: that is too small." and trace.final == {"text": end["observation"]}
    told = gather(trace).to_text()
    assert "the environment said: Your guesses so far: 50: too large" in told and told.count("The user said: My number") == 1
    assert "screen" not in told
    assert "answer('37') (My number is not 37: that is too small.)" in (folder / "guidance.txt").read_text()


def test_report_and_compare(runs, tmp_path):
    assert "success@5" in agentlab("report", runs[1], "--out", tmp_path / "report", "--strips", "1")
    (strip,) = (tmp_path / "report").glob("*guess*.png")
    with Image.open(strip) as picture:
        assert picture.width > 600 and len(picture.convert("L").getcolors(256)) > 20  # there is something written on it
    assert "guess" in agentlab("compare", runs[2], runs[1], "--out", tmp_path / "compare").lower()


def test_repeats_are_sessions_of_their_own_and_extend_a_run(tmp_path):
    folder = tmp_path / "run"
    agentlab(*RUN, "--adapt", "none", "--out", folder)
    once = lived(read_rows(folder))
    said = agentlab(*RUN, "--adapt", "none", "--repeats", "3", "--out", folder)
    rows = read_rows(folder)
    assert lived([r for r in rows if r.repeat == 1]) == once, "what was there is not made again"
    assert {(r.task, r.seed, r.repeat) for r in rows} == {
        (f"guess_{seed}" + (f".r{repeat}" if repeat > 1 else ""), seed, repeat) for seed in range(4) for repeat in (1, 2, 3)
    }
    assert derive_seed(0, "guess_1") != derive_seed(0, "guess_1.r2")
    assert (
        "pass@3 and pass^3 of 4 instances" in said and "50.0% and 50.0%" in said
    )  # this one draws nothing: every repeat is the same
    assert "## Repeats" in agentlab("report", folder, "--markdown")
    assert "## Repeats" in agentlab("compare", folder, folder, "--markdown")
    agentlab(*RUN, "--adapt", "none", "--repeats", "2", "--out", folder, code=4)


def test_view_shows_texts(runs, tmp_path):
    agentlab("view", runs[1], "--export", tmp_path / "page")
    assert not list((tmp_path / "page").rglob("*.webp"))
    (session,) = (tmp_path / "page").rglob("guess_1.js")
    data = json.loads(session.read_text().split(", ", 1)[1].rsplit(")", 1)[0])
    step = data["attempts"][0]["steps"][2]
    assert step["observation"].endswith("25: too small") and not step["pictured"] and step["feedback"].startswith("My number")
    assert data["attempts"][0]["final"] == {
        "screen": None,
        "observation": step["observation"] + "\n37: too small",
        "pictured": False,
    }


def test_replay_compares_texts(runs, tmp_path):
    attempts = len(read_rows(runs[1]))
    agentlab("replay", runs[1], *SUITE, "--out", tmp_path / "replay")
    lines = json.loads((tmp_path / "replay/replay.json").read_text())["attempts"]
    assert len(lines) == attempts and all(line["reproduced"] and line["compared"] > 1 and not line["unseen"] for line in lines)
    agentlab("replay", runs[1] / "guess_1/1", *SUITE, "--set", "env.tell=false", "--out", tmp_path / "other", code=1)
    (line,) = json.loads((tmp_path / "other/replay.json").read_text())["attempts"]
    assert (line["diverged_after"], line["what"]) == (1, "line 2 of the text is '50: wrong' instead of '50: too large'")


def test_there_is_nothing_to_rescore(runs):
    assert "has none to change" in agentlab("rescore", runs[1], "--adapt", "rosa", "--policy", "guessing:Guesser", *SUITE, code=2)


@pytest.mark.parametrize("form", ["atif", "sft", "pairs"])
def test_exports_have_texts_and_no_pictures(runs, tmp_path, form):
    agentlab("export", runs[1], "--format", form, "--out", tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.webp"))
    text = "".join(p.read_text() for p in (tmp_path / "out").rglob("*.json*"))
    assert "Your guesses so far:\\n50: too large" in text and '"image"' not in text.replace('"images"', "")


def test_the_datasets_folder_is_read_by_datasets(runs, tmp_path):
    datasets = pytest.importorskip("datasets", reason="the folder is read by Hugging Face datasets (pip install datasets)")
    agentlab("export", runs[1], "--format", "datasets", "--out", tmp_path / "out")
    rows = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
    assert len(rows) == sum(r.steps for r in read_rows(runs[1])) and "screen" not in rows.column_names
    assert rows[0]["observation"] == "Your guesses so far:" and rows[0]["next_observation"].count("\n") == 1


def test_a_policy_that_needs_something_else_is_refused_at_the_start(tmp_path):
    for more in ([], ["--dry-run"]):
        said = agentlab("run", "guessing:Guessing", "--policy", "ui-tars-nano", "--out", tmp_path / "run", *more, code=2)
        assert "ui-tars-nano needs pictures; guessing gives text only" in said.replace("guessing:Guessing gives", "guessing gives")
        said = agentlab("run", "miniwob", "--policy", "guessing:Guesser", "--out", tmp_path / "run", *more, code=2)
        assert "guessing:Guesser needs text; miniwob gives pictures only" in said
    assert not (tmp_path / "run").exists()


def test_policies_of_reference_know_what_can_be_done_without_a_screen(tmp_path):
    for policy, solved in (("scripted", True), ("random", False), ("noop", False)):
        agentlab("run", "guessing:Guessing", "--policy", policy, "--limit", 2, "--attempts", 1, "--out", tmp_path / policy)
        rows = read_rows(tmp_path / policy)
        assert [r.success for r in rows] == [solved] * 2 and all(r.outcome == "graded" for r in rows)


def test_what_the_machinery_breaks_is_retried(tmp_path):
    config = resolve(
        {"suite": "guessing:Guessing", "policy": "guessing:Guesser", "limit": 1, "attempts": 1, "out": tmp_path / "run"}
    )
    GuessingEnv.faults[:] = ["start", "execute"]
    (row,) = Runner(config).run()
    assert [failure.component for failure in row.infrastructure] == ["table", "table"] and row.outcome == "graded"


def test_a_conversation_goes_on_with_the_earlier_attempts(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(
        GuesserSession, "converse", lambda self, history: given.append(history) or setattr(self, "history", history)
    )
    flags = {
        "suite": "guessing:Guessing",
        "policy": "guessing:Guesser",
        "limit": 2,
        "attempts": 3,
        "workers": 1,
        "history": "conversation",
    }
    rows = Runner(resolve(flags | {"out": tmp_path / "run"})).run()
    assert [r.attempt for r in rows if r.success] == [2, 2][: len([r for r in rows if r.success])] and any(r.success for r in rows)
    assert [len(history) for history in given[:2]] == [0, 1]
    (past,) = given[1]
    assert [reply.split(": ")[1] for _, reply in past.turns] == ["50", "25", "12"] and past.feedback.startswith(
        "My number is not 12"
    )
    (tmp_path / "run/sessions/guess_1/attempt_02/result.json").unlink()  # killed in attempt 2 of the second task
    assert lived(Runner(resolve(flags | {"out": tmp_path / "run"})).run()) == lived(rows)
    assert guessing(1).id == "guess_1"

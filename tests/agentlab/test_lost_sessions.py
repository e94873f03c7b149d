"""Lines of results.jsonl whose sessions are gone are said to be, and are not overwritten."""

import json
import shutil

import pytest
from made_runs import Made, make_run, task

from agentlab.disk.runs import read_run
from agentlab.disk.store import RunStore
from agentlab.results.report import make_report
from envs.errors import StoreError

ASIDE = "results_set_aside_01.jsonl"


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", [(task("a"), [Made(), Made(True)]), (task("b"), [Made(True)])])


def config(run, **changes):
    return json.loads((run / "config.json").read_text())["config"] | changes


def opened(run, **changes):
    said = []
    RunStore.open(run, config(run, **changes), say=said.append).close()
    return said


def test_results_without_sessions_are_kept_under_another_name(run):
    before = (run / "results.jsonl").read_bytes()
    shutil.rmtree(run / "sessions")
    (said,) = opened(run)
    assert "3 lines have no attempts in this run" in said and ASIDE in said
    assert (run / ASIDE).read_bytes() == before and (run / "results.jsonl").read_bytes() == b""
    assert opened(run) == [] and not (run / "results_set_aside_02.jsonl").exists()


def test_one_session_that_is_gone_leaves_its_lines_and_the_next_one_a_file_of_its_own(run):
    for number, (name, lines) in enumerate([("a_1", 3), ("b_1", 1)], start=1):
        shutil.rmtree(run / "sessions" / name)
        (said,) = opened(run)
        kept = run / f"results_set_aside_{number:02d}.jsonl"
        assert kept.name in said and len(kept.read_text().splitlines()) == lines
    assert read_run(run).problems == []


def test_lines_that_cannot_be_read_are_kept_too(run):
    results = run / "results.jsonl"
    whole = results.read_text()
    results.write_text("garbage\n" + whole)
    assert len(opened(run)) == 1 and (run / ASIDE).read_text().startswith("garbage") and results.read_text() == whole
    results.write_text(whole + '{"torn')  # the process died while writing it
    assert opened(run) == [] and results.read_text() == whole


def test_attempts_that_were_set_aside_are_not_lost(run):
    """The process died after it had set them aside, before results.jsonl said so."""
    (run / "sessions/a_1/set_aside_01").mkdir()
    (run / "sessions/a_1/attempt_02").rename(run / "sessions/a_1/set_aside_01/attempt_02")
    assert read_run(run).problems == [] and opened(run) == [] and not (run / ASIDE).exists()


def test_results_without_sessions_are_still_those_of_their_configuration(run):
    shutil.rmtree(run / "sessions")
    with pytest.raises(StoreError, match="another configuration"):
        opened(run, seed=9)
    assert config(run)["seed"] != 9 and not (run / ASIDE).exists()


def test_a_run_that_is_refused_is_left_as_it_is(run):
    before = (run / "results.jsonl").read_bytes()
    (run / "sessions/b_1").rename(run / "sessions/c_1")
    with pytest.raises(StoreError, match="another task"):
        opened(run)
    assert (run / "results.jsonl").read_bytes() == before and not (run / ASIDE).exists()


def test_the_report_says_that_there_are_no_sessions(run):
    shutil.rmtree(run / "sessions/a_1")
    (line,) = next(s for s in make_report(read_run(run)).sections if s.title == "Could not be read").rows
    assert "results.jsonl 2 lines have no attempts in this run" in line[0] and "a_1/1, a_1/2" in line[0]

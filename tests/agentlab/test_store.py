"""The run directory: what survives, what is refused, and what the refusal says."""

import json
import os
import subprocess
import sys
import threading

import pytest

import agentlab.disk.store
from agentlab.disk.row import Row
from agentlab.disk.runs import read_config, read_rows, read_run
from agentlab.disk.store import RunStore
from envs.errors import StoreError

CONFIG = {"suite": "s", "attempts": 3, "limit": 5, "workers": 1, "adapt": {"preset": "none"}}


def open_store(folder, **changes):
    return RunStore.open(folder, CONFIG | changes, free=("workers",), grows=("limit",))


def row(task="a_1", attempt=1):
    name, _, seed = task.rpartition("_")
    return Row(task=task, name=name, seed=int(seed), attempt=attempt, outcome="graded", session_over=False)


def commit(store, task="a_1", attempt=1):
    session = store.session(task)
    session.start_attempt(attempt)
    session.commit(attempt, row(task, attempt))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "run"
    store = open_store(folder)
    commit(store, "b_1", 1)
    commit(store, "a_1", 1)
    commit(store, "a_1", 2)
    store.close()
    return folder


def test_continues_with_what_is_there(folder):
    store = open_store(folder, workers=7)
    assert store.rows() == [row("b_1"), row("a_1", 1), row("a_1", 2)]
    assert store.session("a_1").rows() == [row("a_1", 1), row("a_1", 2)]
    store.close()
    store.close()


@pytest.mark.parametrize("damage", ["torn", "lost", "removed", "garbage"])
def test_results_are_rebuilt(folder, damage):
    path = folder / "results.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    if damage == "torn":
        path.write_text("".join(lines[:-1]) + lines[-1][:20])
    elif damage == "lost":
        path.write_text("".join(lines[:-1]))
    elif damage == "removed":
        path.unlink()
    else:
        path.write_text("garbage\n" + "".join(lines))
    open_store(folder).close()
    assert sorted(path.read_text().splitlines(keepends=True)) == sorted(lines)


def test_another_configuration_is_refused_naming_the_keys(folder):
    with pytest.raises(StoreError, match=r"adapt\.preset: \"none\" -> \"rosa\"; attempts: 3 -> 4"):
        open_store(folder, attempts=4, adapt={"preset": "rosa"})
    assert read_config(folder) == CONFIG


def test_a_setting_that_did_not_exist_then_is_what_it_is_by_default(folder):
    new = {**CONFIG, "sampling": {"consistent": False}}
    RunStore.open(folder, new, implied=("sampling.consistent", "attempts"), free=("workers",)).close()
    with pytest.raises(StoreError, match=r"sampling\.consistent: null -> true"):
        RunStore.open(folder, {**CONFIG, "sampling": {"consistent": True}}, implied=("attempts",))
    with pytest.raises(StoreError, match="attempts: 3 -> 4"):  # it was said then
        RunStore.open(folder, {**new, "attempts": 4}, implied=("sampling.consistent", "attempts"))


def test_a_run_without_any_attempt_binds_nobody(tmp_path):
    open_store(tmp_path).close()
    open_store(tmp_path, attempts=4).close()
    assert read_config(tmp_path)["attempts"] == 4


def test_a_larger_limit_extends_a_run_and_a_smaller_one_does_not(folder):
    open_store(folder, limit=9).close()
    assert read_config(folder)["limit"] == 9
    with pytest.raises(StoreError, match="limit: 9 -> 5"):
        open_store(folder)


def test_a_foreign_directory_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(StoreError, match="not a run directory"):
        open_store(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("content", ["{ not json", "[]", '{"schema": 99, "config": {}}', "\x00\xff"])
def test_a_corrupt_config_is_refused(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(StoreError, match=r"config\.json"):
        open_store(folder)
    assert len(read_rows(folder)) == 3


@pytest.mark.parametrize("attempt", [1, 2])
@pytest.mark.parametrize("damage", ["torn", "removed", "pipe", "folder"])
def test_a_result_that_is_lost_is_restored_from_its_line(folder, attempt, damage):
    path = folder / f"sessions/a_1/attempt_{attempt:02d}/result.json"
    whole = path.read_text()
    path.unlink()
    if damage == "torn":
        path.write_text(whole[:40])
    elif damage == "pipe":
        os.mkfifo(path)
    elif damage == "folder":
        path.mkdir()
    assert "attempt_0" in read_run(folder).problems[0]
    said = []
    store = RunStore.open(folder, CONFIG, say=said.append)
    assert path.read_text() == whole and len(store.rows()) == 3
    assert len(said) == 1 and str(path) in said[0] and "restored" in said[0]
    assert (path.with_name("result.json.damaged").exists()) is (damage != "removed")
    store.close()


def test_a_corrupt_result_without_a_line_is_named(folder):
    (folder / "sessions/a_1/attempt_01/result.json").write_text("{")
    (folder / "results.jsonl").unlink()
    with pytest.raises(StoreError, match="attempt_01") as refused:
        open_store(folder)
    assert "Move" in refused.value.hint and "attempt_01" in refused.value.hint


@pytest.mark.parametrize("place", ["file/run", "/proc/run"])
def test_an_unwritable_directory_is_refused(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Cannot use"):
        open_store(tmp_path / place)


def test_two_processes_do_not_share_a_run(folder):
    code = "import sys; from tests.agentlab.test_store import open_store; from pathlib import Path; open_store(Path(sys.argv[1]))"
    store = open_store(folder)
    refused = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, timeout=60)
    assert refused.returncode != 0 and "Another process" in refused.stderr
    store.close()
    subprocess.run([sys.executable, "-c", code, folder], check=True, timeout=60)  # and dies holding the lock
    open_store(folder).close()


def test_an_attempt_in_flight_is_made_again(folder):
    store = open_store(folder)
    partial = store.session("a_1").start_attempt(3)
    (partial / "events.jsonl").write_text('{"event": "be')
    store.close()
    store = open_store(folder)
    assert len(store.session("a_1").rows()) == 2
    assert list(store.session("a_1").start_attempt(3).iterdir()) == []
    store.close()


def test_set_aside_keeps_the_files_and_takes_the_rows_out(folder):
    store = open_store(folder)
    store.session("a_1").set_aside(2)
    assert store.rows() == [row("b_1"), row("a_1", 1)]
    assert json.loads((folder / "sessions/a_1/set_aside_01/attempt_02/result.json").read_text()) == row("a_1", 2).to_json()
    commit(store, "a_1", 2)
    store.session("a_1").set_aside(1)
    assert (folder / "sessions/a_1/set_aside_02/attempt_01/result.json").exists()
    store.close()
    assert read_rows(folder) == [row("b_1")]


def test_results_stay_whole_while_sessions_are_set_aside_beside_others(folder, monkeypatch):
    store, write = open_store(folder), agentlab.disk.store.write_atomic
    beside = threading.Thread(target=commit, args=(store, "c_1", 1))

    def interrupted(path, text):
        if path.name == "results.jsonl":  # its rows are collected; now another session finishes an attempt
            beside.start()
            beside.join(0.5)
        write(path, text)

    monkeypatch.setattr(agentlab.disk.store, "write_atomic", interrupted)
    store.session("b_1").set_aside(1)
    beside.join(10)
    store.close()
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert lines == [r.to_json() for r in (row("a_1", 1), row("a_1", 2), row("c_1", 1))]


def test_sorted_by_the_plan(folder):
    store = open_store(folder)
    store.sort(["a_1", "b_1"])
    store.close()
    assert [r.task for r in read_rows(folder)] == ["a_1", "a_1", "b_1"]


def test_names_that_were_one_folder_are_two_sessions(tmp_path):
    store = open_store(tmp_path / "run")
    tasks = ["a/b-c_0", "a-b/c_0", "office/表格_0", "office/图片_0", "A_0", "a_0"]
    for task in tasks:
        commit(store, task, 1)
    assert [[r.task for r in store.session(task).rows()] for task in tasks] == [[task] for task in tasks]
    store.close()
    assert {r.task for r in read_run(tmp_path / "run", strict=True).rows} == set(tasks)


def test_a_folder_that_holds_another_tasks_results_is_refused(folder):
    (folder / "sessions/b_1").rename(folder / "sessions/c_1")
    with pytest.raises(StoreError, match=r"c_1 holds the result of another task, 'b_1'") as refused:
        open_store(folder)
    assert "is called b_1" in refused.value.hint
    with pytest.raises(StoreError, match="another task"):
        read_run(folder, strict=True)
    looked_at = read_run(folder)
    assert [r.task for r in looked_at.rows] == ["a_1", "a_1"] and "another task" in looked_at.problems[0]


def test_a_result_that_is_another_attempts_is_refused(folder):
    attempts = folder / "sessions/a_1"
    (attempts / "attempt_02/result.json").write_bytes((attempts / "attempt_01/result.json").read_bytes())
    with pytest.raises(StoreError, match="result of another attempt, 1"):
        read_rows(folder)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("score", "1"),
        ("score", float("nan")),
        ("seconds", {"rest": None}),
        ("steps", True),
        ("reward", 0),
        ("schema", 1),
        ("colour", 1),
    ],
)
def test_a_row_of_another_kind_is_refused_and_named(folder, column, value):
    path = folder / "sessions/b_1/attempt_01/result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {column: value}))
    with pytest.raises(StoreError, match=rf"attempt_01/result.json is not .* \({column}"):
        read_rows(folder)
    (problem,) = read_run(folder).problems
    assert column in problem and len(read_run(folder).rows) == 2


def test_a_pipe_in_place_of_a_result_is_refused(folder):
    path = folder / "sessions/b_1/attempt_01/result.json"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StoreError, match="not a file"):
        read_rows(folder)


def test_a_run_of_the_schema_before_is_refused_in_one_sentence(folder):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 1}))
    with pytest.raises(StoreError, match=r"schema 1; this version of agentlab reads schema 2\.") as refused:
        open_store(folder)
    assert "--out DIR" in refused.value.hint


def test_nothing_that_holds_a_result_is_removed(folder):
    """The result of attempt 1 is lost and attempt 2 has its: both are set aside, and the session begins again."""
    (folder / "sessions/a_1/attempt_01/result.json").unlink()
    (folder / "results.jsonl").unlink()
    store = open_store(folder)
    session = store.session("a_1")
    assert session.rows() == [] and "later attempts" in read_run(folder).problems[0]
    session.start_attempt(1)
    assert (folder / "sessions/a_1/set_aside_01/attempt_02/result.json").exists()
    store.close()


def test_results_that_are_not_text_are_rebuilt(folder):
    (folder / "results.jsonl").write_bytes(b"\xff\xfe\n")
    open_store(folder).close()
    assert len((folder / "results.jsonl").read_text().splitlines()) == 3

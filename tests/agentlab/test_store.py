"""The run directory: what survives, what is refused, and what the refusal says."""

import json
import subprocess
import sys
import threading

import pytest

import agentlab.disk.store
from agentlab.disk.store import RunStore, read_config, read_rows
from envs.errors import StoreError

CONFIG = {"suite": "s", "attempts": 3, "limit": 5, "workers": 1, "adapt": {"preset": "none"}}


def open_store(folder, **changes):
    return RunStore.open(folder, CONFIG | changes, free=("workers",), grows="limit")


def row(task="a_1", attempt=1):
    return {"task": task, "attempt": attempt, "session_over": False}


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


def test_a_corrupt_result_is_named(folder):
    (folder / "sessions/a_1/attempt_01/result.json").write_text("{")
    with pytest.raises(StoreError, match="attempt_01"):
        open_store(folder)


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
    assert json.loads((folder / "sessions/a_1/set_aside_01/attempt_02/result.json").read_text()) == row("a_1", 2)
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
    assert lines == [row("a_1", 1), row("a_1", 2), row("c_1", 1)]


def test_sorted_by_the_plan(folder):
    store = open_store(folder)
    store.sort(["a_1", "b_1"])
    store.close()
    assert [r["task"] for r in read_rows(folder)] == ["a_1", "a_1", "b_1"]

"""`agentlab run miniwob` in a real browser: same seed same results, and nothing lost by kill -9, Ctrl-C or a dead browser."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from in_process import agentlab

from agentlab.disk.runs import read_config, read_rows

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("one_browser")]

TASKS = "click-test-2,click-dialog,click-color"
PLAN = ("run", "miniwob", "--policy", "random", "--tasks", TASKS, "--limit", "3", "--attempts", "2", "--workers", "2")
PATIENCE = 300
"""Seconds; a bound, not an expectation."""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "agentlab", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return agentlab(*arguments)


def results(folder: Path) -> list[dict]:
    """Rows without what no seed can fix: times, memory, and how often the machinery failed."""
    keep = [
        {k: v for k, v in r.to_json().items() if k not in {"seconds", "hidden_seconds", "memory", "infrastructure"}}
        for r in read_rows(folder)
    ]
    for row in keep:
        row["words"] = row["words"] and {k: v for k, v in row["words"].items() if k != "seconds"}
    return sorted(keep, key=lambda r: (r["task"], r["attempt"]))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    done = run(*PLAN, "--out", folder)
    assert done.returncode == 0, done.stderr
    assert "success@2" in done.stdout and "machinery failures" in done.stdout
    return results(folder)


class Running:
    """A run in a process of its own, watched until it has made some attempts."""

    def __init__(self, folder: Path, attempts: int) -> None:
        self.folder = folder
        self.process = subprocess.Popen(command(*PLAN, "--out", folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: self.attempts() >= attempts or self.process.poll() is not None, "the first attempts")
        assert self.process.poll() is None, self.process.communicate()[1]
        self.family = psutil.Process(self.process.pid).children(recursive=True)
        self.browsers = [p for p in self.family if is_browser(p)]
        assert self.browsers

    def attempts(self) -> int:
        path = self.folder / "results.jsonl"
        return path.read_text().count("\n") if path.exists() else 0

    def end(self) -> tuple[int, str]:
        """Exit code and what was said; afterwards no browser of this run is left."""
        said = "".join(self.process.communicate(timeout=PATIENCE))
        wait_for(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in self.family), "the browser's end")
        return self.process.returncode, said


def is_browser(process: psutil.Process) -> bool:
    """Whether it is the main process of a browser of ours (its renderers have a --type)."""
    try:
        words = process.cmdline()
    except psutil.Error:  # gone, or a zombie
        return False
    return any(w.startswith("--agentlab-browser") for w in words) and not any(w.startswith("--type=") for w in words)


def wait_for(condition, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[object, ...], Path, str]:
    """A finished run of the oracle: its command, its directory and what it printed."""
    folder = tmp_path_factory.mktemp("solved") / "run"
    arguments = ("run", "miniwob", "--policy", "scripted", "--tasks", TASKS, "--limit", "3", "--out", folder)
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return arguments, folder, done.stdout


def test_an_oracle_solves_what_it_claims(solved):
    _, folder, printed = solved
    rows = read_rows(folder)
    assert [r.success for r in rows] == [True] * 3 and {r.attempt for r in rows} == {1}
    assert "success@5" in printed and "100.0%" in printed


def test_the_same_command_again_redoes_nothing(solved):
    arguments, folder, printed = solved
    before = {p: p.stat().st_mtime_ns for p in (folder / "sessions").rglob("*")}
    assert any(p.name == "000.webp" for p in before)
    again = run(*arguments)
    assert again.returncode == 0 and "3 of 3 sessions are done" in again.stderr
    assert again.stdout == printed
    assert before == {p: p.stat().st_mtime_ns for p in (folder / "sessions").rglob("*")}


def test_another_configuration_is_refused(solved):
    arguments, folder, _ = solved
    refused = run(*arguments, "--attempts", "2")
    assert refused.returncode == 4 and "attempts: 5 -> 2" in refused.stderr and "Traceback" not in refused.stderr
    assert len(read_rows(folder)) == 3 and read_config(folder)["attempts"] == 5


def test_a_report_can_be_had_later(solved):
    shown = run("report", solved[1], "--markdown")
    assert shown.returncode == 0 and "| success@1 | 100.0% |" in shown.stdout


def test_same_seed_same_results_whatever_the_workers(undisturbed, tmp_path):
    assert run(*PLAN, "--workers", "1", "--out", tmp_path / "run").returncode == 0
    assert results(tmp_path / "run") == undisturbed


def test_another_seed_gives_other_results(undisturbed, tmp_path):
    assert run(*PLAN, "--seed", "1", "--attempts", "1", "--out", tmp_path / "run").returncode == 0
    other = results(tmp_path / "run")
    assert {r["actions_hash"] for r in other}.isdisjoint(r["actions_hash"] for r in undisturbed)


def test_kill_9_loses_at_most_the_attempt_in_flight(undisturbed, tmp_path):
    running = Running(tmp_path / "run", attempts=2)
    running.process.kill()
    code, _ = running.end()
    assert code == -signal.SIGKILL
    kept = {p: p.stat().st_mtime_ns for p in tmp_path.glob("run/sessions/*/attempt_*/result.json")}
    assert len(kept) >= 2
    done = run(*PLAN, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "run") == undisturbed
    assert kept.items() <= {p: p.stat().st_mtime_ns for p in tmp_path.glob("run/sessions/*/attempt_*/result.json")}.items()


def test_ctrl_c_leaves_no_browser_and_a_run_to_continue(undisturbed, tmp_path):
    running = Running(tmp_path / "run", attempts=1)
    running.process.send_signal(signal.SIGINT)
    code, said = running.end()
    assert code == 130 and "The same command continues" in said and "Traceback" not in said
    assert not any(r.infrastructure for r in read_rows(tmp_path / "run"))
    assert run(*PLAN, "--out", tmp_path / "run").returncode == 0
    assert results(tmp_path / "run") == undisturbed


def test_a_killed_browser_is_a_machinery_failure_retried_and_not_scored(undisturbed, tmp_path):
    running = Running(tmp_path / "run", attempts=1)
    for browser in running.browsers:
        browser.kill()
    code, said = running.end()
    assert code == 0, said
    assert {f.component for r in read_rows(tmp_path / "run") for f in r.infrastructure} == {"browser"}
    assert results(tmp_path / "run") == undisturbed

"""The grader's pipe: whatever its process does but answer properly is a failure of the machinery, never a score."""

import http.server
import os
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from standin import standin

from envs import actions as act
from envs.errors import InfrastructureError
from envs.osworld import grading
from envs.osworld.client import GuestClient
from envs.osworld.grading import OfficialGrader
from envs.osworld.ports import CHROMIUM, SERVER
from envs.osworld.providers import Guest
from envs.osworld.upstream import FILE_CACHE_REVISION

TASK = {"id": "t-1", "instruction": "Do it.", "evaluator": {"func": "exact_match"}, "oracle": [[{"kind": "finished"}]]}
PROGRAM = """
    import json, os, signal, sys, time
    print("hello from the log", file=sys.stderr)
    for line in sys.stdin:
        request = json.loads(line)
        answer = json.dumps({"ok": {"desktop_env": "0"}})
        if request["do"] == "score":
            last = request["last"]
            %s
        print(answer, flush=True)
"""


@pytest.fixture
def guest():
    with standin() as running:
        client = GuestClient("127.0.0.1", running.port)
        yield Guest(client, "127.0.0.1", {SERVER: running.port, CHROMIUM: 9}, "")
        client.close()


@pytest.fixture
def grader(tmp_path):
    """Makes a grader whose process does as it is told when it is asked for a score."""
    made = []

    def make(scoring: str, **options: object) -> OfficialGrader:
        program = tmp_path / f"program-{len(made)}.py"
        program.write_text(textwrap.dedent(PROGRAM % scoring))
        made.append(OfficialGrader(python=Path(sys.executable), program=program, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
        one.close()


def scored(grader: OfficialGrader, guest: Guest, last: act.Action | None = None) -> float:
    grader.prepare(TASK, guest)
    return grader.score(TASK, guest, last)


def test_a_score_is_the_answer(grader, guest):
    assert scored(grader('answer = json.dumps({"ok": 0.25})'), guest) == 0.25
    assert scored(grader('answer = json.dumps({"ok": 1})'), guest) == 1.0


def test_what_the_agent_said_last_is_passed_on_in_osworlds_words(grader, guest):
    one = grader('answer = json.dumps({"ok": {"FAIL": 1.0, "DONE": 0.5, "": 0.0}[last]})')
    assert scored(one, guest, act.Fail()) == 1.0
    assert scored(one, guest, act.Finished()) == 0.5
    assert scored(one, guest, act.Click(1, 2)) == 0.0
    assert scored(one, guest) == 0.0


@pytest.mark.parametrize(
    ("scoring", "reason"),
    [
        ("os._exit(3)", r"ended during `score` \(exit code 3\).*hello from the log"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "ended during `score`"),
        ('answer = "what?"', "answered `score` with"),
        ('answer = "[1]"', "answered `score` with"),
        ('answer = json.dumps({"ok": 1, "x": 1})[:-3]', "answered `score` with"),
        ('answer = json.dumps({"oh": 1})', "answered `score` with"),
        ('answer = json.dumps({"ok": 2.0})', "not a score"),
        ('answer = json.dumps({"ok": -0.1})', "not a score"),
        ('answer = json.dumps({"ok": float("nan")})', "not a score"),
        ('answer = json.dumps({"ok": True})', "not a score"),
        ('answer = json.dumps({"ok": None})', "not a score"),
        ('answer = json.dumps({"ok": "1.0"})', "not a score"),
        ('answer = json.dumps({"error": "KeyError: x", "component": "grader"})', "KeyError: x"),
    ],
)
def test_anything_else_is_a_failure_of_the_machinery(grader, guest, scoring, reason):
    one = grader(scoring)
    with pytest.raises(InfrastructureError, match=reason) as caught:
        scored(one, guest)
    assert caught.value.component == "grader"
    one.prepare(TASK, guest)  # the next task has a process again


def test_a_guest_that_failed_the_grader_is_blamed(grader, guest):
    one = grader('answer = json.dumps({"error": "the guest failed", "component": "guest"})')
    with pytest.raises(InfrastructureError) as caught:
        scored(one, guest)
    assert caught.value.component == "guest"


def test_a_process_that_hangs_is_ended_with_what_it_started(grader, guest, monkeypatch, tmp_path):
    monkeypatch.setattr(grading, "SCORE_SECONDS", 0.5)
    child = tmp_path / "child"
    one = grader(
        f"import subprocess; c = subprocess.Popen(['sleep', '600']); open({str(child)!r}, 'w').write(str(c.pid)); time.sleep(600)"
    )
    with pytest.raises(InfrastructureError, match=r"did not finish `score` within 0.5 s"):
        scored(one, guest)
    end = time.monotonic() + 20
    while runs(child.read_text()) and time.monotonic() < end:
        time.sleep(0.05)
    assert not runs(child.read_text())


def runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_a_task_that_was_never_set_up_is_not_graded(grader, guest):
    with pytest.raises(InfrastructureError, match="never set up"):
        grader('answer = json.dumps({"ok": 1.0})').score(TASK, guest, None)


def test_several_tasks_are_graded_at_a_time_and_no_more_than_allowed(grader, guest, tmp_path):
    """Each waits until it has company, and then says how many are at work."""
    scoring = f"""busy, ever = {str(tmp_path)!r} + "/busy", {str(tmp_path)!r} + "/ever"
            for folder in (busy, ever):
                os.makedirs(folder, exist_ok=True)
                open(f"{{folder}}/{{os.getpid()}}-{{time.time_ns()}}", "w").close()
            until = time.monotonic() + 30
            while len(os.listdir(ever)) < 2 and time.monotonic() < until:
                time.sleep(0.01)
            answer = json.dumps({{"ok": len(os.listdir(busy)) / 10}})
            for name in os.listdir(busy):
                if name.startswith(f"{{os.getpid()}}-"):
                    os.remove(f"{{busy}}/{{name}}")"""
    one = grader(scoring, processes=2)
    guests = [Guest(GuestClient("127.0.0.1", guest.ports[SERVER]), "127.0.0.1", dict(guest.ports), "") for _ in range(4)]
    for number, other in enumerate(guests):
        other.client.address = f"guest-{number}"
        one.prepare(TASK, other)
    scores: list[float] = []
    threads = [threading.Thread(target=lambda g=g: scores.append(one.score(TASK, g, None))) for g in guests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(scores) == 0.2
    for other in guests:
        other.client.close()


def test_every_episode_has_a_folder_of_its_own_with_the_files_fetched_before(grader, guest, tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTLAB_CACHE", str(tmp_path))
    url = "http://x/gold.txt"
    task = TASK | {
        "gold": [str(tmp_path / "beside.txt")],
        "evaluator": {"func": "compare_text_file", "expected": {"type": "cloud_file", "path": url, "dest": "gold.txt"}},
    }
    (tmp_path / "beside.txt").write_text("beside")
    kept = grading.needed_files(task).__next__().kept
    kept.parent.mkdir(parents=True)
    kept.write_text("gold")
    one = grader(
        "f = request['folder'] + '/t-1/'; answer = json.dumps({'error': ' '.join(sorted(os.listdir(f))) + str('gold' in request['task'])})"
    )
    one.prepare(task, guest)
    with pytest.raises(InfrastructureError, match=r"beside.txt gold.txtFalse"):
        one.score(task, guest, None)
    folders = list(one._folder.glob("episode-*"))
    one.forget(guest)
    assert len(folders) == 1 and not folders[0].exists()


def test_what_a_killed_run_left_is_removed_and_what_a_living_one_has_is_not(grader, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left, mine, other = (tmp_path / f"agentlab-osworld-{name}" for name in ("999999999-x", f"{os.getpid()}-y", "notes"))
    for folder in (left, mine, other):
        folder.mkdir()
    grader("pass")
    assert not left.exists() and mine.exists() and other.exists()


def test_a_file_that_was_not_fetched_is_got_once_from_the_pin_and_the_mirror(grader, guest, tmp_path, monkeypatch):
    """O12: it was downloaded at every attempt, from a branch that moves."""
    monkeypatch.setenv("AGENTLAB_CACHE", str(tmp_path))
    asked = []

    class Files(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"gold")

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    url = "https://huggingface.co/datasets/xlangai/ubuntu_osworld_file_cache/resolve/main/x/gold.txt"
    task = TASK | {"evaluator": {"func": "x", "expected": {"type": "cloud_file", "path": url, "dest": "gold.txt"}}}
    one = grader("f = request['folder'] + '/t-1/'; answer = json.dumps({'ok': float(open(f + 'gold.txt').read() == 'gold')})")
    try:
        for _ in range(3):
            assert scored_task(one, task, guest) == 1.0
        assert {path.split("/resolve/")[1].split("/")[0] for path in asked} == {FILE_CACHE_REVISION}
        assert len(asked) <= 2, "once, whatever it takes"
        next(iter(grading.needed_files(task))).kept.unlink()
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setattr("envs.download.PAUSE_SECONDS", 0.0)
        with pytest.raises(InfrastructureError, match="could not be fetched") as caught:
            one.prepare(task, guest)
        assert caught.value.component == "grader"
    finally:
        server.shutdown()


def scored_task(grader, task, guest):
    grader.prepare(task, guest)
    return grader.score(task, guest, None)

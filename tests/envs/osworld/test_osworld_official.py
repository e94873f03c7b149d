"""OSWorld's own controllers, getters and metrics in the grader's environment, against a stand-in of the guest.  Needs no Docker."""

import json
import os
from pathlib import Path

import pytest
from standin import SIZE

from envs import actions as act
from envs.errors import InfrastructureError, SetupError
from envs.osworld import jobs, upstream
from envs.osworld.client import GuestClient
from envs.osworld.grading import OfficialGrader
from envs.osworld.ports import CHROMIUM, SERVER, VLC
from envs.osworld.providers import Guest
from envs.osworld.suite import LIGHT, OSWorldSuite

pytestmark = pytest.mark.grader

TASKS = os.environ.get("AGENTLAB_OSWORLD_TASKS")
"""A copy of OSWorld's ``evaluation_examples``; by default the fetched one."""

RESULT = {"type": "vm_file", "path": "/home/user/out.txt", "dest": "out.txt"}
FILE_TASK = {
    "id": "file-task",
    "instruction": "Write 'done' into out.txt.",
    "config": [
        {"type": "upload_file", "parameters": {"files": [{"local_path": "", "path": "/home/user/in.txt"}]}},
        {"type": "execute", "parameters": {"command": ["echo", "{SCREEN_WIDTH_HALF}", "{CLIENT_PASSWORD}"]}},
        {"type": "launch", "parameters": {"command": ["mousepad", "/home/user/in.txt"]}},
        {"type": "open", "parameters": {"path": "/home/user/in.txt"}},
        {"type": "activate_window", "parameters": {"window_name": "in.txt"}},
        {"type": "sleep", "parameters": {"seconds": 0.01}},
    ],
    "evaluator": {
        "postconfig": [{"type": "close_window", "parameters": {"window_name": "in.txt"}}],
        "func": "compare_text_file",
        "result": RESULT,
        "expected": {"type": "cache_file", "path": "gold.txt"},
    },
}
COMMAND_TASK = {
    "id": "command-task",
    "instruction": "Make it say yes.",
    "config": [],
    "evaluator": {
        "func": "exact_match",
        "result": {"type": "vm_command_line", "command": "say", "shell": True},
        "expected": {"type": "rule", "rules": {"expected": "yes"}},
    },
}
INFEASIBLE = {"id": "infeasible-task", "instruction": "Fly.", "config": [], "evaluator": {"func": "infeasible"}}


@pytest.fixture(scope="module")
def grader():
    try:
        made = OfficialGrader()
    except SetupError as error:
        pytest.skip(str(error))
    yield made
    made.close()


@pytest.fixture
def guest(running):
    client = GuestClient("127.0.0.1", running.port)
    yield Guest(client, "127.0.0.1", {SERVER: running.port, CHROMIUM: 9, VLC: 9}, "secret")
    client.close()


@pytest.fixture
def file_task(tmp_path):
    (tmp_path / "in.txt").write_text("in")
    (tmp_path / "gold.txt").write_text("done")
    task = json.loads(json.dumps(FILE_TASK)) | {"gold": [str(tmp_path / "gold.txt")]}
    task["config"][0]["parameters"]["files"][0]["local_path"] = str(tmp_path / "in.txt")
    return task


def test_setup_steps_reach_the_guest(grader, guest, running, file_task):
    said = []
    running.execute = lambda command: said.append(command) or ""
    grader.prepare(file_task, guest)
    assert running.files == {"/home/user/in.txt": b"in"}
    assert said == [["echo", str(SIZE[0] // 2), "secret"]]
    assert running.launched == [["mousepad", "/home/user/in.txt"]]
    steps = ["/terminal", "/setup/upload", "/setup/execute", "/setup/launch", "/setup/open_file", "/setup/activate_window"]
    assert [route for route in running.asked if route != "/screen_size"] == steps


def test_official_scores(grader, guest, running, file_task):
    for content, last, score in ((b"done", act.Finished(), 1.0), (b"other", act.Finished(), 0.0), (b"done", act.Fail(), 0.0)):
        grader.prepare(file_task, guest)
        running.files["/home/user/out.txt"] = content
        assert grader.score(file_task, guest, last) == score
    assert "/setup/close_window" in running.asked, "postconfig was run"
    grader.prepare(COMMAND_TASK, guest)
    running.execute = lambda command: "yes"
    assert grader.score(COMMAND_TASK, guest, None) == 1.0


def test_an_infeasible_task_is_won_by_saying_so_last(grader, guest):
    for last, score in ((act.Fail(), 1.0), (act.Finished(), 0.0), (act.Wait(), 0.0), (None, 0.0)):
        grader.prepare(INFEASIBLE, guest)
        assert grader.score(INFEASIBLE, guest, last) == score


def test_a_guest_that_dies_while_it_is_graded_gives_no_score(grader, guest, running, file_task):
    """OSWorld's code takes a file that it cannot get for a file that is not there, and scores 0."""
    grader.prepare(file_task, guest)
    running.files["/home/user/out.txt"] = b"done"
    running.fail["/file"] = ["drop"] * 3
    with pytest.raises(InfrastructureError, match="/file got nothing") as caught:
        grader.score(file_task, guest, act.Finished())
    assert caught.value.component == "guest"
    running.fail["/file"] = ["drop"]
    assert grader.score(file_task, guest, act.Finished()) == 1.0, "what succeeds when it is tried again is no failure"


def test_a_command_that_gets_no_answer_gives_no_score(grader, guest, running):
    grader.prepare(COMMAND_TASK, guest)
    running.fail["/execute"] = ["drop"]
    with pytest.raises(InfrastructureError):
        grader.score(COMMAND_TASK, guest, None)


def test_a_setup_that_fails_is_a_failure_and_the_grader_goes_on(grader, guest, running, file_task):
    running.fail["/setup/upload"] = [500] * 3
    with pytest.raises(InfrastructureError, match="upload"):
        grader.prepare(file_task, guest)
    running.fail["/setup/launch"] = ["drop"]  # which OSWorld's code only logs
    with pytest.raises(InfrastructureError, match="/setup/launch got nothing"):
        grader.prepare(file_task, guest)
    grader.prepare(file_task, guest)


def test_an_evaluator_that_raises_gives_no_score(grader, guest):
    task = COMMAND_TASK | {"evaluator": COMMAND_TASK["evaluator"] | {"result": {"type": "cache_file", "path": "not there"}}}
    grader.prepare(task, guest)
    with pytest.raises(InfrastructureError) as caught:
        grader.score(task, guest, None)
    assert caught.value.component == "grader"


def test_what_a_guest_answers_is_never_run_as_code(grader, guest, running, tmp_path):
    """The metric behind this calls ``eval`` on the output of a command in the guest."""
    task = COMMAND_TASK | {
        "evaluator": {
            "func": "check_gnome_favorite_apps",
            "result": {"type": "vm_command_line", "command": "gsettings"},
            "expected": {"type": "rule", "rules": {"expected": ["a.desktop"]}},
        }
    }
    grader.prepare(task, guest)
    running.execute = lambda command: "['a.desktop']"
    assert grader.score(task, guest, None) == 1.0
    trace = tmp_path / "ran"
    running.execute = lambda command: f"[open({str(trace)!r}, 'w') and 'a.desktop']"
    grader.prepare(task, guest)
    assert grader.score(task, guest, None) == 0.0
    assert not trace.exists()


def test_every_light_task_is_known_to_osworlds_code(grader):
    for name, job in OSWorldSuite(LIGHT).jobs.items():
        grader.check(job)
        assert jobs.oracle(job), name


def test_every_task_of_osworld_is_known_to_its_code(grader):
    """All steps, getters and metrics exist; the published package (without the repository's newer code) lacks three."""
    folder = Path(TASKS) if TASKS else upstream.source_folder() / "evaluation_examples"
    if not folder.is_dir():
        pytest.skip("needs OSWorld's task set: `agentlab fetch osworld`, or AGENTLAB_OSWORLD_TASKS=FOLDER")
    unknown = []
    for path in sorted(folder.glob("examples/*/*.json")):
        try:
            grader.check(jobs.read_job(path))
        except InfrastructureError:
            unknown.append(path.stem[:8])
    assert set(unknown) <= {"93eabf48", "e8172110", "5ac2891a"}

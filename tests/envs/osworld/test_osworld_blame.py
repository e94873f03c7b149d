"""Whose doing it is: a set-up that failed and a channel that broke are never a score, and what the agent left is never a void.

OSWorld's own code in the grader's environment, against a stand-in of the guest.  Needs no Docker.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from envs import actions as act
from envs.errors import InfrastructureError, SetupError
from envs.osworld.client import GuestClient
from envs.osworld.grading import PROGRAM as PACKAGE
from envs.osworld.grading import OfficialGrader
from envs.osworld.ports import CHROMIUM, SERVER, VLC
from envs.osworld.providers import Guest

pytestmark = pytest.mark.grader

RESULT = {"type": "vm_file", "path": "/home/user/out.txt", "dest": "out.txt"}
GOLD = {"type": "cache_file", "path": "gold.txt"}


PROGRAM = """
import importlib, importlib.util, sys, time, types

def load(name, file, **options):
    spec = importlib.util.spec_from_file_location(name, file, **options)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]

load("agentlab_grader", {folder!r} + "/__init__.py", submodule_search_locations=[{folder!r}])
program = importlib.import_module("agentlab_grader.program")
imported = program.load

def with_metric():
    imported()
    from desktop_env.evaluators import metrics
    from desktop_env.controllers import python
    python.time = types.SimpleNamespace(sleep=lambda seconds: time.sleep(seconds / 100))  # between its three attempts
    if {metric!r}:
        metrics.told = load("desktop_env.evaluators.metrics.told", {metric!r}).told

program.load = with_metric
program.main()
"""


def write_program(folder, metric=""):
    """The grader's own program, with one more metric and less waiting."""
    path = folder / "program.py"
    path.write_text(PROGRAM.format(folder=str(PACKAGE.parent), metric=metric))
    return path


@pytest.fixture(scope="module")
def grader(tmp_path_factory):
    try:
        made = OfficialGrader(program=write_program(tmp_path_factory.mktemp("program")))
    except SetupError as error:
        pytest.skip(str(error))
    yield made
    made.close()


@pytest.fixture
def guest(running):
    client = GuestClient("127.0.0.1", running.port)
    yield Guest(client, "127.0.0.1", {SERVER: running.port, CHROMIUM: 9, VLC: 11}, "secret")
    client.close()


def task(config=(), **evaluator):
    return {"id": "t", "instruction": "Do it.", "config": list(config), "evaluator": evaluator}


def file_task(tmp_path, **more):
    (tmp_path / "gold.txt").write_text("done")
    return task(func="compare_text_file", result=RESULT, expected=GOLD, **more) | {"gold": [str(tmp_path / "gold.txt")]}


def command_task(**more):
    rule = {"type": "rule", "rules": {"expected": "yes"}}
    return task(func="exact_match", result={"type": "vm_command_line", "command": "say", "shell": True}, expected=rule, **more)


def execute(command, **more):
    return {"type": "execute", "parameters": {"command": command, **more}}


# -- setting up ----------------------------------------------------------------------------------------------------------------------
JQ = (
    "mkdir -p /home/user/.config/google-chrome/Default && cd /home/user/.config/google-chrome/Default && "
    'jq \'. + {"safebrowsing":{"enabled":false}}\' Preferences > temp && mv temp Preferences'
)


@pytest.mark.parametrize("shell", [True, False])
def test_a_set_up_command_that_failed_voids_the_attempt_with_what_it_said(grader, guest, running, shell):
    """O1: the untouched profile satisfied the evaluator, and doing nothing scored 1."""
    running.execute = lambda command: {"returncode": 127, "error": "sh: 1: jq: not found", "output": ""}
    broken = command_task() | {"config": [execute(JQ if shell else ["jq", "."], shell=shell)]}
    with pytest.raises(InfrastructureError, match=r"the set-up step .*jq.* ended with status 127: sh: 1: jq: not found") as caught:
        grader.prepare(broken, guest)
    assert caught.value.component == "guest"


@pytest.mark.parametrize(
    ("command", "status", "fine"),
    [
        ("pkill chrome", 1, True),
        ("pkill chrome", 127, False),
        ("pkill chrome && touch x", 1, False),
        (["unzip", "a.zip", "-d", "b"], 1, True),
        (["unzip", "a.zip", "-d", "b"], 9, False),
        ("echo p | sudo -S apt-get install unzip -y && unzip x.zip -d b && rm x.zip", 1, False),
        ("./setup.sh", 1, True),
        ("./setup.sh", 126, False),
        ("mkdir /home/test1", 1, True),
        ("mkdir /home/other", 1, False),
    ],
)
def test_steps_that_may_fail_are_a_list(grader, guest, running, command, status, fine):
    running.execute = lambda command: {"returncode": status}
    broken = command_task() | {"config": [execute(command, shell=isinstance(command, str))]}
    if fine:
        grader.prepare(broken, guest)
    else:
        with pytest.raises(InfrastructureError, match=f"ended with status {status}"):
            grader.prepare(broken, guest)


def test_one_step_that_failed_is_not_forgotten_when_the_same_succeeds_later(grader, guest, running):
    said = [{"returncode": 1, "error": "no"}, {"returncode": 0}]
    running.execute = lambda command: said.pop(0)
    with pytest.raises(InfrastructureError, match="ended with status 1"):
        grader.prepare(command_task() | {"config": [execute("make it", shell=True)] * 2}, guest)


def test_a_step_that_is_repeated_until_it_succeeds_may_fail_before(grader, guest, running):
    said = [{"returncode": 1}, {"returncode": 0}]
    running.execute = lambda command: said.pop(0)
    grader.prepare(command_task() | {"config": [execute("make it", shell=True, until={"returncode": 0})]}, guest)
    assert not said


def steps_that_fail():
    window = {"window_name": "x"}
    yield "launch", {"command": ["gimp"]}, "/setup/launch", 500
    yield "activate_window", window, "/setup/activate_window", 500
    yield "close_window", window, "/setup/close_window", 400
    yield "open", {"path": "/x"}, "/setup/open_file", 404
    yield "execute", {"command": ["x"]}, "/setup/execute", 500
    yield "change_wallpaper", {"path": "/x"}, "/setup/change_wallpaper", 404


@pytest.mark.parametrize(("kind", "parameters", "route", "status"), list(steps_that_fail()))
def test_a_step_that_the_server_refused_voids_the_attempt(grader, guest, running, kind, parameters, route, status):
    running.fail[route] = [status] * 5
    with pytest.raises(InfrastructureError, match=f"{route} got HTTP {status}: failed on demand|{route}") as caught:
        grader.prepare(command_task() | {"config": [{"type": kind, "parameters": parameters}]}, guest)
    assert caught.value.component == "guest"


def test_a_program_that_a_shell_could_not_launch_voids_the_attempt(grader, guest, running):
    """The server has launched the shell, and says so."""
    running.execute = lambda command: {"returncode": 127} if "command -v" in command[2] and command[3] == "vlc" else {}
    launch = {"type": "launch", "parameters": {"command": "VLC_VERBOSE=-1 vlc --no-audio '/x y.mp4'", "shell": True}}
    with pytest.raises(InfrastructureError, match=r"vlc.* ended with status 127"):
        grader.prepare(command_task() | {"config": [launch]}, guest)


def test_a_task_whose_grader_cannot_read_pictures_is_not_begun(grader, guest):
    """O4: OSWorld's metric catches that easyocr is missing, and scores 0."""
    ocr = task(func="compare_image_text", result=RESULT, expected={"type": "rule", "rules": {"type": "text", "text": "x"}})
    with pytest.raises(InfrastructureError, match=r"easyocr.* is not installed: agentlab fetch osworld --ocr") as caught:
        grader.prepare(ocr, guest)
    assert caught.value.component == "grader"


# -- channels that break while it is graded ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("failure", ["drop", 500, 502])
def test_a_file_that_the_server_does_not_give_is_no_missing_file(grader, guest, running, tmp_path, failure):
    one = file_task(tmp_path)
    grader.prepare(one, guest)
    running.files["/home/user/out.txt"] = b"done"
    running.fail["/file"] = [failure] * 3
    with pytest.raises(InfrastructureError, match="/file got"):
        grader.score(one, guest, act.Finished())
    running.fail["/file"] = [failure]
    assert grader.score(one, guest, act.Finished()) == 1.0


@pytest.mark.parametrize("answer", [b"<html>busy</html>", b"", b"[]"])
def test_an_answer_that_is_not_the_servers_is_no_answer(grader, guest, running, answer):
    one = command_task()
    grader.prepare(one, guest)
    running.answers["/execute"] = answer
    with pytest.raises(InfrastructureError, match="/execute got no JSON"):
        grader.score(one, guest, None)


def test_a_command_that_the_server_could_not_take_is_no_command_that_failed(grader, guest, running):
    one = command_task()
    grader.prepare(one, guest)
    running.fail["/execute"] = [500]  # without the words that a server has for a command that it could not run
    with pytest.raises(InfrastructureError, match="/execute got HTTP 500"):
        grader.score(one, guest, None)


ACTIVE_TASK = task(
    func="is_expected_active_tab", result={"type": "active_tab_info"}, expected={"type": "rule", "rules": {"type": "url", "url": "https://x.org"}},
)  # fmt: skip


@pytest.mark.parametrize(
    ("statuses", "says"), [([502] * 3, "HTTP 502"), ([500, "answered", 500, "answered", 500], "HTTP 500"), ([500] * 9, "")]
)
def test_a_tree_that_did_not_come_is_no_tree_of_the_agents(grader, guest, running, statuses, says):
    """Injected faults showed it: a solved task was graded 0, because the desktop was well.

    It is the way that fails where somebody in between answers, or where the same question has an answer when it is asked again.
    """
    grader.prepare(ACTIVE_TASK, guest)
    running.fail["/accessibility"] = list(statuses)
    if says:
        with pytest.raises(InfrastructureError, match=f"/accessibility got {says}"):
            grader.score(ACTIVE_TASK, guest, act.Finished())
    else:
        assert grader.score(ACTIVE_TASK, guest, act.Finished()) == 0.0, "a desktop whose server cannot give it: as upstream"


VLC_TASK = task(
    func="is_vlc_playing", result={"type": "vlc_playing_info", "dest": "status.xml"},
    expected={"type": "rule", "rules": {"type": "file_name", "file_name": "x.mp4"}},
)  # fmt: skip
TABS_TASK = task(
    func="is_expected_tabs", result={"type": "open_tabs_info"}, expected={"type": "rule", "rules": {"type": "url", "urls": ["https://x.org"]}},
)  # fmt: skip


@pytest.mark.parametrize(("one", "what"), [(VLC_TASK, "VLC"), (TABS_TASK, "the browser")])
def test_a_program_that_answers_inside_the_guest_and_not_outside_is_the_machinerys(grader, guest, running, one, what):
    """O2, O3: a port that leads nowhere, or a name that the browser refuses, graded 0."""
    grader.prepare(one, guest)
    with pytest.raises(InfrastructureError, match=f"{what} cannot be reached") as caught:
        grader.score(one, guest, act.Finished())
    assert caught.value.component == "guest"


@pytest.mark.parametrize("one", [VLC_TASK, TABS_TASK])
def test_a_program_that_the_agent_closed_scores_0(grader, guest, running, one):
    running.probe["create_connection"] = "silent"
    grader.prepare(one, guest)
    assert grader.score(one, guest, act.Finished()) == 0.0


METRICS = {
    "subprocess.run(['program-of-nowhere'])": "the program program-of-nowhere cannot be run on this machine",
    "subprocess.Popen('program-of-nowhere')": "the program program-of-nowhere cannot be run on this machine",
    "subprocess.run(['sh', '-c', 'kill -9 $$'])": "the program sh was killed on this machine",
    "import package_of_nowhere": "package_of_nowhere is not in the grader's environment",
    "requests.get('http://127.0.0.1:13/gold')": "127.0.0.1 cannot be reached",
}


def test_what_a_metric_lacks_on_this_machine_is_no_score_though_it_catches_that(guest, tmp_path):
    """Each returns 1, as OSWorld's return 0, whatever was raised before."""
    lines = ["import requests, subprocess", "def told(result, number):"]
    for number, metric in enumerate(METRICS):
        lines += ["    try:", f"        if number == {number}:", f"            {metric}", "    except Exception:", "        pass"]
    (tmp_path / "told.py").write_text("\n".join([*lines, "    return 1.0", ""]))
    one = OfficialGrader(program=write_program(tmp_path, str(tmp_path / "told.py")))
    try:
        for number, reason in enumerate([*METRICS.values(), ""]):
            told = task(func="told", result={"type": "vm_command_line", "command": "127.0.0.1"}, options={"number": number})
            one.prepare(told, guest)
            if reason:
                with pytest.raises(InfrastructureError, match=reason):
                    one.score(told, guest, None)
            else:
                assert one.score(told, guest, None) == 1.0, "what failed in one task is forgotten in the next"
    finally:
        one.close()


# -- what the agent left -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["other", "large"])
def test_a_folder_or_an_unreadable_file_where_the_result_should_be_scores_0(grader, guest, running, tmp_path, kind):
    """O5: OSWorld's server answers 500 to it, and three voids ended the session."""
    one = file_task(tmp_path)
    grader.prepare(one, guest)
    running.fail["/file"] = [500] * 3
    running.probe["S_ISREG"] = kind
    assert grader.score(one, guest, act.Finished()) == 0.0


def test_a_command_that_cannot_be_run_any_more_scores_0(grader, guest, running):
    one = command_task()
    grader.prepare(one, guest)

    def gone(command):
        raise ValueError("[Errno 2] No such file or directory: 'say'")

    running.execute = gone
    assert grader.score(one, guest, None) == 0.0


def test_a_result_that_no_evaluator_can_read_scores_0(grader, guest, running):
    """OSWorld's own runner writes no result then."""
    table = task(
        func="compare_table", options={"rules": [{"type": "sheet_data", "sheet_idx0": 0, "sheet_idx1": "EI0"}]},
        result={"type": "vm_file", "path": "/x.xlsx", "dest": "x.xlsx"}, expected={"type": "vm_file", "path": "/x.xlsx", "dest": "y.xlsx"},
    )  # fmt: skip
    grader.prepare(table, guest)
    running.files["/x.xlsx"] = b"no table at all"
    assert grader.score(table, guest, act.Finished()) == 0.0


@pytest.mark.parametrize(
    ("defaults", "score"),
    [
        ({"has_migrated_local_network_access": True}, 0.0),
        ({"has_migrated_local_network_access": True, "cookies": 4}, 1.0),
        ({"cookies": 4}, 1.0),
        (None, 0.0),
    ],
)
def test_what_the_browser_notes_by_itself_is_not_the_agents_doing(grader, guest, running, defaults, score):
    """chrome/99146c54: Chromium's own note satisfied OSWorld's evaluator, and doing nothing scored 1."""
    forgets = task(
        func="exact_match", result={"type": "data_delete_automacally"}, expected={"type": "rule", "rules": {"expected": "true"}}
    )
    running.execute = lambda command: "Linux\n" if "platform" in command[-1] else "/home/user/Default/Preferences\n"
    running.files["/home/user/Default/Preferences"] = json.dumps(
        {"profile": {"default_content_setting_values": defaults} if defaults else {}}
    ).encode()
    grader.prepare(forgets, guest)
    assert grader.score(forgets, guest, act.Finished()) == score


def test_an_evaluator_that_fails_before_it_has_seen_the_guest_is_no_score(grader, guest):
    broken = task(func="exact_match", result={"type": "vm_command_line"}, expected={"type": "rule", "rules": {"expected": "x"}})
    grader.prepare(broken, guest)
    with pytest.raises(InfrastructureError, match="KeyError: 'command'") as caught:
        grader.score(broken, guest, None)
    assert caught.value.component == "grader"


def test_a_step_before_grading_that_fails_on_what_the_agent_left_leaves_the_rest_to_be_graded(grader, guest, running, tmp_path):
    one = file_task(tmp_path, postconfig=[{"type": "open", "parameters": {"path": "/home/user/deleted"}}])
    grader.prepare(one, guest)
    running.files["/home/user/out.txt"] = b"done"
    running.fail["/setup/open_file"] = [404]
    assert grader.score(one, guest, act.Finished()) == 1.0


def test_a_grader_ends_with_the_run_that_asked_it(grader, tmp_path):
    """Also in the middle of a request."""
    code = "\n".join([
        "import sys, time",
        "from pathlib import Path",
        "from envs.osworld.grading import GraderProcess",
        "from envs.osworld.upstream import grader_python",
        "process = GraderProcess(grader_python(), Path(sys.argv[1]))",
        "process.ask({'do': 'hello'}, 300)",
        "print(process._process.pid, flush=True)",
        "time.sleep(600)",
    ])  # fmt: skip
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    pid = int(run.stdout.readline())
    run.kill()
    run.wait()
    until = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.2)
    assert not Path(f"/proc/{pid}").exists()

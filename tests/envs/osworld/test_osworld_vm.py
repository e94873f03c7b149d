"""The official machine's whole way, with a real virtual machine: boot, set up, act, grade, reset.  Slow, and only with ``AGENTLAB_VM=1``.

QEMU, a kernel and upstream's own server, in a container with the ports, the environment variables and the disk of the official one
(``vm/``).  Emulated in software where KVM does not run a guest.  ``AGENTLAB_VM_TIMES=FILE`` keeps how long everything took.
"""

import json
import os
import time
from pathlib import Path

import machine
import pytest

from envs import actions as act
from envs.base import TaskSpec
from envs.errors import InfrastructureError
from envs.osworld import kvm
from envs.osworld.env import OSWorldEnv, Timing
from envs.osworld.grading import OfficialGrader
from envs.osworld.official import OfficialProvider

pytestmark = [pytest.mark.docker, pytest.mark.timeout(5400)]

NOTE = "/home/user/note.txt"
TEXT = "a < b, é ß П 你 → ok"
OPEN = "wmctrl -l | grep note.txt"
TASK = {
    "id": "vm-note",
    "instruction": "Write the line into note.txt.",
    "config": [
        {"type": "execute", "parameters": {"command": ["sh", "-c", "echo {CLIENT_PASSWORD} | sudo -S true && touch " + NOTE]}},
        {"type": "launch", "parameters": {"command": ["mousepad", NOTE]}},
        # Asked again and again, as upstream's code can: its server ends a command after two minutes, in which a slow guest opens nothing.
        {"type": "execute", "parameters": {"command": OPEN, "shell": True, "until": {"returncode": 0}}},
        {"type": "activate_window", "parameters": {"window_name": "note.txt"}},
        {"type": "sleep", "parameters": {"seconds": 5}},
    ],
    "evaluator": {
        "postconfig": [
            {"type": "activate_window", "parameters": {"window_name": "note.txt"}},
            {"type": "execute", "parameters": {"command": ["python", "-c", "import pyautogui; pyautogui.hotkey('ctrl', 's')"]}},
            {"type": "sleep", "parameters": {"seconds": 5}},
        ],
        "func": "exact_match",
        "result": {"type": "vm_command_line", "command": ["cat", NOTE]},
        "expected": {"type": "rule", "rules": {"expected": TEXT}},
    },
}  # fmt: skip
GONE = TASK | {"id": "vm-gone", "evaluator": {"func": "compare_text_file", "result": {"type": "vm_file", "path": NOTE, "dest": "a"},
                                              "expected": {"type": "vm_file", "path": "/etc/hostname", "dest": "b"}}}  # fmt: skip
IMPOSSIBLE = TASK | {"id": "vm-impossible", "config": [{"type": "execute", "parameters": {"command": ["sh", "-c", "jq . x"]}}]}


def spec(task):
    return TaskSpec("agentlab/osworld-v0", f"os/{task['id']}", 0, 5, options={"task": task})


@pytest.fixture(scope="module")
def times():
    kept: dict[str, float] = {}
    yield kept
    keep(kept)


def keep(times):
    if os.environ.get("AGENTLAB_VM_TIMES"):
        Path(os.environ["AGENTLAB_VM_TIMES"]).write_text(json.dumps(times, indent=2) + "\n")


@pytest.fixture(scope="module")
def provider(module_ledger, tmp_path_factory, times):
    if not os.environ.get("AGENTLAB_VM"):
        pytest.skip("boots a virtual machine in software, half an hour: set AGENTLAB_VM=1 to run it")
    if not os.environ.get("AGENTLAB_PREBUILT"):
        machine.build()
    disk = machine.disk(tmp_path_factory.mktemp("disk"))
    started = time.monotonic()
    made = OfficialProvider(
        disk,
        "vm-test",
        ram="1500M",
        cores=2,
        image=machine.TAG,
        spares=1,
        ledger=module_ledger,
        log_dir=tmp_path_factory.mktemp("logs"),
    )
    times["tiny guest, KVM"] = float(made.kvm)
    times["provider started"] = time.monotonic() - started
    yield made
    made.close()


def test_the_tiny_guest_runs_where_it_is_emulated(provider):
    assert kvm.try_guest(machine.TAG, kvm=False)


def test_boot_set_up_act_grade_and_reset(provider, times):
    grader = OfficialGrader(patience=provider.patience)
    timing = Timing(after_reset=5.0, after_action=3.0, before_grading=5.0, until_rest=False)
    env = OSWorldEnv(provider=provider, grader=grader, timing=timing)
    marks = [time.monotonic()]

    def mark(what):
        times[what] = round(time.monotonic() - marks[-1], 1)
        marks.append(time.monotonic())
        keep(times)  # of a run that is stopped, too

    try:
        observation, _ = env.reset(options={"task": spec(TASK)})
        mark("boot and set up")
        assert observation["screenshot"].shape == (1080, 1920, 3)
        env.guest.client.screenshot()
        mark("one screenshot")
        _, _, _, _, info = env.step(act.Type(TEXT))
        assert "invalid" not in info
        mark("one action with its picture")
        _, score, *_ = env.step(act.Finished())
        mark("grade")
        assert score == 1.0
        first = env.guest.container.name
        env.reset(options={"task": spec(GONE)})
        mark("reset to a machine that waited")
        assert env.guest.container.name != first and env.guest.client.download(NOTE) == b"", "nothing of the first is left"
        env.guest.client.execute(["sh", "-c", f"rm {NOTE}; mkdir {NOTE}"])
        assert env.step(act.Finished())[1] == 0.0, "upstream's server answers 500 to a folder"
        mark("grade what the agent made unreadable")
        with pytest.raises(InfrastructureError, match=r"jq.* ended with status 127"):
            env.reset(options={"task": spec(IMPOSSIBLE)})
        mark("reset again")
    finally:
        env.close()
        grader.close()

"""What each of OSWorld's runners writes into traj.jsonl (one function per agent in its lib_run_single.py), read as a run."""

import json

import numpy as np
import pytest
from PIL import Image
from test_import_osworld import ONE, attempt, picture

from agentlab.disk.runs import read_screen
from agentlab.exchange.import_osworld import import_osworld
from agentlab.view.library import Library

STAMP, LATER = "20260101@120001", "20260101@120002"
CLICK = "pyautogui.click(30, 20)"
AFTER = {"reward": 0, "done": False, "info": {}}


def write(folder, lines, screens, result="1.0\n"):
    """``screens``: file -> number of its picture."""
    folder.mkdir(parents=True)
    for name, number in screens.items():
        Image.fromarray(picture(number)).save(folder / name)
    (folder / "traj.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    (folder / "recording.mp4").write_bytes(b"\0")
    (folder / "runtime.log").write_text("log")
    if result is not None:
        (folder / "result.txt").write_text(result)


def line(number, action, stamp=STAMP, **more):
    return {
        "step_num": number, "action_timestamp": stamp, "action": action, **AFTER, "screenshot_file": f"step_{number}_{stamp}.png",
    } | more  # fmt: skip


def after(*numbers):
    return {f"step_{n}_{STAMP if n == 1 else LATER}.png": n for n in numbers}


UI_TARS = "Thought: The menu is there.\nAction: click(start_box='(300,400)')"
RUNNERS = {
    # name: (lines, screens, [picture before each step …, last picture], [actions of each step], [thought of each step])
    "the common one, as UI-TARS is run": (
        [line(1, CLICK, response=UI_TARS), line(2, "DONE", LATER, response="Thought: Done.\nAction: finished()")],
        after(1, 2), [None, 1, 2], [["click"], ["finished"]], ["The menu is there.", "Done."],
    ),
    "OpenCUA, Kimi, EvoCUA: the action in words": (
        [
            line(1, CLICK, response="The menu first.", natural_language_action="Click the menu."),
            line(2, "FAIL", LATER, response=None, natural_language_action="Give up."),
        ],
        after(1, 2), [None, 1, 2], [["click"], ["fail"]], ["The menu first.", "Give up."],
    ),
    "OpenAI's computer use: no reply, the action an object": (
        [line(1, {"action_space": "pyautogui", "action": CLICK, "call_id": "c1"})],
        after(1), [None, 1], [["click"]], [""],
    ),
    "Anthropic's: the action an object with a command": (
        [line(1, {"name": "computer", "input": {"action": "left_click", "coordinate": [30, 20]}, "command": CLICK}, response="[block]")],
        after(1), [None, 1], [["click"]], ["[block]"],
    ),
    "Mano: the first screen kept, the reply last": (
        [line(1, f"pyautogui.keyDown('ctrl')\n{CLICK}\npyautogui.keyUp('ctrl')", response="r")],
        after(1) | {"step_0.png": 4}, [4, 1], [["click"]], ["r"],
    ),
    "MobileAgent: no reply, the first screen with a time, a step that failed": (
        [
            {k: v for k, v in line(1, CLICK, step_status=True).items() if k != "info"},
            {k: v for k, v in line(2, "pyautogui.wait", LATER, step_status=False, reward=None).items() if k != "info"},
        ],
        after(1) | {f"step_0_{STAMP}.png": 4}, [4, 1, None], [["click"], []], ["", ""],
    ),
    "OS-Symphony: the screen before the action, the instruction on every line": (
        [
            {"instruction": "Open it.", "step_num": 1, "action": CLICK, "response": {"plan": "p"}, "screenshot_file": "step_1.png"},
            {"instruction": "Open it.", "step_num": 2, "action": "DONE", "response": {}, "screenshot_file": "step_2_milestone.png"},
        ],
        {"step_1.png": 1, "step_2_milestone.png": 2, "step_1_draw.png": 5}, [1, 2, None], [["click"], ["finished"]],
        ['{"plan": "p"}', "{}"],
    ),
    "RiOSWorld: the screen before the action by name": (
        [
            {"step_num": 1, "action_timestamp": STAMP, "action": CLICK, **AFTER, "screenshot_file_before_exec": f"step_0_{STAMP}.png"},
            {"step_num": 2, "action_timestamp": STAMP, "action": "DONE", **AFTER, "screenshot_file_before_exec": f"step_1_{STAMP}.png"},
        ],
        {f"step_0_{STAMP}.png": 1, f"step_1_{STAMP}.png": 2}, [1, 2, None], [["click"], ["finished"]], ["", ""],
    ),
    "several actions of one reply": (
        [line(1, CLICK, response="r"), line(1, "pyautogui.write('a')", LATER, response="r"), line(2, "DONE", LATER, response="d")],
        {f"step_1_{STAMP}.png": 1, f"step_1_{LATER}.png": 2, f"step_2_{LATER}.png": 3}, [None, 2, 3], [["click", "type"], ["finished"]],
        ["r", "d"],
    ),
    "several actions on one line": (
        [line(1, "DONE", actions=[CLICK, "DONE"], response="r")], after(1), [None, 1], [["click", "finished"]], ["r"],
    ),
    "people: no action": (
        [{"instruction": "Open it.", "initial_state": "initial_state.png"}], {"initial_state.png": 4}, [4], [], [],
    ),
    "people, of a fork: how it ended": (
        [
            {"instruction": "Open it.", "initial_state": f"initial_state_{STAMP}.png"},
            {"final_state": f"final_state_{LATER}.png", "end_time": LATER, "result": 1.0, "mode": "manual_operation"},
        ],
        {f"initial_state_{STAMP}.png": 4, f"final_state_{LATER}.png": 5}, [5], [], [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("runner", RUNNERS)
def test_what_a_runner_writes_is_read(runner, tmp_path):
    lines, screens, shown, actions, thoughts = RUNNERS[runner]
    write(tmp_path / f"results/pyautogui/screenshot/m/chrome/{ONE}", lines, screens)
    done = import_osworld(tmp_path / "results", tmp_path / "runs/run")
    assert (done.tasks, done.graded, done.solved) == (1, 1, 1)
    one = attempt(tmp_path / "runs/run", f"chrome+{ONE}_0")
    assert [[a["kind"] for a in step["actions"]] for step in one.steps] == actions
    assert [step["thought"] for step in one.steps] == thoughts
    names = [*(step["screen"] for step in one.steps), one.end["screen"]]
    found = [
        next(n for n in range(9) if np.array_equal(read_screen(one.folder, name), picture(n))) if name else None for name in names
    ]
    assert found == shown
    assert [r for r in done.remarks if "unknown" in r or "incomplete" in r or "missing" in r] == []
    if any("instruction" in entry for entry in lines):
        assert one.begin["instruction"] == "Open it."
    library = Library([tmp_path / "runs"])
    (key,) = library.runs()
    (shown_there,) = library.session(key, f"chrome+{ONE}_0")["attempts"]
    assert [step["thought"] for step in shown_there["steps"]] == thoughts

"""A run in the result layouts of OSWorld and of AndroidWorld, so that their own scripts count it.

OSWorld (``show_result.py``, the leaderboard's checks): ``pyautogui/screenshot/<model>/<domain>/<task id>/`` with ``result.txt``,
``traj.jsonl`` and the screen after each step, where there was one.  Upstream has one session at a task; where a run has several (repeats,
or instances of one name), each has a folder of its own, called like the session.  AndroidWorld
(``checkpointer.IncrementalCheckpointer``): one gzipped pickle of plain values per task instance.  Upstream has one attempt at a task: the
first one of a session stands, whatever was learned afterwards.
"""

from __future__ import annotations

import datetime
import gzip
import itertools
import json
import pickle
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from agentlab.disk.files import disk_errors, write_atomic
from agentlab.disk.names import folder_name
from agentlab.disk.runs import Run, screen_path
from agentlab.exchange.plain import Data
from agentlab.exchange.source import Exported, Lived, sessions
from envs import actions as act
from envs.errors import InvalidActionError, StoreError

SPACE, OBSERVATION = "pyautogui", "screenshot"
SPECIAL: dict[type[act.Action], str] = {act.Wait: "WAIT", act.Finished: "DONE", act.Fail: "FAIL"}
BUTTONS: dict[type[act.Action], str] = {
    act.Click: "click", act.DoubleClick: "doubleClick", act.TripleClick: "tripleClick", act.RightClick: "rightClick",
    act.MiddleClick: "middleClick", act.Hover: "moveTo", act.MouseDown: "mouseDown", act.MouseUp: "mouseUp",
}  # fmt: skip
SCROLL_CLICKS = 5


def _first(run: Run, done: Exported) -> Iterator[Lived]:
    for attempts in sessions(run, done):
        first = next((lived for lived in attempts if lived.number == 1), None)
        if first is not None:
            yield first
        elif attempts:
            done.left_out.append(f"{attempts[0].session}: its first attempt has no result")


def write_osworld(run: Run, folder: Path, guidance: bool) -> Exported:
    """See :func:`agentlab.exchange.export.export_run`."""
    done = Exported("results")
    base = folder / SPACE / OBSERVATION / _name(str(run.config.get("policy")))
    places = _places(run)
    for lived in _first(run, done):
        target = base / places[lived.row.task]
        with disk_errors(target):
            target.mkdir(parents=True, exist_ok=True)
        lines = [_osworld_line(lived, target, number, done) for number in range(len(lived.data["steps"]))]
        write_atomic(target / "traj.jsonl", "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))
        write_atomic(target / "result.txt", f"{float(lived.row.score or 0.0)}\n")
        done.count += 1
    if done.count:
        arguments = {"model": base.name, "action_space": SPACE, "observation_type": OBSERVATION}
        steps = run.config.get("max_steps")
        write_atomic(base / "args.json", json.dumps(arguments | ({"max_steps": steps} if steps else {}), indent=4) + "\n")
    return done


def _places(run: Run) -> dict[str, Path]:
    """The folder of every session, by the id of its task: ``<domain>/<task id>``, and no folder twice."""
    tasks = {row.task: row for row in run.rows}
    own = {task: Path(_name(row.domain or "all"), _name(row.name)) for task, row in tasks.items()}
    often = Counter(own.values())
    places = {task: place for task, place in own.items() if often[place] == 1}
    for task in [task for task in own if task not in places]:
        place = own[task].with_name(_name(folder_name(task)))
        taken = set(places.values())
        places[task] = next(p for n in itertools.count() if (p := place.with_name(place.name + "-" * n)) not in taken)
    return places


def _osworld_line(lived: Lived, target: Path, number: int, done: Exported) -> Data:
    step, last = lived.data["steps"][number], number == len(lived.data["steps"]) - 1
    after = lived.data["final"] if last else lived.data["steps"][number + 1]
    name = f"step_{number + 1}_{number + 1:06d}.png"
    pictured = _write_screen(lived, after, target / name, done)
    actions = [_action(data) for data in step["actions"]]
    return {
        "step_num": number + 1,
        "action_timestamp": f"{number + 1:06d}",
        "action": "\n".join(map(as_pyautogui, actions)),
        "response": step["text"],
        "reward": float(lived.row.score or 0.0) if last else 0,
        "done": last,
        "info": {"invalid": step["invalid"]} if step["invalid"] else {},
        **({"screenshot_file": name} if pictured else {}),
    }


def _write_screen(lived: Lived, seen: Data, file: Path, done: Exported) -> bool:
    """Whether there was a screen to write: a text has none, and one that is missing is named in ``done``."""
    if not seen["pictured"]:
        return False
    try:
        with Image.open(screen_path(lived.folder, f"screens/{seen['screen']}"), formats=["WEBP"]) as image:
            image.load()
    except (StoreError, OSError, Image.DecompressionBombError):
        done.left_out.append(f"{lived.place}: no {file.name}, because that screen is missing")
        return False
    with disk_errors(file):
        image.save(file)
    done.images += 1
    return True


def _action(data: Data) -> act.Action:
    try:
        return act.from_json(data)
    except InvalidActionError as error:
        return act.Invalid(error.message)


def as_pyautogui(action: act.Action) -> str:
    """An action as OSWorld's agents write it."""
    if type(action) in SPECIAL:
        return SPECIAL[type(action)]
    match action:
        case act.Drag(x, y, end_x, end_y):
            return f"pyautogui.moveTo({x:.0f}, {y:.0f})\npyautogui.dragTo({end_x:.0f}, {end_y:.0f}, duration=0.5)"
        case act.LongPress(x, y):
            return f"pyautogui.mouseDown({x:.0f}, {y:.0f})\ntime.sleep(1)\npyautogui.mouseUp()"
        case act.Scroll(x, y, direction):
            name = "hscroll" if direction in ("left", "right") else "scroll"
            clicks = action.clicks or SCROLL_CLICKS
            return f"pyautogui.{name}({clicks if direction in ('up', 'right') else -clicks}, x={x:.0f}, y={y:.0f})"
        case act.Type(text, submit):
            return f"pyautogui.write({text!r})" + ("\npyautogui.press('enter')" if submit else "")
        case act.Hotkey(keys):
            return f"pyautogui.hotkey({', '.join(map(repr, keys))})"
        case act.KeyDown(keys) | act.KeyUp(keys):
            verb = "keyDown" if isinstance(action, act.KeyDown) else "keyUp"
            return "\n".join(f"pyautogui.{verb}({key!r})" for key in keys)
    if type(action) in BUTTONS and isinstance(action, act.POINTED):
        return f"pyautogui.{BUTTONS[type(action)]}({action.x:.0f}, {action.y:.0f})"
    return f"# {act.describe(action)}"


def write_androidworld(run: Run, folder: Path, guidance: bool) -> Exported:
    """See :func:`agentlab.exchange.export.export_run`."""
    done = Exported("episodes")
    instances: dict[str, int] = {}
    for lived in _first(run, done):
        template = _name(lived.row.name)
        number = instances.get(template, 0)
        instances[template] = number + 1
        episode = _episode(run, lived, template, number)
        with disk_errors(folder):
            (folder / f"{template}_{number}.pkl.gz").write_bytes(gzip.compress(pickle.dumps([episode]), compresslevel=5))
        done.count += 1
    return done


def _episode(run: Run, lived: Lived, template: str, number: int) -> dict[str, Any]:
    steps = lived.data["steps"]
    return {
        "goal": lived.data["instruction"],
        "task_template": template,
        "instance_id": number,
        "is_successful": float(lived.row.score or 0.0),
        "episode_length": len(steps),
        "run_time": float(lived.row.seconds.total),
        "exception_info": None,
        "aux_data": None,
        "screen_config": None,
        "seed": lived.row.seed,
        "agent_name": str(run.config.get("policy")),
        "finish_dtime": datetime.datetime.fromtimestamp(lived.folder.stat().st_mtime),
        "episode_data": {
            "step_number": list(range(len(steps))),
            "action_output": [step["text"] for step in steps],
            "action_output_json": [step["actions"] for step in steps],
        },
    }


def _name(text: str) -> str:
    """A folder or file name of it, as upstream's are."""
    return re.sub(r"[^\w.@+-]+", "-", text).strip(".-") or "unnamed"

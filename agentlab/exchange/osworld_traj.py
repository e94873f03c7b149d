"""Lines of OSWorld's ``traj.jsonl``, in the forms in which its runners (``lib_run_single.py``, one function per agent) write them.

Most write a line per action with the screen *after* it (``screenshot_file``) and the whole reply.  Some differ: agents that act by
themselves (OpenAI's, MobileAgent) write no reply, OpenCUA, Kimi and EvoCUA add the action in words, OS-Symphony and forks name the
screen *before* the action, and runs of people have lines without an action.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentlab.exchange.plain import text
from agentlab.exchange.pyautogui_text import read_actions
from envs import actions as act
from policies.families.ui_tars.parse import split_reply
from retrospect.trace import Step

Entry = Mapping[str, Any]
NOTES = {"instruction", "initial_state", "final_state", "session_id"}
"""Keys of lines that are about the episode, not about an action."""
UNSTAMPED = re.compile(r"step_\d+(_milestone)?\.png")
FIRST = ("step_0.png", "step_0_*.png", "initial_state.png", "initial_state_*.png")
"""Where some runners put the first screen, which the others do not keep."""


def is_action(entry: Entry) -> bool:
    """Whether the line is one of an action (and not a note, or an error)."""
    return "action" in entry or "actions" in entry or "response" in entry


def is_note(entry: Entry) -> bool:
    return bool(NOTES & entry.keys())


def screen_before(entry: Entry) -> Any:
    """Name of the screen before the action, where the line has that one."""
    if "screenshot_file_before_exec" in entry:
        return entry["screenshot_file_before_exec"]
    name = entry.get("screenshot_file")
    unstamped = "action_timestamp" not in entry and "instruction" in entry
    return name if unstamped and isinstance(name, str) and UNSTAMPED.fullmatch(name) else None


def screen_after(entry: Entry) -> Any:
    """Name of the screen after the action, where the line has that one; an action that failed has none."""
    if screen_before(entry) is not None or entry.get("step_status") is False:
        return ""
    return entry.get("screenshot_file")


def first_screen(folder: Path) -> str:
    """Name of the first screen of an episode, "" if its runner did not keep it."""
    return next((found.name for pattern in FIRST for found in sorted(folder.glob(pattern))), "")


def step_of(index: int, entries: Sequence[Entry]) -> Step:
    """The actions of one reply."""
    reply = entries[0].get("response")
    said = reply if isinstance(reply, str) else json.dumps(reply, ensure_ascii=False) if reply is not None else ""
    thought, action_text = split_reply(said)
    done = [action for entry in entries for action in _actions(entry)]
    written = "\n".join(a if isinstance(a, str) else json.dumps(a) for a in done if a is not None)
    words = next((text(entry["natural_language_action"]) for entry in entries if entry.get("natural_language_action")), "")
    return Step(
        index=index,
        observation={},
        text=said or written,
        thought=thought or words,
        action_text=written or action_text,
        actions=tuple(read_actions(done)),
        invalid="",
        seconds={},
        tokens=0,
    )


def _actions(entry: Entry) -> list[Any]:
    """What was done; forks that make all actions of a reply at once list them beside the last one."""
    several = entry.get("actions")
    return list(several) if isinstance(several, list) else [entry.get("action")]


def ended_by(steps: Sequence[Step]) -> str:
    """``finished`` or ``fail`` where the agent said so, else the budget."""
    last = steps[-1].actions[-1] if steps and steps[-1].actions else None
    return last.kind if isinstance(last, act.TERMINAL) else "budget"

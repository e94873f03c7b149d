"""Attempts as conversations for training, one JSON object per line: solved ones (SFT), and failed beside solved (preference pairs).

A conversation is what happened: the instruction with the first screen or text, a reply, the screen or text it led to, a reply, …
Screens are parts ``{"type": "image", "image": "images/…"}``, relative to the file; ``images`` lists them in the order of the
conversation.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agentlab.disk.files import write_atomic
from agentlab.disk.runs import Run
from agentlab.exchange.plain import Data
from agentlab.exchange.source import Exported, Lived, Screens, sessions
from envs.errors import StoreError


def write_sft(run: Run, folder: Path, guidance: bool) -> Exported:
    """``sft.jsonl``: a line per attempt that solved its task.  See :func:`agentlab.exchange.export.export_run`."""
    done = Exported("solved attempts")
    screens, lines = Screens(folder, done), []
    for attempts in sessions(run, done):
        for lived in attempts:
            if lived.solved and (messages := _conversation(lived, screens, guidance, done)) is not None:
                lines.append(_about(lived) | {"messages": messages, "images": _images(messages)})
    return _finish(folder / "sft.jsonl", lines, done)


def write_pairs(run: Run, folder: Path, guidance: bool) -> Exported:
    """``pairs.jsonl``: a line per failed attempt at a task that another attempt solved.

    ``prompt`` is the instruction with the first screen or text, ``chosen`` and ``rejected`` are what followed; ``same_replies`` is how many
    replies at the start are the same in both.
    """
    done = Exported("pairs")
    screens, lines = Screens(folder, done), []
    for attempts in sessions(run, done):
        solved = next((lived for lived in attempts if lived.solved), None)
        failed = [lived for lived in attempts if not lived.solved]
        chosen = _conversation(solved, screens, guidance, done) if solved is not None and failed else None
        if solved is None or chosen is None:
            continue
        for lived in failed:
            rejected = _conversation(lived, screens, guidance, done)
            if rejected is not None:
                lines.append(_pair(solved, lived, chosen, rejected))
    return _finish(folder / "pairs.jsonl", lines, done)


def _pair(solved: Lived, failed: Lived, chosen: list[Data], rejected: list[Data]) -> Data:
    return {
        "task": solved.row.task,
        "domain": solved.row.domain,
        "chosen_attempt": solved.number,
        "rejected_attempt": failed.number,
        "chosen_guidance": solved.data["guidance"],
        "rejected_guidance": failed.data["guidance"],
        "same_replies": _same_replies(solved, failed),
        "prompt": chosen[:1],
        "chosen": chosen[1:],
        "rejected": rejected[1:],
        "images": _images(chosen[:1]),
        "chosen_images": _images(chosen[1:]),
        "rejected_images": _images(rejected[1:]),
    }


def _same_replies(one: Lived, other: Lived) -> int:
    same = 0
    for a, b in zip(one.data["steps"], other.data["steps"], strict=False):
        if a["text"] != b["text"]:
            break
        same += 1
    return same


def _conversation(lived: Lived, screens: Screens, guidance: bool, done: Exported) -> list[Data] | None:
    """The attempt as messages, ending with its last reply; None (and named in ``done``) if a screen of it is missing."""
    told = lived.data["instruction"]
    if guidance and lived.data["guidance"]:
        told = f"{told}\n\n{lived.data['guidance']}"
    messages: list[Data] = []
    try:
        for step in lived.data["steps"]:
            parts: list[Data] = [] if messages else [{"type": "text", "text": told}]
            if step["observation"] is not None:
                parts.append({"type": "text", "text": step["observation"]})
            if (image := screens.add(lived, step)) is not None:
                parts.append({"type": "image", "image": image})
            messages.append({"role": "user", "content": parts})
            messages.append({"role": "assistant", "content": [{"type": "text", "text": step["text"]}]})
    except StoreError as error:
        done.left_out.append(f"{lived.session}/{lived.number}: {error.message}")
        return None
    return messages


def _images(messages: list[Data]) -> list[str]:
    return [part["image"] for message in messages for part in message["content"] if part["type"] == "image"]


def _about(lived: Lived) -> dict[str, Any]:
    return {
        "task": lived.row.task,
        "domain": lived.row.domain,
        "attempt": lived.number,
        "score": lived.row.score,
        "guidance": lived.data["guidance"],
        "invalid_steps": sum(bool(step["invalid"]) for step in lived.data["steps"]),
    }


def _finish(path: Path, lines: list[Data], done: Exported) -> Exported:
    write_atomic(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    done.count = len(lines)
    return done

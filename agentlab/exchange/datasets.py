"""A folder that Hugging Face ``datasets`` reads: ``datasets.load_dataset(DIR)`` gives a row per step, with its screens as images.

An image folder, ``train/metadata.jsonl`` beside the screens, and a card; of a benchmark without pictures ``train/data.jsonl``.
Nothing but files; ``datasets`` is not needed to write it.
"""

from __future__ import annotations

import json
from pathlib import Path

from agentlab.disk.files import write_atomic
from agentlab.disk.names import quoted
from agentlab.disk.runs import Run
from agentlab.exchange.plain import Data
from agentlab.exchange.source import Exported, Lived, Screens, sessions
from envs.errors import StoreError

CARD = """---
task_categories:
- {category}
tags:
- {tag}
configs:
- config_name: default
  data_files:
  - split: train
    path: train/**
---

# {title}

{steps} steps of {attempts} attempts, written by `agentlab export --format datasets`.  A row is one step of one attempt:

| column | meaning |
|---|---|
{seen}
| `task`, `domain`, `attempt`, `step` | where the row comes from; attempts and steps count from 1 |
| `instruction`, `guidance` | what the agent was asked, and what it had been told after earlier attempts |
| `text`, `thought`, `actions` | its reply, the thought in it, and the actions as JSON (coordinates, if any, in pixels of the screen) |
| `invalid` | why the actions were not executed ("" if they were) |
| `feedback` | what a user said to the step ("" if nothing); the agent did not see it in this attempt |
| `credit` | credit of the step in [-1, 1], if the run gave any |
| `solved`, `score`, `reward` | how the whole attempt ended |
| `tokens`, `logprob` | of the reply |
"""


SCREENS = "| `screen`, `next_screen` | the screen the agent saw, and the one its actions led to |"
TEXTS = "| `observation`, `next_observation` | the text the agent saw, and the one its actions led to |"


def write(run: Run, folder: Path, guidance: bool) -> Exported:
    """See :func:`agentlab.exchange.export.export_run`."""
    done = Exported("steps")
    train = folder / "train"
    screens, lines, attempts = Screens(train, done), [], 0
    for session in sessions(run, done):
        for lived in session:
            try:
                lines += _rows(lived, screens, guidance)
                attempts += 1
            except StoreError as error:
                done.left_out.append(f"{lived.session}/{lived.number}: {error.message}")
    train.mkdir(exist_ok=True)
    pictured = any("screen_file_name" in line for line in lines)
    write_atomic(
        train / ("metadata.jsonl" if pictured else "data.jsonl"),
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines),
    )
    write_atomic(folder / "README.md", _card(run, lines, attempts))
    done.count = len(lines)
    return done


def _card(run: Run, lines: list[Data], attempts: int) -> str:
    pictured = any("screen_file_name" in line for line in lines)
    seen = [SCREENS] if pictured else []
    seen += [TEXTS] if any("observation" in line for line in lines) else []
    return CARD.format(
        title=quoted(run.title),
        steps=len(lines),
        attempts=attempts,
        category="image-text-to-text" if pictured else "text-generation",
        tag="gui-agents" if pictured else "agents",
        seen="\n".join(seen),
    )


def _seen(before: Data, after: Data, shown: tuple[str | None, str | None]) -> Data:
    """The columns of what there was to see; columns without content are left out."""
    screens = {"screen_file_name": shown[0], "next_screen_file_name": shown[1]} if shown[0] is not None else {}
    texts = {"observation": before["observation"], "next_observation": after["observation"]}
    return screens | (texts if before["observation"] is not None else {})


def _rows(lived: Lived, screens: Screens, guidance: bool) -> list[Data]:
    """The attempt's rows; raises StoreError if a screen of it is missing."""
    seen = lived.seen
    shown = [screens.add(lived, what) for what in seen]
    rows = []
    for place, step in enumerate(lived.data["steps"]):
        rows.append(
            {
                **_seen(seen[place], seen[place + 1], (shown[place], shown[place + 1])),
                "task": lived.row.task,
                "domain": lived.row.domain,
                "attempt": lived.number,
                "step": place + 1,
                "instruction": lived.data["instruction"],
                "guidance": lived.data["guidance"] if guidance else "",
                "text": step["text"],
                "thought": step["thought"],
                "actions": json.dumps(step["actions"]),
                "invalid": step["invalid"],
                "feedback": step["feedback"],
                "credit": _float(step["credit"]),
                "solved": lived.solved,
                "score": _float(lived.row.score),
                "reward": lived.row.reward,
                "tokens": int(step["tokens"] or 0),
                "logprob": _float(step["logprob"]),
            }
        )
    return rows


def _float(value: float | None) -> float | None:
    """A column is of one type: 1 and 0.5 must not meet in it."""
    return None if value is None else float(value)

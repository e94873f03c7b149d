"""Steps of setting up whose failure is not a failure of the set-up, each with its reason.

OSWorld's code looks at no exit status at all.  Here every other one counts, because a task that was not set up cannot be graded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

ONE = (1,)
FOUND = range(126)
"""Exit statuses of a command that was there and was run; 126 and 127 are a shell's for one that was not."""


@dataclass(frozen=True)
class Tolerated:
    """Steps that may fail.

    Attributes:
        command: Pattern that is found in the command, as JSON has it.
        statuses: Exit statuses that it may have.
        reason: Why the task is still sound.
    """

    command: str
    statuses: Container[int]
    reason: str


LAST = r"[^&;|]*$"
"""Nothing comes after it that would not have been run."""

STEPS = (
    Tolerated(r"\b(pkill|killall)\b" + LAST, ONE, "ends a program that need not be running"),
    Tolerated(r"\bunzip\b" + LAST, ONE, "status 1 of unzip is a warning; the files are there"),
    Tolerated(r'^\["update-desktop-database"\]$', ONE, "a plain user may not write the system's list of applications, which is a cache"),
    Tolerated(
        r"^\"mkdir /home/test1\"$", ONE,
        "os/5812b315: a plain user may not, on OSWorld's machine neither; the task is to make an account that has this folder",
    ),
    Tolerated(
        r"apt-get install sysstat\"$", ONE,
        "multi_apps/2373b66a: asks for a confirmation that nobody gives, where sysstat is not there; installing it is part of the task",
    ),
    Tolerated(r"^\"\./setup\.sh\"$", FOUND, "os/4d117223, os/6f56bf42: a script's status is that of whatever it does last"),
)  # fmt: skip
"""Found by reading all 391 ``execute`` and ``command`` steps that set up the 369 tasks."""


def tolerated(command: Any, status: int) -> bool:
    """Whether a step with this command may end with this exit status."""
    text = json.dumps(command)
    return status == 0 or any(status in step.statuses and re.search(step.command, text) for step in STEPS)

"""What the names in a run's settings stand for: the weights behind its policy's name, and the tasks behind its suite's.

A checkpoint's folder and a file of questions keep their names when they are replaced.  A run notes what they were; continued with others
it would be one run of two policies, or of two sets of tasks, so it is refused.  Weights are known by numbers sampled from them once they
are loaded (:meth:`policies.base.Policy.fingerprint`), which reads nothing from disk; of policies whose weights are elsewhere (``openai:``,
``served:``) nothing is known.  Runs that were begun before there was a note go on, and have one from then on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentlab.disk.files import read_json, strict_json, write_atomic
from agentlab.disk.row import Row
from envs.base import TaskSpec
from envs.errors import PolicyError, StoreError
from policies.base import Policy

NOTE = "identity.json"
"""In the run's folder."""
SHOWN = 5
"""Tasks named in a message."""


class Identity:
    """The note of a run, which is locked by the caller.

    Args:
        made: Rows that the run has: as long as there are none, nothing is fixed.

    Raises:
        StoreError: the note is damaged.
    """

    def __init__(self, folder: Path, made: Sequence[Row]) -> None:
        self.folder, self._begun = folder, list(dict.fromkeys(row.task for row in made))
        self._then = self._read() if self._begun else {}

    def _read(self) -> dict[str, Any]:
        path = self.folder / NOTE
        if not os.path.lexists(path):
            return {}
        try:
            return read_json(path)
        except StoreError as error:
            raise StoreError(error.message, f"Remove {path} if you know that policy and tasks are those it began with.") from error

    def check_tasks(self, suite: str, tasks: Sequence[TaskSpec]) -> None:
        """Refuse tasks of which one that has been begun is another now, or is gone.

        Raises:
            StoreError: that is so.
        """
        now = {task.id: digest_of(task) for task in tasks}
        noted = self._then.get("tasks")
        then: dict[str, Any] = noted if isinstance(noted, dict) else {}
        other = [task for task in self._begun if task in then and then[task] != now.get(task)]
        if other:
            some = ", ".join(other[:SHOWN]) + (" …" if len(other) > SHOWN else "")
            raise StoreError(
                f"{self.folder} was begun with other tasks than {suite} has now ({len(other)} of those begun: {some}).",
                "Bring the tasks back as they were to continue it, or use --out DIR for a new run.",
            )
        self._note(tasks=now)

    def check_policy(self, policy: Policy) -> None:
        """Refuse a policy with other weights.

        Raises:
            StoreError: it has.
        """
        now, then = weights_of(policy), self._then.get("policy")
        if now and then and now != then:
            raise StoreError(
                f"{self.folder} was begun with other weights than the policy {policy.name} has now.",
                "Bring them back (the same files, model.dtype and model.device) to continue it, or use --out DIR for a new run.",
            )
        self._note(policy=now or then or "")

    def _note(self, **what: Any) -> None:
        if all(self._then.get(key) == value for key, value in what.items()):
            return
        self._then |= what
        write_atomic(self.folder / NOTE, strict_json(self._then, indent=1) + "\n")


def weights_of(policy: Policy) -> str:
    """The policy's fingerprint, "" where it has none."""
    try:
        return policy.fingerprint()
    except PolicyError:  # its head is of a kind that cannot be adapted, nor told from another
        return ""


def digest_of(task: TaskSpec) -> str:
    """Twelve hexadecimal digits that stand for all that makes the task, wherever on this machine its files lie."""
    known = [task.env_id, task.name, task.seed, task.max_steps, task.feasible, _without_places(task.options)]
    return hashlib.sha256(json.dumps(known, sort_keys=True, default=repr).encode()).hexdigest()[:12]


def _without_places(value: Any) -> Any:
    """``value`` with the last part of every absolute path in the place of it: the tasks' folder may move with the run."""
    if isinstance(value, dict):
        return {str(key): _without_places(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_places(item) for item in value]
    return value.rpartition("/")[2] if isinstance(value, str) and value.startswith("/") and "\n" not in value else value

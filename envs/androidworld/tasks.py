"""The tasks of AndroidWorld: names, complexities and budgets, known here without upstream's package.

``tasks.json`` has nothing but these facts, at the revision it names; goals and parameters always come from the server, which runs
upstream's own code.  The tests compare every fact, and every goal and parameter, with the real package.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

from envs.errors import UsageError, did_you_mean

ENV_ID = "agentlab/androidworld-v0"
FAMILIES = ("android_world", "android", "information_retrieval", "miniwob", "miniwob_subset")
MINIWOB_COMPLEXITY = 3.0


@dataclass(frozen=True)
class Task:
    """What is known of a task before any instance of it.

    Attributes:
        name: Upstream's name, e.g. ``ContactsAddContact``, or of the miniwob family ``click-test``.
        complexity: Upstream's figure, about a tenth of twice the steps that a person needs.
        domain: Applications, shortened: ``contacts``, ``markor/sms``.
        difficulty: ``easy``, ``medium``, ``hard``; empty for the miniwob family.
        answers: An information-retrieval task: 0 unless the agent answers.
        miniwob: It is a page of MiniWoB++ in an Android application, which itself ends the episode.
    """

    name: str
    complexity: float
    domain: str
    difficulty: str = ""
    answers: bool = False
    miniwob: bool = False

    @property
    def budget(self) -> int:
        """Steps of the agent (upstream's ``_allocate_step_budget``)."""
        return int(10 * self.complexity)


@functools.cache
def _facts() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(resources.files("envs.androidworld").joinpath("tasks.json").read_text(encoding="utf-8"))
    return found


def revision() -> str:
    """The commit of upstream that everything here is made for."""
    return str(_facts()["revision"])


@functools.cache
def family(name: str) -> dict[str, Task]:
    """The tasks of one of upstream's families by name, in upstream's (alphabetical) order.

    Raises:
        UsageError: there is no such family.
    """
    facts = _facts()
    if name not in FAMILIES:
        raise UsageError(f"AndroidWorld has no task family {name!r}.", f"Known: {', '.join(FAMILIES)}.")
    if name.startswith("miniwob"):
        return {page: Task(page, MINIWOB_COMPLEXITY, "miniwob", miniwob=True) for page in facts[name]}
    answering = set(facts["information_retrieval"])
    wanted = {"android_world": set(facts["android_world"]), "information_retrieval": answering}
    wanted["android"] = wanted["android_world"] - answering
    return {
        task: Task(task, float(complexity), domain, difficulty, answers=task in answering)
        for task, (complexity, domain, difficulty) in facts["android_world"].items()
        if task in wanted[name]
    }


def find(family_name: str, name: str) -> Task:
    """A task of a family.

    Raises:
        UsageError: it has no such task (the nearest names are offered).
    """
    tasks = family(family_name)
    if name not in tasks:
        raise UsageError(f"AndroidWorld's family {family_name} has no task {name!r}.", did_you_mean(name, tasks, what="task"))
    return tasks[name]


def instance_seed(seed: int, name: str, index: int) -> int:
    """The seed of instance ``index`` of a task in a suite made with ``seed``, as upstream derives it (``create_suite``)."""
    return int(hashlib.sha256(f"{seed}_{name}_{index}".encode()).hexdigest(), 16) % 2**32

"""Digests of every goal and parameter of upstream's tasks, by upstream's own package; facts, none of its text.

    AGENTLAB_ANDROID_PYTHON=<its python>
    $AGENTLAB_ANDROID_PYTHON tests/envs/androidworld/digests.py > tests/envs/androidworld/digests.json

``{seed: {task: [[instance seed, budget, digest of the goal, digest of the parameters] of index 0 and of index 1]}}``
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

SEEDS = (30, 42)
INDICES = 2


def timeless(text: str) -> str:
    """Without the time of its making, which upstream puts into MarkorCreateFolder alone, and without addresses of objects."""
    return re.sub(r"folder_\d{8}_\d{6}| at 0x[0-9A-Fa-f]+", "", text)


def digest(text: str) -> str:
    return hashlib.sha256(timeless(text).encode()).hexdigest()[:16]


def facts(task: Any) -> list[Any]:
    """The entry of one instance."""
    parameters = "\n".join(f"{name}={value!r}" for name, value in sorted(task.params.items()))
    return [task.params["seed"], int(10 * task.complexity), digest(task.goal), digest(parameters)]


def main() -> None:
    from android_world import registry, suite_utils

    known = registry.TaskRegistry().get_registry("android_world")
    suites = {seed: suite_utils.create_suite(known, n_task_combinations=INDICES, seed=seed) for seed in SEEDS}
    lines = [
        f' "{seed}": {{\n'
        + ",\n".join(f"  {json.dumps(name)}: {json.dumps([facts(task) for task in tasks])}" for name, tasks in suite.items())
        + "\n }"
        for seed, suite in suites.items()
    ]
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main()

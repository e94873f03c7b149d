"""What of a benchmark and a policy does not go together is refused before anything is started."""

import sys
from pathlib import Path

import pytest

from agentlab.run.parts import plan
from agentlab.run.resolve import resolve
from envs.errors import UsageError

sys.path.insert(0, str(Path(__file__).parents[1] / "own"))


def settings(tmp_path, **changes):
    return resolve({"suite": "askew:Plain", "policy": "guessing:Guesser", "out": tmp_path / "run", **changes})


def test_a_suite_that_has_a_task_twice_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"The suite 'askew:Twice' has the task 'a_0' 2 times\."):
        plan(settings(tmp_path, suite="askew:Twice"))
    assert [task.id for task in plan(settings(tmp_path, suite="askew:Twice", limit=2))] == ["a_0", "b_0"]
    assert [task.id for task in plan(settings(tmp_path, tasks=["b", "b"], repeats=2))] == ["b_0", "b_0.r2"]  # once is meant

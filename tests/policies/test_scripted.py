"""Policies without a model, and without the cost of one."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from envs import actions as act
from envs.base import TaskSpec
from envs.errors import UsageError
from policies.registry import load_policy

TASK = TaskSpec("agentlab/miniwob-v0", "click-test", 7, max_steps=3)
SCREEN = {"screenshot": np.zeros((210, 160, 3), dtype=np.uint8)}


def actions(name, *, seed=0, attempt=1, steps=20):
    session = load_policy(name).open(TASK, seed=seed)
    session.begin("x", attempt=attempt)
    return [session.act(SCREEN).actions for _ in range(steps)]


def test_noop_waits():
    assert set(actions("noop")) == {(act.Wait(),)}


def test_random_is_a_function_of_its_seed():
    assert actions("random") == actions("random")
    assert actions("random") != actions("random", seed=1)
    assert actions("random") != actions("random", attempt=2)
    assert len({a.kind for (a,) in actions("random", steps=100)}) > 5


def test_scripted_follows_the_oracle():
    session = load_policy("scripted").open(TASK, seed=0)
    session.begin("x")
    with pytest.raises(UsageError, match="not met an environment"):
        session.act(SCREEN)
    session.meet(SimpleNamespace(oracle_available=False))
    with pytest.raises(UsageError, match="no expert"):
        session.act(SCREEN)
    plan = iter([("Press it.", (act.Click(1, 2), act.Wait())), None])
    session.meet(SimpleNamespace(oracle_available=True, oracle=lambda: next(plan)))
    first = session.act(SCREEN)
    assert first.thought == "Press it."
    assert first.actions == (act.Click(1, 2), act.Wait())
    assert session.act(SCREEN).actions == (act.Finished(),)


def test_there_is_nothing_to_adapt():
    with pytest.raises(UsageError, match="no weights"):
        from synthetic import weights_of

        load_policy("random").open(TASK, seed=0, adapt=weights_of("rosa"))


def test_model_free_policies_do_not_import_torch():
    script = "import sys; from policies.registry import load_policy; load_policy('scripted'); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr

"""A method of the weights that is not ours: a file outside the tree, named on the command line, with settings of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

METHOD = '''
"""A step on the hidden-state shift against the failed reply's log-probability."""

from dataclasses import asdict

from pydantic import Field

from policies.adapters import adapter_class
from policies.methods import Method, MethodConfig
from policies.methods.effect import Learned, acting, effect
from policies.adapters.base import norm2


class NudgeConfig(MethodConfig):
    mode: str = Field(default="hidden", description="The adapter.")
    length: float = Field(default=0.1, gt=0, description="Length of the step.")


def nudge(head, adapter, episode, config, *, seed):
    kind = adapter_class(config.mode)
    old = adapter or kind.zero(config, head, seed)
    before = head.moments(acting(old), **kind.needs(old, kind.free(config)))
    r = episode.rewards.to(before.margin)
    step = old.pull(head, before, r, kind.free(config))
    size = norm2(step) ** 0.5
    new = old.moved(step, config.length / size)
    done, _ = effect(head, before, old, new, r.nonzero()[:, 0], config.length**2)
    return Learned(new, {"T": head.T, "length": config.length, **asdict(done)})


method = Method(NudgeConfig, nudge)
'''

USE = """
import json, sys, torch
from agentlab.run.resolve import resolve
from policies.learner import HeadLearner

config = resolve({}, sets=["adapt.weights.method=own_method:method", "adapt.weights.length=0.5"])
kept = json.loads(json.dumps(config.to_json()))["adapt"]["weights"]
torch.manual_seed(0)
W, H, y = torch.randn(50, 8), torch.randn(6, 8), torch.arange(6)
learner = HeadLearner(config.adapt.weights, W, 0)
learner.record(H, y, 0)
update = learner.update([-1.0])
learner.save(__import__("pathlib").Path("saved"))
again = HeadLearner(config.adapt.weights, W, 0)
again.load(__import__("pathlib").Path("saved"))
print(json.dumps([config.adapt.preset, kept, update.method, update.accepted, update.numbers["log_odds_shift"],
                  float(again.adapter.delta.norm())]))
"""


def run(folder: Path, source: str) -> subprocess.CompletedProcess[str]:
    (folder / "own_method.py").write_text(METHOD)
    return subprocess.run([sys.executable, "-c", source], cwd=folder, capture_output=True, text=True, timeout=300)


def test_a_method_outside_the_tree_adapts_saves_and_resumes(tmp_path: Path) -> None:
    done = run(tmp_path, USE)
    assert done.returncode == 0, done.stderr
    name, kept, method, accepted, shift, length = json.loads(done.stdout.splitlines()[-1])
    assert name == "none+own_method:method" and method == "own_method:method" and accepted
    assert kept["method"] == "own_method:method" and kept["length"] == 0.5
    assert shift < -0.5 and length == pytest.approx(0.5, rel=1e-5)


MISTAKES = {
    ("adapt.weights.method=own_method:method", "adapt.weights.lenth=1"): "Did you mean 'length'",
    ("adapt.weights.method=own_method:method", "adapt.weights.length=-1"): "greater than 0",
    ("adapt.weights.method=own_method:nudge",): "not a method",
    ("adapt.weights.method=own_method:methode",): "no 'methode'",
}
"""Settings -> what is said; one process tries them all, because its imports cost more than they do."""


def test_what_is_wrong_with_it_is_one_message(tmp_path: Path) -> None:
    source = (
        "import json\nfrom agentlab.run.resolve import resolve\nfrom envs.errors import UsageError\n"
        f"for sets in {[*MISTAKES]!r}:\n    try:\n        resolve({{}}, sets=[*sets])\n        print('null')\n"
        "    except UsageError as e:\n        print(json.dumps(str(e)))\n"
    )
    done = run(tmp_path, source)
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == len(MISTAKES)
    for message, expected in zip(said, MISTAKES.values(), strict=True):
        assert message and expected in message, said


def test_a_run_directory_names_no_code(tmp_path: Path) -> None:
    """What a run's configuration says is read with only_named: the module is not imported unless the user names it."""
    source = (
        "import sys\nfrom agentlab.run.config import RunConfig\nfrom envs.errors import UsageError\nfrom envs.plugins import only_named\n"
        "with only_named():\n    try:\n        RunConfig.model_validate({'adapt': {'weights': {'method': 'own_method:method'}}})\n"
        "    except UsageError as e:\n        print(e, 'own_method' in sys.modules)\n"
    )
    done = run(tmp_path, source)
    assert "which is code that its directory names" in done.stdout and done.stdout.strip().endswith("False"), (
        done.stdout + done.stderr
    )

"""Benchmarks as objects: ours, those of installed packages, and those that a user names."""

import sys

import gymnasium as gym
import pytest

from envs import suites
from envs.benchmark import Benchmark
from envs.errors import UsageError
from envs.registration import own_benchmarks

MINE = """
from envs.benchmark import Benchmark
from envs.base import TaskSpec, TaskSuite
from envs.text import TextEnv

class Env(TextEnv): ...

class Suite(TaskSuite):
    name = "mine"
    def __init__(self, part): self.part = part
    def task_names(self): return ["one", self.part or "whole"]
    def instances(self, names, seed): return iter([TaskSpec("agentlab/mine-v0", name, 0, 3) for name in self.task_names()])

class Mine(Benchmark):
    name = "mine"
    environment = Env
    parts = {"hard": "harder", "very-hard": "harder still"}
    def suite(self, part=""): return Suite(part)

class Files(Mine):
    takes_files = True

instance = Mine()
class NoSuite(Benchmark):
    name, environment = "nosuite", Env
class NoName(Mine):
    name = "Not A Name"
class Nameless(Benchmark):
    environment = Env
    def suite(self, part=""): ...
class Ours(Mine):
    name = "miniwob"
class Breaks(Mine):
    def __init__(self): 1 / 0
def function(): ...
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of the user's in the current directory."""
    (tmp_path / "mine_b.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield tmp_path
    sys.modules.pop("mine_b", None)
    gym.registry.pop("agentlab/mine-v0", None)


def test_every_folder_with_a_benchmark_is_one_and_offered_as_an_entry_point():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    offered = project["entry-points"][suites.PLUGINS.group]
    assert offered == {name: f"{type(found).__module__}:BENCHMARK" for name, found in own_benchmarks().items()}
    assert {"miniwob", "osworld", "androidworld"} <= offered.keys()
    for found in own_benchmarks().values():
        assert found.env_id in gym.registry and found.summary
        for part in ("", *found.parts):
            suites.locate(f"{found.name}-{part}" if part else found.name)


@pytest.mark.parametrize(
    ("suite", "part", "tasks"),
    [
        ("mine_b:Mine", "", ["one", "whole"]),
        ("mine_b:instance", "", ["one", "whole"]),
        ("mine_b:Mine-hard", "hard", ["one", "hard"]),
        ("mine_b:Mine-very-hard", "very-hard", ["one", "very-hard"]),
        ("mine_b:Files:some/folder:x", "some/folder:x", ["one", "some/folder:x"]),
    ],
)
def test_a_users_benchmark_is_found_with_its_parts(mine, suite, part, tasks):
    benchmark, found = suites.locate(suite)
    assert (benchmark.name, found, suites.get_suite(suite).task_names()) == ("mine", part, tasks)
    assert gym.spec("agentlab/mine-v0").entry_point.__name__ == "Env"


@pytest.mark.parametrize(
    ("suite", "says"),
    [
        ("mine_b:Mine-hrd", "Did you mean 'mine_b:Mine-hard'"),
        ("mine_b:Mine:PATH", "takes no tasks from files"),
        ("mine_b:NoSuite", "cannot be made"),
        ("mine_b:NoName", "has the name 'Not A Name'"),
        ("mine_b:Nameless", "has no 'name'"),
        ("mine_b:Ours", "calls itself 'miniwob', which is a benchmark of ours"),
        ("mine_b:Breaks", "division by zero"),
        ("mine_b:function", "is a function, not a benchmark"),
        ("mine_b:Suite", "is Suite, not a benchmark"),
        ("mine_b:Mien", "Did you mean 'Mine'"),
        ("minivob", "Did you mean 'miniwob'"),
        ("miniwob-exprts", "Did you mean 'miniwob-experts'"),
        ("miniwob:folder", "takes no tasks from files"),
    ],
)
def test_what_is_no_benchmark_is_one_message(mine, suite, says):
    with pytest.raises(UsageError) as failed:
        suites.get_suite(suite)
    assert says in str(failed.value)


def test_a_package_offers_a_benchmark_and_a_broken_one_does_not_break_the_others(mine):
    info = mine / "theirs_b-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs-b\nVersion: 1.0\n")
    entries = ["mine = mine_b:Mine", "gone = absent_b:Gone", "other = mine_b:Mine", "miniwob = mine_b:Mine"]
    (info / "entry_points.txt").write_text("\n".join([f"[{suites.PLUGINS.group}]", *entries]) + "\n")
    sys.path.append(str(mine))
    found = dict(suites.installed_benchmarks())
    assert isinstance(found["mine"], Benchmark) and found["miniwob"] is own_benchmarks()["miniwob"]
    assert "absent_b" in str(found["gone"]) and "calls itself 'mine'" in str(found["other"])
    assert suites.locate("mine-very-hard")[1] == "very-hard"
    assert {"mine", "mine-hard", "osworld-light"} <= set(suites.suite_names())
    with pytest.raises(UsageError, match="theirs-b"):
        suites.get_suite("gone")

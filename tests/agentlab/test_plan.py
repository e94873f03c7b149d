"""What of a benchmark and a policy does not go together is refused before anything is started."""

import sys
from pathlib import Path
from types import ModuleType

import in_process
import pytest

from agentlab.run.parts import cut_short, plan
from agentlab.run.resolve import resolve
from agentlab.run.runner import Runner
from envs.errors import UsageError

sys.path.insert(0, str(Path(__file__).parents[1] / "own"))

from askew import PlainEnv
from guessing import Guesser


class Asking(Guesser):
    """Asks its environments for something."""

    env_options = {"dictionary": True}


@pytest.fixture
def asking(monkeypatch):
    """The module ``asking``, with a policy that says what it asks for, and a function that makes one."""
    module = ModuleType("asking")
    module.Asking, module.make = Asking, lambda: Asking()
    monkeypatch.setitem(sys.modules, "asking", module)


def settings(tmp_path, **changes):
    return resolve({"suite": "askew:Plain", "policy": "guessing:Guesser", "out": tmp_path / "run", **changes})


class Writer(Guesser):
    """May write ``longest`` tokens."""

    name = "writer"

    def __init__(self, longest):
        self.longest = longest

    def describe(self):
        return {} if self.longest is None else {"max_new_tokens": self.longest}


def test_a_run_that_cuts_a_models_replies_short_says_so():
    usual = resolve({}).sampling.max_new_tokens
    line = cut_short(Writer(32768), usual)
    assert line == f"Replies end at {usual} tokens, though writer may write 32768: --set sampling.max_new_tokens=32768 lets it."
    assert not any(cut_short(Writer(longest), usual) for longest in (None, 96, usual))
    assert cut_short(Writer(32768), 4000) == "", "somebody has set it"


def words_of(table):
    """Whatever the width at which its cells are broken."""
    return " ".join(table.replace("│", " ").split())


def test_what_the_machinery_failed_with_is_told_as_it_comes_and_at_the_end(tmp_path, monkeypatch):
    """A mistake in one's own benchmark was a number in a table, and nowhere said."""
    line = ("run", "askew:Plain", "--policy", "guessing:Guesser", "--attempts", "1", "--out", tmp_path / "run")
    monkeypatch.setattr(PlainEnv, "score", "good")
    done = in_process.agentlab(*line)
    assert done.returncode == 7, done.stdout + done.stderr
    told = "grader: The grader of agentlab/plain-v0 gave 'good' for"
    assert done.stderr.count(told) == 1, "of each component the first"
    assert "Failures of the machinery" in done.stdout and "gave 'good' for" in words_of(done.stdout)
    again = in_process.agentlab(*line)  # nothing is left to do: it is told all the same
    assert again.returncode == 7 and "gave 'good' for" in words_of(again.stdout) and told not in again.stderr
    monkeypatch.setattr(PlainEnv, "score", 1.0)
    mended = in_process.agentlab(*line, "--retry-infra")
    assert mended.returncode == 0 and "Failures of the machinery" not in mended.stdout


@pytest.mark.parametrize("more", [["--dry-run"], []])
def test_a_benchmark_without_an_expert_is_no_place_for_the_scripted_policy(tmp_path, more):
    done = in_process.agentlab("run", "askew:Plain", "--policy", "scripted", "--out", tmp_path / "run", *more)
    assert done.returncode == 2 and "this benchmark has no expert" in done.stderr, done.stdout + done.stderr
    assert not (tmp_path / "run").exists()


def test_what_a_policy_asks_for_must_be_there(tmp_path, asking):
    with pytest.raises(UsageError, match=r"asks for 'dictionary', and the environments of askew:Plain have no such option"):
        plan(settings(tmp_path, policy="asking:Asking"))
    with pytest.raises(UsageError, match="asks for 'dictionary'"):  # a function says only with the policy what that asks for
        Runner(settings(tmp_path, policy="asking:make")).run()


def test_a_benchmark_that_has_an_expert_is_given_the_option(tmp_path):
    assert len(plan(settings(tmp_path, suite="guessing:Guessing", policy="scripted", limit=2))) == 2


def test_a_suite_that_has_a_task_twice_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"The suite 'askew:Twice' has the task 'a_0' 2 times\."):
        plan(settings(tmp_path, suite="askew:Twice"))
    assert [task.id for task in plan(settings(tmp_path, suite="askew:Twice", limit=2))] == ["a_0", "b_0"]
    assert [task.id for task in plan(settings(tmp_path, tasks=["b", "b"], repeats=2))] == ["b_0", "b_0.r2"]  # once is meant

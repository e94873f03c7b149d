"""Environments without a screen, and what every environment has."""

import json
import math
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs import actions as act
from envs.base import MAX_TEXT, TaskSpec, bounded, modalities, picture
from envs.errors import InfrastructureError, UsageError
from envs.spaces import ActionSpace, ScreenActionSpace
from envs.suites import make_env

sys.path.insert(0, str(Path(__file__).parents[1] / "own"))

from askew import PlainEnv
from guessing import ENV_ID, GuessingEnv, guessing


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_text_environment_is_a_gymnasium_environment():
    check_env(gym.make(ENV_ID, render_mode="ansi").unwrapped)


def test_an_episode_of_words():
    env = GuessingEnv()
    observation, info = env.reset(options={"task": guessing(1, max_steps=2)})  # 38
    assert observation == {"text": "Your guesses so far:"} and info["instruction"] == "Guess the number from 1 to 100."
    observation, reward, terminated, truncated, info = env.step(act.Answer("50"))
    assert (reward, terminated, truncated) == (0.0, False, False) and "feedback" not in info
    assert observation["text"].endswith("50: too large")
    *_, truncated, info = env.step(act.Click(1, 2))
    assert "unknown to this environment" in info["invalid"] and truncated
    assert info["ended_by"] == "budget" and info["feedback"] == "My number is not 50: that is too large."
    env.reset(options={"task": guessing(1)})
    _, reward, terminated, _, info = env.step((act.Answer("38"), act.Answer("39")))
    assert reward == 1.0 and terminated and info["ended_by"] == "environment"


def test_what_the_machinery_breaks_is_void():
    env = GuessingEnv()
    GuessingEnv.faults[:] = ["execute"]
    env.reset(options={"task": guessing(1)})
    with pytest.raises(InfrastructureError, match="table broke"):
        env.step(act.Answer("1"))
    with pytest.raises(UsageError, match="not running"):
        env.step(act.Answer("1"))


@pytest.mark.parametrize("score", [7.0, -0.5, math.nan, math.inf, None, "good", 10**400])
def test_a_grade_that_is_no_score_is_a_failure_of_the_machinery(score, monkeypatch):
    monkeypatch.setattr(PlainEnv, "score", score)
    env = PlainEnv()
    env.reset(options={"task": TaskSpec("agentlab/plain-v0", "a", 0, 1)})
    with pytest.raises(InfrastructureError, match=r"grader of agentlab/plain-v0 gave .* for 'a', which is no score") as refused:
        env.step(act.Answer("1"))
    assert refused.value.component == "grader" and "PlainEnv._grade" in refused.value.hint
    with pytest.raises(UsageError, match="not running"):  # the episode is void
        env.step(act.Answer("1"))


@pytest.mark.parametrize("hook", ["_start", "_execute", "_observe", "_ended", "_feedback", "_grade"])
def test_an_exception_in_a_benchmarks_own_method_is_a_failure_of_the_machinery(hook, monkeypatch):
    def broken(*_):
        return {}["the key"]

    env, task = PlainEnv(), {"task": TaskSpec("agentlab/plain-v0", "a", 0, 1)}
    env.reset(options=task)
    monkeypatch.setattr(PlainEnv, hook, broken)
    with pytest.raises(InfrastructureError, match=rf"PlainEnv\.{hook} raised KeyError: 'the key' \(test_text\.py, line") as refused:
        if hook == "_start":
            env.reset(options=task)
        env.step(act.Answer("1"))
    assert isinstance(refused.value.__cause__, KeyError)
    assert refused.value.component == ("grader" if hook == "_grade" else "environment")
    monkeypatch.undo()
    with pytest.raises(UsageError, match="not running"):  # the episode is void
        env.step(act.Answer("1"))
    env.reset(options=task)
    assert env.step(act.Answer("1"))[2]


class Unmade(PlainEnv):
    def __init__(self):
        super().__init__()
        raise ValueError("" if self.score else "There is no table.")


@pytest.mark.parametrize(("score", "said"), [(0, "There is no table."), (1, "no message")])
def test_so_is_one_in_its_constructor(score, said, monkeypatch):
    monkeypatch.setitem(gym.registry, "agentlab/unmade-v0", gym.envs.registration.EnvSpec("agentlab/unmade-v0", entry_point=Unmade))
    monkeypatch.setattr(Unmade, "score", score)
    with pytest.raises(InfrastructureError, match=rf"Unmade\.__init__ raised ValueError: {said} \(test_text\.py, line \d+\)"):
        make_env(TaskSpec("agentlab/unmade-v0", "a", 0, 1))


class Deep(PlainEnv):
    def _observe(self):
        return json.loads("{")


@pytest.mark.parametrize(("module", "file"), [(__name__, "test_text.py"), ("typed_in", "decoder.py")])
def test_the_place_is_the_benchmarks_line_and_not_the_librarys_below_it(module, file, monkeypatch):
    """Where the benchmark's file is unknown (a class that was typed in) it is the last line."""
    monkeypatch.setattr(Deep, "__module__", module)
    with pytest.raises(InfrastructureError, match=rf"Deep\._observe raised JSONDecodeError: .* \({file}, line \d+\)"):
        Deep().reset(options={"task": TaskSpec("agentlab/plain-v0", "a", 0, 1)})


@pytest.mark.parametrize("score", [0, 1, True, np.float32(0.5), np.bool_(True)])
def test_a_grade_may_be_any_number_from_0_to_1(score, monkeypatch):
    monkeypatch.setattr(PlainEnv, "score", score)
    env = PlainEnv()
    env.reset(options={"task": TaskSpec("agentlab/plain-v0", "a", 0, 1)})
    _, reward, *_, info = env.step(act.Answer("1"))
    assert type(reward) is float and reward == info["score"] == float(score)


def test_actions_with_a_place_need_a_screen():
    with pytest.raises(ValueError, match="click need a place"):
        ActionSpace([act.Answer, act.Click])
    words, screen = ActionSpace([act.Answer]), ScreenActionSpace([act.Answer], 10, 10)
    assert words != screen and words == ActionSpace([act.Answer]) and screen != ScreenActionSpace([act.Answer], 10, 11)
    assert act.Answer("x") in words and act.Click(1, 2) not in words and (act.Answer("x"), act.Invalid("y")) in words


@pytest.mark.parametrize("kind", act.VOCABULARY.values())
def test_every_action_can_be_sampled(kind):
    space = ScreenActionSpace([kind], 10, 20, seed=3)
    drawn = [space.sample() for _ in range(20)]
    assert all(isinstance(one, kind) and one in space for one in drawn)
    assert space.from_jsonable(space.to_jsonable(drawn)) == drawn
    assert drawn == [again.sample() for again in [ScreenActionSpace([kind], 10, 20, seed=3)] for _ in range(20)]


def test_a_text_is_what_can_be_stored():
    assert bounded("short", 10) == "short"
    assert bounded("lone \ud800", 100) == "lone ?"
    long = bounded("a" * 60_000 + "b" * 60_000, MAX_TEXT)
    assert len(long) <= MAX_TEXT and long.startswith("aaa") and long.endswith("bbb") and "left out" in long


def test_observations_say_what_they_are_made_of():
    words = {"text": "a"}
    assert modalities(words) == {"text"}
    with pytest.raises(UsageError, match="needs a picture"):
        picture(words)

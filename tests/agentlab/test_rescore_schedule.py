"""What a rescored update is told is what it would be told in a run: when, under which credit, guidance and conversation."""

from contextlib import contextmanager
from pathlib import Path

import pytest
from made_runs import Made, make_run, task
from typer.testing import CliRunner

from agentlab.cli.app import app
from agentlab.disk.row import JudgeColumns
from agentlab.disk.runs import read_run
from agentlab.replay import rescore as module
from agentlab.replay.rescore import rescore, sections, settings
from agentlab.replay.targets import find_target
from envs.errors import AdaptationError
from policies.base import Policy, PolicySession, Update

GUIDANCE = "Failed before.\nDo otherwise."


class Listening(Policy):
    """Has nothing to score with, and remembers what it is told; refuses to learn without the guidance that it is to learn from."""

    name, adaptable = "listening", True

    def __init__(self):
        self.told, self.past = {}, {}

    def open(self, task, *, seed, adapt=None):
        return ListeningSession(self)


class ListeningSession(PolicySession):
    def __init__(self, policy):
        self.policy, self.earlier = policy, ()

    def converse(self, history):
        self.earlier = history

    def begin(self, instruction, *, guidance="", attempt=1):
        self.attempt = attempt
        self.policy.past[attempt] = [past.guidance for past in self.earlier]

    def act(self, observation):
        raise NotImplementedError

    def relive(self, steps, token_ids=()):
        return [-1.0] * len(steps)

    def adapt(self, rewards, *, refined=None, guidance=None):
        if guidance == "":
            raise AdaptationError("There is no guidance to learn from.")
        self.policy.told[self.attempt] = (tuple(rewards), refined, guidance)
        return Update("rosa", True, 0.0, {"delta_norm2": 1.0})


@pytest.fixture
def policy(monkeypatch):
    policy = Listening()

    @contextmanager
    def load(config):
        yield policy

    monkeypatch.setattr(module, "load_policy_of", load)
    monkeypatch.setattr(module, "plan", lambda config: [task("a")])
    return policy


@pytest.fixture
def run(tmp_path):
    attempts = [Made(guidance_after=GUIDANCE), Made(guidance_after="Again."), Made()]
    return make_run(tmp_path / "run", [(task("a"), attempts)], policy="ui-tars-nano", adapt={"preset": "rosa2"})


def rescored(run: Path, adapt: str | None = None, *sets: str):
    target = find_target(run)
    return rescore(target, settings(target.run, adapt, sets), propose=False)


@pytest.mark.parametrize(("first", "learned"), [("words", [3]), ("weights", [1, 2])])
def test_the_schedule_says_which_attempts_the_weights_learn_from(run, policy, first, learned):
    done = rescored(run, "switch", "adapt.switch_at=3", f"adapt.switch_first={first}")
    assert sorted(policy.told) == learned == [r.attempt for r in done if r.update is not None]
    assert [r.attempt for r in done if r.learns] == learned and all(r.before == [-1.0] and not r.error for r in done)
    states = [row[1] for row in sections(done)[0].rows]
    assert [state.startswith("none at this attempt") for state in states] == [t not in learned for t in (1, 2, 3)]


def test_an_update_is_told_of_the_guidance_that_the_run_wrote(run, policy):
    rescored(run)
    assert policy.told[1] == ((-1.0,), None, None)
    rescored(run, None, "adapt.score_under=refined")
    assert policy.told[1] == ((-1.0,), GUIDANCE, None) and policy.told[2][1] == "Again."
    done = rescored(run, None, "adapt.weights.target=guided")
    assert policy.told[1] == ((-1.0,), None, GUIDANCE)
    assert [r.error for r in done] == ["", "", "There is no guidance to learn from."]  # nobody wrote any after the last attempt


def test_the_credit_of_a_judge_is_the_credit(run, policy):
    result = run / "sessions/a_1/attempt_01/result.json"
    row = read_run(run).rows[0]
    judge = JudgeColumns(score=-0.25, accepted=False, reply="", seconds=0.0, requests=0, tokens=0, cost=0.0, error="")
    result.write_text(row.model_copy(update={"judge": judge}).line())
    rescored(run, None, "adapt.words.credit=judge", "adapt.words.engine=self")
    assert policy.told[1][0] == (-0.25,) and policy.told[2][0] == (-1.0,)
    rescored(run)
    assert policy.told[1][0] == (-1.0,)


@pytest.mark.parametrize(("history", "earlier"), [("fresh", []), ("conversation", ["", GUIDANCE])])
def test_a_conversation_is_gone_on_with(run, policy, history, earlier):
    rescored(run, None, f"history={history}")
    assert policy.past == {1: [], 2: earlier[:1], 3: earlier}


def test_where_nothing_could_be_learned_from_the_verb_fails_and_says_why(run, policy, tmp_path):
    for path in run.glob("sessions/*/*/guidance.txt"):
        path.unlink()
    command = ["rescore", str(run), "--scores-only", "--set", "adapt.weights.target=guided"]
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, AdaptationError), done.output
    assert "Of 3 attempts none could be learned from again: There is no guidance" in str(done.exception)
    assert (tmp_path / "out/rescore.json").is_file(), "what came of each is written"

"""Updates computed again from recorded attempts: the numbers of the maths room itself, and θ carried from attempt to attempt."""

import json

import pytest
from made_runs import Made, make_run, screen, task
from PIL import Image

from agentlab.replay import find_target
from agentlab.rescore import rescore, sections, settings, write
from agentlab.runs import read_run
from envs import actions as act
from envs.errors import UsageError

TWO = (("The red square.", act.Click(40.0, 60.0)), ("Then the other one.", act.Click(90.0, 70.0)))
GUIDANCE = "Failed before:\n- The red square.: click(start_box='(40,60)')\nDo otherwise."


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    sessions = [
        (task("click-test"), [Made(steps=TWO, guidance_after=GUIDANCE), Made(), Made(True)]),
        (task("click-test", 2), [Made(True)]),
    ]
    folder = tmp_path_factory.mktemp("runs") / "run"
    return make_run(folder, sessions, policy="ui-tars-nano", adapt={"preset": "rosa"}, tasks=["click-test"], limit=200)


@pytest.fixture(scope="module")
def plan_has_the_tasks():
    """The made tasks are not those that the suite would draw."""
    from agentlab import rescore as module

    patch = pytest.MonkeyPatch()
    patch.setattr(module, "plan", lambda config: [task("click-test"), task("click-test", 2)])
    yield
    patch.undo()


@pytest.fixture(scope="module")
def done(run, plan_has_the_tasks):
    target = find_target(run)
    return rescore(target, settings(target.run, None, []))


def test_the_numbers_are_those_of_scoring_and_solving_by_hand(run, done):
    from policies.learner import HeadLearner
    from policies.registry import load_policy
    from policies.ui_tars.prompt import build_messages

    one, two = done
    assert [(r.session, r.attempt, r.error) for r in done] == [("click-test_1", 1, ""), ("click-test_1", 2, "")]
    config = settings(read_run(run), None, [])
    policy = load_policy("ui-tars-nano", sampling=config.sampling)
    engine, session = policy.engine, policy.open(task("click-test"), seed=0)
    learner = HeadLearner(config.adapt.weights, engine.model.lm_head.weight, seed=0)
    history = []
    for step, (thought, action) in enumerate(TWO):
        text, image = f"Thought: {thought}\nAction: {act.describe(action)}", Image.fromarray(screen(step))
        messages = build_messages(session.shape, "Click the red square of click-test.", "", history, image)
        prompt = engine.prompt(messages, policy.settings.min_pixels, policy.settings.max_pixels)
        score = engine.score(prompt, engine.tokens(text))
        assert one.before[step] == pytest.approx(float(score.logprobs.sum()), rel=1e-4)
        learner.record(score.hidden, engine.tokens(text), step)
        history.append((image, text))
    expected = learner.update([-1.0, -1.0])
    for name in ("T", "residual_before", "residual_after", "kl_mean", "delta_norm2"):
        assert one.update[name] == pytest.approx(expected.numbers[name], rel=1e-3)
    assert one.update["accepted"] and sum(one.after) < sum(one.before)  # what failed became less likely

    fresh = policy.open(task("click-test"), seed=0)
    fresh.begin("Click the red square of click-test.", guidance=GUIDANCE, attempt=2)
    (untouched,) = fresh.relive([(screen(0), f"Thought: The red square is it.\nAction: {act.describe(act.Click(40.0, 60.0))}")])
    assert two.before[0] != pytest.approx(untouched, rel=1e-3)  # θ of attempt 1 is in force at attempt 2
    policy.close()


def test_another_adaptation_gives_another_update(run, done, plan_has_the_tasks):
    target = find_target(run / "click-test_1/1")
    (other,) = rescore(target, settings(target.run, None, ["adapt.weights.beta=5"]))
    assert other.before == pytest.approx(done[0].before, rel=1e-4)
    assert other.update["residual_before"] < done[0].update["residual_before"]


def test_what_is_written(done, tmp_path):
    write(tmp_path, "Again", done)
    (first, second) = json.loads((tmp_path / "rescore.json").read_text())["attempts"]
    assert first["update"]["kl_mean"] == done[0].update["kl_mean"] and second["attempt"] == 2
    assert first["recorded"] == [-1.5, -1.5] and "-3.000" in sections(done)[0].rows[0]


def test_settings_that_cannot_be_rescored_are_refused(run, tmp_path):
    with pytest.raises(UsageError, match="change no weights"):
        settings(read_run(run), "textgrad", [])
    with pytest.raises(UsageError, match="Did you mean"):
        settings(read_run(run), "roza", [])
    folder = make_run(tmp_path / "run", [(task("click-test"), [Made()])], policy="random", adapt={"preset": "rosa"})
    target = find_target(folder)
    with pytest.raises(UsageError, match="weights"):
        rescore(target, settings(target.run, None, []))

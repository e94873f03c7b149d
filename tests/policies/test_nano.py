"""The bundled policy: its checkpoint loads and answers, and training computes what the checkpoint computes."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from envs import actions as act
from policies.families.reply import Frame
from policies.families.ui_tars.parse import parse_reply
from policies.nano.build import NanoConfig, build_model, build_processor, load_processor, save_checkpoint
from policies.nano.data import Example, make_batch, prompt_ids, prompt_messages
from policies.nano.decode import replies
from policies.nano.fast import FastForward
from policies.nano.losses import LossWeights, Objective
from policies.nano.processor import position_ramp
from policies.nano.replies import reply_text, snapped, to_pixel
from policies.nano.screen import CELLS, COORDINATE_TINT, SCREEN_HEIGHT, SCREEN_WIDTH
from policies.nano.tokenizer import build_tokenizer, common_words
from policies.nano.train import TrainConfig, Trainer
from policies.nano.wide import save_wide
from policies.registry import bundled_checkpoint

WORDS = ["Click", "on", "the", "red", "box", "button", "submit", "type", "Enter", "into"]


def screen(seed):
    return np.random.default_rng(seed).integers(0, 256, (SCREEN_HEIGHT, SCREEN_WIDTH, 3), dtype=np.uint8)


def png(pixels):
    import io

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(WORDS)


@pytest.fixture(scope="module")
def model(tokenizer):
    return build_model(NanoConfig(vision_depth=2, text_layers=3), tokenizer, seed=0).eval()


def example(seed=0, **changes):
    base = Example(
        task="t", instruction='Enter "Jess" into the box.', history=(), thought="the red box", action=act.Click(80.0, 110.0),
        png=png(screen(seed)), box=None, characters=np.array([[5, 5, 65], [80, 110, 98]], np.uint8),
        unread=np.array([[0, 100, 40, 20]], np.int16),
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def ask(checkpoint_tokenizer, processor, model, ex):
    """The reply of the ordinary transformers route."""
    messages = prompt_messages(ex.instruction, ex.guidance, ex.history)
    text = checkpoint_tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    image = Image.fromarray(screen(0)) if ex.png == png(screen(0)) else Image.fromarray(screen(1))
    inputs = processor(text=[text], images=[image], return_tensors="pt")
    return inputs


def test_training_pass_gives_the_logits_of_the_ordinary_model(tokenizer, model):
    pairs = [example(0), example(1, history=("Thought: a\nAction: wait()",), guidance="Failed before:\n- x: wait()\nDo otherwise.")]
    batch = make_batch(pairs, tokenizer, model.config.image_token_id)
    network = FastForward(model, COORDINATE_TINT, SCREEN_HEIGHT, SCREEN_WIDTH)
    with torch.no_grad():
        fast = network(batch.inputs).logits
    processor = build_processor(tokenizer)
    for row, ex in enumerate(pairs):
        inputs = ask(tokenizer, processor, model, ex)
        prompt, reply = ex.encoded(tokenizer)
        assert inputs.input_ids[0].tolist() == prompt
        more = torch.tensor([reply[:-1]])
        ids = torch.cat([inputs.input_ids, more], 1)
        kinds = torch.cat([inputs.mm_token_type_ids, torch.zeros_like(more)], 1)
        with torch.no_grad():
            slow = model(
                input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=kinds, pixel_values=inputs.pixel_values,
                image_grid_thw=inputs.image_grid_thw,
            ).logits[0, len(prompt) - 1 :]  # fmt: skip
        assert torch.allclose(fast[row, : len(reply)], slow, atol=1e-4)


def test_batched_replies_are_those_of_generate(tokenizer, model):
    pairs = [example(0), example(1, instruction="Click on the button.")]
    network = FastForward(model, COORDINATE_TINT, SCREEN_HEIGHT, SCREEN_WIDTH)
    asked = [(prompt_ids(tokenizer, ex.instruction, "", ()), screen(i)) for i, ex in enumerate(pairs)]
    batched = replies(network, tokenizer, asked, max_new_tokens=8)
    for ex, reply in zip(pairs, batched, strict=True):
        inputs = ask(tokenizer, build_processor(tokenizer), model, ex)
        ids = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs.input_ids.shape[1] :]
        assert tokenizer.decode(ids, skip_special_tokens=True) == reply


def test_tint_is_declared_and_applied(tokenizer, model, tmp_path):
    save_checkpoint(model, tokenizer, tmp_path)
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["coordinate_tint"] == COORDINATE_TINT
    pixels = screen(3)
    got = load_processor(tmp_path).image_processor(Image.fromarray(pixels), return_tensors="np")
    assert got["pixel_values"].shape == (4 * CELLS, 600)
    tinted = (1 - COORDINATE_TINT) * pixels.transpose(2, 0, 1) + COORDINATE_TINT * position_ramp(SCREEN_HEIGHT, SCREEN_WIDTH)
    first = (tinted / 127.5 - 1)[:, :10, :10]  # the patch at the top left
    assert np.allclose(got["pixel_values"][0].reshape(3, 2, 10, 10)[:, 0], first, atol=1e-5)
    plain = FastForward(model, 0.0, SCREEN_HEIGHT, SCREEN_WIDTH).patchify(torch.from_numpy(pixels)[None])
    assert not np.allclose(got["pixel_values"][0].reshape(3, 2, 10, 10)[:, 0].ravel(), plain[0, 0].numpy(), atol=1e-2)


def test_names_are_spelled_the_same_everywhere(tokenizer):
    spelled = tokenizer("Jess", add_special_tokens=False).input_ids
    for text in ('Enter "Jess" into', "type Jess", "content='Jess'"):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert any(ids[i : i + len(spelled)] == spelled for i in range(len(ids))), text
        assert tokenizer.decode(ids) == text


def test_common_words_leave_names_out():
    lines = [f'Click the link "{name}".' for name in ("Ann", "Bob", "Cleo", "Dora") * 5]
    assert common_words({"t": lines}) == ["Click", "link", "the"]


@pytest.mark.parametrize(
    "action",
    [
        act.Click(80.0, 110.0), act.Hover(1.6, 2.2), act.Drag(16.0, 22.0, 32.0, 44.0), act.Type("it's \\ \"x\"", submit=True),
        act.Hotkey(("ctrl", "a")), act.Scroll(80.0, 110.0, "down"), act.Wait(), act.DoubleClick(80.0, 110.0),
    ],
)  # fmt: skip
def test_replies_parse_back_to_the_action(action):
    reply = parse_reply(reply_text("the thing", action), Frame(SCREEN_WIDTH, SCREEN_HEIGHT))
    assert reply.thought == "the thing"
    (parsed,) = reply.actions
    if isinstance(action, act.POINTED):
        assert parsed.kind == action.kind
        assert (parsed.x, parsed.y) == pytest.approx((action.x, action.y), abs=1e-6)
    else:
        assert parsed == action


def test_snapping_stays_inside_the_target():
    box = {"x": 33.0, "y": 51.0, "w": 2.0, "h": 3.0}
    moved = snapped(act.Click(33.2, 51.1), box)
    assert 33.0 <= moved.x < 35.0 and 51.0 <= moved.y < 54.0
    assert moved.x == pytest.approx(to_pixel(round(moved.x / SCREEN_WIDTH * 100) * 10, SCREEN_WIDTH))


def test_training_learns_and_continues(tokenizer, tmp_path):
    pool = {"t": [example(0), example(1, action=act.Click(16.0, 22.0), thought="the button")]}

    def trainer(steps, until=None):
        model = build_model(NanoConfig(vision_depth=1, text_layers=3), tokenizer, seed=0)
        config = TrainConfig(steps=steps, batch_size=2, warmup=2, until=until)
        return Trainer(
            model, tokenizer, lambda: pool, config, tmp_path / "state.pt", lambda step, loss, _: seen.append((step, loss))
        )

    seen: list[tuple[int, float]] = []
    trainer(24, until=16).run()
    resumed = trainer(24)
    assert resumed.step == 16
    resumed.run()
    assert [step for step, _ in seen] == list(range(1, 25))
    assert np.mean([loss for _, loss in seen[-4:]]) < 0.5 * seen[0][1]
    assert set(resumed.averaged().state_dict()) == set(resumed.model.state_dict())


def test_auxiliary_losses_count(tokenizer, model):
    typing = example(1, thought="type Jess", action=act.Type("Jess"))
    batch = make_batch([example(0), typing], tokenizer, model.config.image_token_id)
    objective = Objective(model)
    with torch.no_grad():
        bare, _ = objective(batch, LossWeights(**{f.name: 0.0 for f in dataclasses.fields(LossWeights)}))
        for name in (f.name for f in dataclasses.fields(LossWeights)):
            weights = {f.name: 0.0 for f in dataclasses.fields(LossWeights)} | {name: 1.0}
            assert objective(batch, LossWeights(**weights))[0] > bare + 1e-4, name


def test_labels_lie_where_the_patches_are(tokenizer, model):
    batch = make_batch([example(0)], tokenizer, model.config.image_token_id)
    raster = batch.patch_text[0].reshape(11, 8, 2, 2, -1).permute(0, 2, 1, 3, 4).reshape(22, 16, -1)
    assert raster[0, 0, 65 - 32] == 1 and raster[11, 8, 98 - 32] == 1 and int(raster.sum()) == 2
    readable = batch.readable[0].reshape(11, 8, 2, 2).permute(0, 2, 1, 3).reshape(22, 16)
    assert not readable[10:12, 0:4].any() and readable.sum() == 22 * 16 - 8
    assert batch.cell.tolist() == [5 * 8 + 4]


def test_bundled_checkpoint_answers_the_same_twice():
    from envs.base import TaskSpec
    from policies.registry import load_policy

    assert sum(path.stat().st_size for path in bundled_checkpoint().glob("*.safetensors")) <= 40 * 2**20
    picture = Image.new("RGB", (SCREEN_WIDTH, SCREEN_HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, 160, 50), fill="yellow")
    draw.text((3, 3), "Click the button.", fill="black")
    draw.rectangle((40, 120, 110, 142), fill=(239, 239, 239), outline=(118, 118, 118))
    draw.text((50, 125), "Click Me!", fill="black")
    pixels, texts = np.array(picture), []
    for _ in range(2):
        policy = load_policy("ui-tars-nano")
        session = policy.open(TaskSpec("agentlab/miniwob-v0", "click-test", 0, 10), seed=0)
        session.begin("Click the button.")
        decision = session.act({"screenshot": pixels})
        texts.append(decision.text)
        assert not isinstance(decision.actions[0], act.Invalid), decision.text
        policy.close()
    assert texts[0] == texts[1]


def test_copied_characters_point_to_the_instruction(tokenizer, model):
    batch = make_batch([example(0, thought="type Jess", action=act.Type("Jess"))], tokenizer, model.config.image_token_id)
    prompt, reply = batch.inputs.input_ids[0], batch.targets[0]
    copied = batch.source[0] >= 0
    assert tokenizer.decode(reply[copied]) == "JessJess"
    assert torch.equal(prompt[batch.source[0][copied]], reply[copied])
    assert int(batch.source.max()) < int(batch.inputs.image_start[0])


def test_the_widened_checkpoint_sees_the_same(tmp_path):
    """Its language model needs rotary positions that transformers has not: tests/policies/test_served_vllm.py holds that together."""
    from transformers import AutoModelForImageTextToText

    wide = save_wide(bundled_checkpoint(), tmp_path / "wide")
    pixels, grid = torch.randn(64, 600, generator=torch.Generator().manual_seed(0)), torch.tensor([[1, 8, 8]])
    seen = []
    for folder in (bundled_checkpoint(), wide):
        vision = AutoModelForImageTextToText.from_pretrained(str(folder), dtype=torch.float32).model.visual
        with torch.no_grad():
            seen.append(vision(pixels, grid_thw=grid).pooler_output)
    (narrow, widened), d = seen, seen[0].shape[1]
    torch.testing.assert_close(widened[:, :d], narrow, atol=1e-4, rtol=1e-4)
    assert widened.shape[1] == 256 and not widened[:, d:].any()
    config = json.loads((wide / "config.json").read_text())["text_config"]
    assert config["hidden_size"] // config["num_attention_heads"] == 64

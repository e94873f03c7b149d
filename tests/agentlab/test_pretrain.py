"""``agentlab pretrain`` end to end on two tasks: it trains, it exports, and the same command does nothing twice."""

from __future__ import annotations

import io
import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

from agentlab.pretrain import PretrainConfig, phases, plan_of, run_pretrain
from agentlab.pretrain.collect import HELD_SEED_START, RESERVED_SEED_START, chunk_path, plan
from agentlab.pretrain.mistakes import guided, is_right, retried
from agentlab.pretrain.shards import Screen, read_shard, write_shard
from envs import actions as act
from envs.base import TaskSpec
from envs.errors import StoreError, UsageError
from envs.miniwob.env import MiniWoBEnv
from envs.miniwob.tasks import ENV_ID, TRAIN_SEED_START


def make_screen(index=0, action=None, box=None):
    file = io.BytesIO()
    Image.fromarray(np.full((220, 160, 3), index, np.uint8)).save(file, "png")
    return Screen(
        task="click-test", seed=TRAIN_SEED_START, index=index, instruction="Click the button.", thought="the button",
        action=action or act.Click(80.0, 110.0), box=box or {"x": 70, "y": 100, "w": 20, "h": 20}, png=file.getvalue(),
        characters=np.array([[1, 2, 65]], np.uint8), unread=np.zeros((0, 4), np.int16),
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrain")
    config = PretrainConfig(
        out=folder / "checkpoint", work=folder / "work", tasks=("click-test", "enter-text"), priority={}, episodes=4,
        episodes_of={}, reserved=4, held=2, steps=3, guided_steps=2, batch_size=2, workers=1, eval_instances=1,
    )  # fmt: skip
    run_pretrain(config, Console(file=io.StringIO()))
    return config


@pytest.mark.browser
def test_makes_a_checkpoint_that_plays(finished):
    from policies.registry import load_policy

    card = (finished.out / "MODEL_CARD.md").read_text()
    assert "| click-test |" in card and "agentlab pretrain" in card
    policy = load_policy(str(finished.out))
    env = MiniWoBEnv()
    try:
        spec = TaskSpec(ENV_ID, "click-test", 0, 2)
        observation, info = env.reset(options={"task": spec})
        session = policy.open(spec, seed=0)
        session.begin(info["instruction"])
        assert session.act(observation).text
    finally:
        env.close()
        policy.close()


@pytest.mark.browser
def test_goes_on_from_a_checkpoint(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(phases, "HEADS_FIRST", 5)
    plan = tmp_path / "plan.json"
    settings = finished.model_dump(mode="json", exclude={"out", "work", "base"}) | {
        "skip": 50,
        "lr": 0.5,
        "held": 1,
        "eval_instances": 0,
    }
    plan.write_text(json.dumps(settings))
    config = plan_of(plan, out=tmp_path / "further", work=tmp_path / "work", base=finished.out, guided_steps=6)
    run_pretrain(config, Console(file=io.StringIO()))
    first, second = (load_file(folder / "model.safetensors") for folder in (finished.out, config.out))
    assert first.keys() == second.keys() and any(not torch.equal(first[name], second[name]) for name in first)
    near = [torch.allclose(first[name], second[name], atol=0.1) for name in first]
    assert all(near)  # from there, not from scratch
    assert (config.out / "tokenizer.json").read_text() == (finished.out / "tokenizer.json").read_text()
    seeds = {int(path.stem) for path in config.work.rglob("*.npz")}
    assert seeds == {TRAIN_SEED_START + 50, 5 * TRAIN_SEED_START + 50, 10 * TRAIN_SEED_START + 50}
    card = (config.out / "MODEL_CARD.md").read_text()
    assert "--plan plan.json" in card and '"skip": 50' in card


def test_a_plan_that_cannot_be_used_is_refused(tmp_path):
    plan = tmp_path / "plan.json"
    for text, word in (("{", "JSON"), ("[1]", "settings"), ('{"stepz": 3}', "stepz"), ('{"steps": 0}', "steps")):
        plan.write_text(text)
        with pytest.raises(UsageError, match=word):
            plan_of(plan, out=tmp_path)
    with pytest.raises(UsageError, match="not a checkpoint"):
        plan_of(None, out=tmp_path, base=tmp_path)


@pytest.mark.browser
def test_same_command_again_changes_nothing(finished):
    weights = (finished.out / "model.safetensors").read_bytes()
    states = {path: path.stat().st_mtime_ns for path in finished.work.rglob("*.npz")}
    run_pretrain(finished, Console(file=io.StringIO()))
    assert (finished.out / "model.safetensors").read_bytes() == weights
    assert {path: path.stat().st_mtime_ns for path in finished.work.rglob("*.npz")} == states


@pytest.mark.browser
def test_other_settings_do_not_continue_a_work_folder(finished):
    with pytest.raises(StoreError, match="episodes"):
        run_pretrain(finished.model_copy(update={"episodes": 5}), Console(file=io.StringIO()))


@pytest.mark.browser
def test_first_screens_of_the_grid_are_those_of_the_environment(finished):
    env = MiniWoBEnv()
    try:
        for task in finished.tasks:
            for episode in read_shard(chunk_path(finished.work / "screens", task, HELD_SEED_START)):
                spec = TaskSpec(ENV_ID, task, episode[0].seed, 10)
                observation, info = env.reset(options={"task": spec})
                assert info["instruction"] == episode[0].instruction
                assert np.array_equal(observation["screenshot"], episode[0].pixels())
                for screen, following in itertools.pairwise(episode):  # typing: photographed with the focus in place
                    observation, *_ = env.step(screen.action)
                    if screen.action.kind == "click":
                        assert np.array_equal(observation["screenshot"], following.pixels())
    finally:
        env.close()


def test_unknown_task_is_refused(tmp_path):
    with pytest.raises(UsageError, match="klick-test"):
        PretrainConfig(out=tmp_path, tasks=("klick-test",))


def test_training_seeds_and_held_out_seeds_differ():
    chunks = plan({"a": 60, "b": 30}, reserved=30, held=5)
    seeds = [(task, seed) for task, start, count in chunks for seed in range(start, start + count)]
    assert len(seeds) == len(set(seeds)) == 60 + 30 + 60 + 10
    assert sum(RESERVED_SEED_START <= seed < HELD_SEED_START for _, seed in seeds) == 60
    assert sum(seed >= HELD_SEED_START for _, seed in seeds) == 10
    assert min(seed for _, seed in seeds) == TRAIN_SEED_START


def test_shards_keep_everything(tmp_path):
    episode = [make_screen(0), make_screen(1, act.Type("it's"))]
    write_shard(tmp_path / "x.npz", [episode])
    (back,) = read_shard(tmp_path / "x.npz")
    assert [s.action for s in back] == [s.action for s in episode]
    assert np.array_equal(back[1].pixels(), episode[1].pixels())
    assert back[0].characters.tolist() == [[1, 2, 65]] and back[0].box == episode[0].box


def test_right_means_the_same_target_text_or_keys():
    button = make_screen()
    assert is_right(act.Click(71.0, 119.0), button)
    assert not is_right(act.Click(91.0, 110.0), button)
    assert not is_right(act.Hover(80.0, 110.0), button)
    typed = make_screen(action=act.Type("Ann"))
    assert is_right(act.Type("Ann"), typed) and not is_right(act.Type("Anna"), typed)


def test_guidance_lists_the_mistake_and_the_target_stays_the_experts():
    episode = [make_screen(0), make_screen(1, act.Click(40.0, 44.0), {"x": 30, "y": 40, "w": 20, "h": 20})]
    slip = "Thought: the button\nAction: click(start_box='(900,900)')"
    wrong = {("click-test", TRAIN_SEED_START, 1): [slip]}
    rng = np.random.default_rng(0)
    found = guided(episode, wrong, rng)
    assert found and all("click(start_box='(900,900)')" in e.guidance for e in found)
    assert found[-1].action == episode[1].action
    # the first step of the failed attempt was right, and is listed before the one that was not
    assert found[-1].guidance.index("(500,500)") < found[-1].guidance.index("(900,900)")
    (again,) = retried(episode, wrong, rng)
    assert again.history[0] == episode_reply(episode[0]) and set(again.history[1:]) == {slip} and not again.guidance
    assert guided(episode, {}, rng) == []


def episode_reply(screen):
    from policies.nano.replies import reply_text

    return reply_text(screen.thought, screen.action)


def test_settings_of_a_work_folder_survive(tmp_path):
    config = PretrainConfig(out=tmp_path / "a", work=tmp_path / "w", steps=3)
    config.claim()
    config.model_copy(update={"out": tmp_path / "b", "workers": 7}).claim()
    assert json.loads((tmp_path / "w" / "pretrain.json").read_text())["steps"] == 3

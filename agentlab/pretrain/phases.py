"""The two phases of training, as jobs for one or several processes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2VLForConditionalGeneration

from agentlab.disk.files import write_atomic
from agentlab.pretrain.config import PretrainConfig
from agentlab.pretrain.examples import ExampleLibrary
from agentlab.pretrain.mistakes import guided, retried, sample_mistakes
from agentlab.pretrain.shards import Episode
from policies.nano.build import NanoConfig, build_model
from policies.nano.data import Example
from policies.nano.fast import FastForward
from policies.nano.parallel import barrier, rank
from policies.nano.screen import COORDINATE_TINT, SCREEN_HEIGHT, SCREEN_WIDTH
from policies.nano.train import TrainConfig, Trainer

Wrong = dict[tuple[str, int, int], list[str]]

GUIDED = " +guidance"
"""Suffix of a task's name in the figures for examples with guidance."""

MIN_GUIDED = 8
HEADS_FIRST = 60
"""Steps that go on from a checkpoint with what is new to it alone, before all weights are trained."""
GUIDED_VARIANTS = 3


def screens_folder(config: PretrainConfig) -> Path:
    return config.work / "screens"


def library(config: PretrainConfig) -> ExampleLibrary:
    """Everything collected for these tasks."""
    found = ExampleLibrary(screens_folder(config), config.tasks)
    found.refresh()
    return found


def tokenizer_of(config: PretrainConfig) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(config.base or config.work / "tokenizer")
    return loaded


def network_of(model: Qwen2VLForConditionalGeneration) -> FastForward:
    return FastForward(model, COORDINATE_TINT, SCREEN_HEIGHT, SCREEN_WIDTH)


def train_config(config: PretrainConfig) -> TrainConfig:
    """One learning-rate schedule over both phases: constant, then falling to zero over the last two thirds."""
    default = TrainConfig(steps=config.steps + config.guided_steps)
    return dataclasses.replace(
        default,
        muon_lr=config.lr * default.muon_lr,
        adam_lr=config.lr * default.adam_lr,
        heads_first=HEADS_FIRST if config.base is not None else 0,
        batch_size=max(1, config.batch_size // config.workers),
        warmup=min(60, config.steps // 4),
        decay=0.67,
        priority=config.priority,
        seed=config.seed,
    )


def progress_file(config: PretrainConfig) -> Path:
    return config.work / "progress.json"


def _reporter(config: PretrainConfig) -> Callable[[int, float, Mapping[str, float]], None]:
    def report(step: int, loss: float, losses: Mapping[str, float]) -> None:
        if rank() == 0 and (step % 5 == 0 or step <= 1):
            write_atomic(progress_file(config), json.dumps({"step": step, "loss": loss, "losses": dict(losses)}))

    return report


def train_phase_1(config: PretrainConfig) -> None:
    """Plain behaviour cloning; leaves ``phase1.pt``."""
    found = library(config)
    train = dataclasses.replace(train_config(config), until=config.steps)
    _train(config, found.refresh, train, config.work / "phase1.pt")


def find_mistakes(config: PretrainConfig) -> None:
    """The phase-1 policy's mistakes on the reserved episodes; each worker does its share and leaves a file."""
    path = _part_file(config, rank())
    if path.exists():
        return
    network = network_of(averaged(config, "phase1.pt"))
    mine = reserved_episodes(config)[rank() :: config.workers]
    done = 0

    def report(n: int) -> None:
        nonlocal done
        done += n
        if rank() == 0:  # the others are as far
            write_atomic(progress_file(config), json.dumps({"step": done * config.workers, "loss": 0.0}))

    wrong = sample_mistakes(network, tokenizer_of(config), mine, seed=config.seed + rank(), on_progress=report)
    write_atomic(path, json.dumps([[*key, replies] for key, replies in wrong.items()]))


def reserved_episodes(config: PretrainConfig) -> list[Episode]:
    """All of them, in an order that gives every worker the same mixture."""
    reserved = library(config).reserved
    return [episode for round_ in itertools.zip_longest(*reserved.values()) for episode in round_ if episode is not None]


def averaged(config: PretrainConfig, state: str) -> Qwen2VLForConditionalGeneration:
    """The model with the averaged weights of a saved state."""
    model = build_model(NanoConfig(), tokenizer_of(config), config.seed)
    model.load_state_dict(torch.load(config.work / state, weights_only=True)["average"])
    return model.eval()


def _model(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> Qwen2VLForConditionalGeneration:
    """The weights to begin with, float32."""
    if config.base is None:
        return build_model(NanoConfig(), tokenizer, config.seed)
    loaded: Qwen2VLForConditionalGeneration = Qwen2VLForConditionalGeneration.from_pretrained(config.base, dtype=torch.float32)
    return loaded


def train_phase_2(config: PretrainConfig) -> None:
    """The same, with prompts that list failed attempts among the others; begins from the end of phase 1."""
    state = config.work / "phase2.pt"
    if rank() == 0 and not state.exists():
        shutil.copyfile(config.work / "phase1.pt", state.with_suffix(".copy"))
        state.with_suffix(".copy").replace(state)
    found = library(config)
    pools: dict[str, list[Example]] = dict(found.examples)
    pools |= guided_pools(found, load_mistakes(config), np.random.default_rng([config.seed, 2]))
    _train(config, lambda: pools, train_config(config), state)


def _train(config: PretrainConfig, pools: Callable[[], Mapping[str, list[Example]]], train: TrainConfig, state: Path) -> None:
    barrier()
    tokenizer = tokenizer_of(config)
    model = _model(config, tokenizer)
    Trainer(model, tokenizer, pools, train, state, _reporter(config)).run()


def guided_pools(found: ExampleLibrary, wrong: Wrong, rng: np.random.Generator) -> dict[str, list[Example]]:
    """Examples with guidance, and examples just after a miss, for every task on which the policy makes mistakes."""
    pools: dict[str, list[Example]] = {}
    slipped = {(task, seed) for task, seed, _ in wrong}
    for task, episodes in found.reserved.items():
        pool: list[Example] = []
        for episode in episodes:
            if (task, episode[0].seed) in slipped:
                for _ in range(GUIDED_VARIANTS):
                    pool += guided(episode, wrong, rng)
                pool += retried(episode, wrong, rng)
        if len(pool) >= MIN_GUIDED:
            pools[task + GUIDED] = [dataclasses.replace(example, task=task + GUIDED) for example in pool]
    return pools


def mistakes_file(config: PretrainConfig) -> Path:
    return config.work / "mistakes.json"


def _part_file(config: PretrainConfig, worker: int) -> Path:
    return config.work / f"mistakes.{worker + 1}of{config.workers}.json"


def join_mistakes(config: PretrainConfig) -> None:
    """Put together what the workers found."""
    parts = [_part_file(config, worker) for worker in range(config.workers)]
    rows = [row for part in parts for row in json.loads(part.read_text(encoding="utf-8"))]
    write_atomic(mistakes_file(config), json.dumps(rows))


def load_mistakes(config: PretrainConfig) -> Wrong:
    rows = json.loads(mistakes_file(config).read_text(encoding="utf-8"))
    return {(task, seed, index): replies for task, seed, index, replies in rows}

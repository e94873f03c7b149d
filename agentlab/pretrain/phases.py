"""The two phases of training, as jobs for one or several processes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2VLForConditionalGeneration

from agentlab.pretrain.config import PretrainConfig
from agentlab.pretrain.examples import Library
from agentlab.pretrain.mistakes import guided, retried
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
GUIDED_VARIANTS = 3


def screens_folder(config: PretrainConfig) -> Path:
    return config.work / "screens"


def library(config: PretrainConfig) -> Library:
    """Everything collected for these tasks."""
    found = Library(screens_folder(config), config.tasks)
    found.refresh()
    return found


def tokenizer_of(config: PretrainConfig) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(config.work / "tokenizer")
    return loaded


def network_of(model: Qwen2VLForConditionalGeneration) -> FastForward:
    return FastForward(model, COORDINATE_TINT, SCREEN_HEIGHT, SCREEN_WIDTH)


def train_config(config: PretrainConfig) -> TrainConfig:
    """One learning-rate schedule over both phases: constant, then falling to zero over the last two thirds."""
    return TrainConfig(
        steps=config.steps + config.guided_steps,
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
            temporary = progress_file(config).with_suffix(".tmp")
            temporary.write_text(json.dumps({"step": step, "loss": loss, "losses": dict(losses)}), encoding="utf-8")
            temporary.replace(progress_file(config))

    return report


def train_phase_1(config: PretrainConfig) -> None:
    """Plain behaviour cloning; leaves ``phase1.pt``."""
    found = library(config)
    train = dataclasses.replace(train_config(config), until=config.steps)
    _train(config, lambda: found.examples, train, config.work / "phase1.pt")


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
    model = build_model(NanoConfig(), tokenizer, config.seed)
    Trainer(model, tokenizer, pools, train, state, _reporter(config)).run()


def guided_pools(found: Library, wrong: Wrong, rng: np.random.Generator) -> dict[str, list[Example]]:
    """Examples with guidance, and examples just after a miss, for every task on which the policy makes mistakes."""
    pools: dict[str, list[Example]] = {}
    slipped = {(task, seed) for task, seed, _ in wrong}
    for task, episodes in found.train.items():
        pool: list[Example] = []
        for episode in episodes:
            if (task, episode[0].seed) in slipped:
                for _ in range(GUIDED_VARIANTS):
                    pool += guided(episode, wrong, rng)
                pool += retried(episode, wrong, rng)
        if len(pool) >= MIN_GUIDED:
            pools[task + GUIDED] = [dataclasses.replace(example, task=task + GUIDED) for example in pool]
    return pools


def save_mistakes(config: PretrainConfig, wrong: Wrong) -> None:
    path = config.work / "mistakes.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps([[*key, replies] for key, replies in wrong.items()]), encoding="utf-8")
    temporary.replace(path)


def load_mistakes(config: PretrainConfig) -> Wrong:
    rows = json.loads((config.work / "mistakes.json").read_text(encoding="utf-8"))
    return {(task, seed, index): replies for task, seed, index, replies in rows}

"""What ``agentlab pretrain`` is asked to do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agentlab.disk.files import write_atomic
from envs.errors import StoreError, UsageError, did_you_mean
from envs.miniwob.oracles import oracle_tasks
from envs.miniwob.tasks import CORE, TRAIN_SEED_START

DEFAULT_PRIORITY = {
    "click-checkboxes": 0.5, "use-slider": 0.5, "click-menu": 0.5, "visual-addition": 0.5, "simple-arithmetic": 0.5,
    "odd-or-even": 0.5, "email-inbox-important": 0.7, "click-test": 0.7, "click-tab": 0.7,
}  # fmt: skip


DEFAULT_EPISODES = {
    **dict.fromkeys(("click-test", "click-dialog", "circle-center", "click-tab", "click-collapsible"), 200),  # few instances
    **dict.fromkeys(("count-sides", "count-shape", "identify-shape", "click-shape"), 700),  # perception
    **dict.fromkeys(
        ("enter-text", "login-user", "enter-date", "simple-arithmetic", "odd-or-even", "visual-addition", "click-checkboxes"), 325
    ),  # three to five screens each
}  # fmt: skip


class PretrainConfig(BaseModel):
    """Settings of a pretraining; a work folder is continued only under the same ones.

    Attributes:
        out: Folder for the checkpoint and its model card.
        work: Folder for screens, training state and evaluation; kept, so that the same command continues.
        base: Checkpoint to go on from (its tokenizer is kept); None: from scratch.
        skip: Instances left out at the beginning of every range of seeds: those that ``base`` was trained on.
        lr: Factor on the peak learning rates.
        tasks: Tasks to learn; each needs an expert.
        priority: Factors on how often a task is drawn (1 where not named).
        episodes: Expert episodes per task (not named in ``episodes_of``).
        episodes_of: The same for single tasks.
        reserved: Further ones per task, seen in phase 2 only, under guidance about the policy's own mistakes on them.
        held: Expert episodes per task that are kept out of the training (only their words go into the tokenizer).
        steps: Training batches of phase 1 (no guidance).
        guided_steps: Training batches of phase 2 (part of the prompts with guidance).
        batch_size: Examples per batch, over all workers.
        workers: Processes that train, look for mistakes and play the experts, one core each.
        eval_instances: Held-out instances per task of the final evaluation.
        seed: Initial weights, order of the examples, sampling.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: Path
    work: Path = Field(default_factory=lambda: Path.home() / ".cache" / "agentlab" / "pretrain")
    base: Path | None = None
    skip: int = Field(default=0, ge=0, lt=TRAIN_SEED_START)
    lr: float = Field(default=1.0, gt=0)
    tasks: tuple[str, ...] = CORE
    priority: dict[str, float] = Field(default_factory=lambda: dict(DEFAULT_PRIORITY))
    episodes: int = Field(default=425, ge=1)
    episodes_of: dict[str, int] = Field(default_factory=lambda: dict(DEFAULT_EPISODES))
    reserved: int = Field(default=150, ge=1)
    held: int = Field(default=16, ge=1)
    steps: int = Field(default=3000, ge=1)
    guided_steps: int = Field(default=1800, ge=1)
    batch_size: int = Field(default=28, ge=1)
    workers: int = Field(default_factory=lambda: min(2, os.cpu_count() or 1), ge=1)
    eval_instances: int = Field(default=50, ge=0)
    seed: int = Field(default=0, ge=0)

    @field_validator("base")
    @classmethod
    def _a_checkpoint(cls, base: Path | None) -> Path | None:
        if base is not None and not (base / "model.safetensors").is_file():
            raise UsageError(
                f"{base} is not a checkpoint: it has no model.safetensors.", "Give a folder that `agentlab pretrain` made."
            )
        return base

    @field_validator("tasks")
    @classmethod
    def _known(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        known = oracle_tasks()
        for task in tasks:
            if task not in known:
                raise UsageError(f"No scripted expert plays {task!r}.", did_you_mean(task, known, what="task"))
        if not tasks:
            raise UsageError("No tasks to learn.", "Leave out the list for the default one.")
        return tasks

    def claim(self) -> None:
        """Note these settings in the work folder, or check that it was begun under the same ones.

        Raises:
            StoreError: it was begun under others (they are named), or cannot be written.
        """
        path = self.work / "pretrain.json"
        mine = json.loads(self.model_dump_json(exclude={"out", "work", "workers", "eval_instances"}))
        if path.is_file():
            try:
                theirs = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise StoreError(f"{path} is damaged: {error}.", "Remove it, or choose another work folder.") from error
            differing = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
            if differing:
                raise StoreError(
                    f"{self.work} was begun under other settings: {', '.join(differing)}.",
                    "Give the same ones to continue it, or another work folder.",
                )
            return
        try:
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"Cannot make {self.work}: {error.strerror or error}.", "Choose a writable work folder.") from error
        write_atomic(path, json.dumps(mine, indent=2) + "\n")


def plan_of(file: Path | None, **given: Any) -> PretrainConfig:
    """The settings of a JSON file, under those that are ``given``.

    Raises:
        UsageError: the file cannot be read, or names a setting that does not exist or a value that is not allowed.
    """
    settings: Any = {}
    if file is not None:
        try:
            settings = json.loads(file.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{file} cannot be read as JSON: {error}.", "Give a file of pretraining settings.") from error
        if not isinstance(settings, dict):
            raise UsageError(f"{file} holds no settings.", 'Expected an object like {"steps": 100}.')
    try:
        return PretrainConfig(**{**settings, **given})
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UsageError(f"These settings cannot be used: {wrong}.", "PretrainConfig in agentlab/pretrain lists them.") from error

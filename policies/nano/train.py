"""The training loop of the bundled policy: Muon + AdamW, adaptive task sampling, averaged weights, resumable at every save."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from transformers import PreTrainedTokenizerBase, Qwen2VLForConditionalGeneration

from policies.nano.data import Example, TrainBatch, make_batch
from policies.nano.losses import LossWeights, Objective
from policies.nano.muon import Muon

Pools = Mapping[str, Sequence[Example]]


def fast_bf16() -> bool:
    """Whether this processor multiplies bfloat16 matrices faster than float32 ones."""
    return bool(torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported())


@dataclass(frozen=True)
class TrainConfig:
    """How one phase is trained.

    Attributes:
        steps: Batches in all.
        batch_size: Examples per batch.
        muon_lr, adam_lr: Peak learning rates.
        warmup: Steps of linear warm-up.
        decay: Share of the steps, at the end, over which the learning rate falls linearly to zero.
        average: Decay of the running average of the weights (the weights that are exported).
        aux: Weights of the auxiliary losses.
        aux_final: Factor on them that is reached at the end.
        save_seconds: Time between saves.
        seed: Order of the examples.
        priority: Factors on the sampling weights of tasks (1 where not named).
        heads_first: Steps at the beginning in which only the heads of the auxiliary losses learn, which a trained network lacks.
        until: Stop before this step (the schedule still is that of ``steps``).
        compile: Let torch.compile fuse the forward pass (needs a C++ compiler).
        bf16: Matrix products in bfloat16 (default: where the processor has instructions for them); weights stay float32.
    """

    steps: int
    batch_size: int = 24
    muon_lr: float = 0.02
    adam_lr: float = 2e-3
    warmup: int = 60
    decay: float = 0.4
    average: float = 0.995
    aux: LossWeights = field(default_factory=LossWeights)
    aux_final: float = 0.3
    save_seconds: float = 120.0
    seed: int = 0
    heads_first: int = 0
    until: int | None = None
    compile: bool = False
    bf16: bool = field(default_factory=fast_bf16)
    priority: Mapping[str, float] = field(default_factory=dict)

    @property
    def last(self) -> int:
        """Step to stop at."""
        return self.steps if self.until is None else min(self.until, self.steps)

    def lr_factor(self, step: int) -> float:
        if step < 0:
            return 0.0
        fall = (self.steps - self.heads_first - step) / max(self.decay * self.steps, 1.0)
        return min(1.0, (step + 1) / max(self.warmup, 1), max(fall, 0.0))

    def aux_at(self, step: int) -> LossWeights:
        factor = 1.0 + (self.aux_final - 1.0) * min(1.0, step / max(self.steps, 1))
        a = self.aux
        return LossWeights(**{name: value * factor for name, value in dataclasses.asdict(a).items()})


class TaskSampler:
    """Draws examples: tasks by how much is left to learn, within a task each example once per round.

    A task's weight is its running loss, bounded to [0.3, 2] times the mean, so that solved tasks cost little and hopeless ones do
    not take over.
    """

    def __init__(self, seed: Sequence[int], priority: Mapping[str, float] | None = None) -> None:
        self.priority = dict(priority or {})
        self.rng = np.random.default_rng(seed)
        self.loss: dict[str, float] = {}
        self._order: dict[str, list[int]] = {}

    def update(self, tasks: Sequence[str], losses: Sequence[float]) -> None:
        for task, loss in zip(tasks, losses, strict=True):
            self.loss[task] = loss if task not in self.loss else 0.98 * self.loss[task] + 0.02 * loss

    def draw(self, pools: Pools, count: int) -> list[Example]:
        names = [name for name, pool in pools.items() if pool]
        known = [self.loss[name] for name in names if name in self.loss]
        mean = float(np.mean(known)) if known else 1.0
        weight = np.array([np.clip(self.loss.get(name, mean) / max(mean, 1e-6), 0.3, 2.0) for name in names])
        weight *= [self.priority.get(name, 1.0) for name in names]
        chosen = self.rng.choice(len(names), size=count, p=weight / weight.sum())
        return [self._next(names[i], pools[names[i]]) for i in chosen]

    def _next(self, name: str, pool: Sequence[Example]) -> Example:
        order = self._order.get(name)
        if not order:
            order = self._order[name] = self.rng.permutation(len(pool)).tolist()
        return pool[order.pop()]


class Trainer:
    """Trains ``model`` in place.

    Args:
        pools: Called at the start and every ``refresh`` steps for the examples of each task, which may have grown.
        state_path: Where everything needed to continue is saved; if the file exists, training continues from it.
        on_step: Told (step, total loss, running loss per task) after every step.
    """

    def __init__(
        self,
        model: Qwen2VLForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        pools: Callable[[], Pools],
        config: TrainConfig,
        state_path: Path,
        on_step: Callable[[int, float, Mapping[str, float]], None] = lambda *_: None,
        refresh: int = 100,
    ) -> None:
        self.model, self.tokenizer, self.config, self.state_path = model, tokenizer, config, state_path
        self._pools, self._refresh, self._on_step = pools, refresh, on_step
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        torch.manual_seed(config.seed)
        self.objective = Objective(model)
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.optimizers = self._optimizers()
        self.sampler = TaskSampler([config.seed, self.rank], config.priority)
        self.step = 0
        if state_path.exists():
            self._load()

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, p in self.model.named_parameters():
            hidden = p.ndim == 2 and "embed_tokens" not in name and "lm_head" not in name
            (matrices if hidden else others).append(p)
        heads = [p for head in self.objective.heads() for p in head.parameters()]
        c = self.config
        self._shared = [*matrices, *others, *heads]
        return [
            Muon(matrices, lr=c.muon_lr, weight_decay=0.01),
            torch.optim.AdamW(others, lr=c.adam_lr, betas=(0.9, 0.98), weight_decay=0.0),
            torch.optim.AdamW(heads, lr=c.adam_lr, betas=(0.9, 0.98), weight_decay=0.0),
        ]

    # -- state ----------------------------------------------------------------------------------------------------------------
    def save(self) -> None:
        """Write the whole state, atomically (the first of several workers does it for all)."""
        if self.rank:
            return
        self.state_path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.state_path.with_suffix(".tmp")
        torch.save(
            {
                "step": self.step,
                "model": self.model.state_dict(),
                "average": self.average,
                "heads": [head.state_dict() for head in self.objective.heads()],
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "loss": self.sampler.loss,
            },
            temporary,
        )
        temporary.replace(self.state_path)

    def _load(self) -> None:
        state: dict[str, Any] = torch.load(self.state_path, weights_only=True)
        self.step, self.average, self.sampler.loss = state["step"], state["average"], state["loss"]
        self.model.load_state_dict(state["model"])
        for head, saved in zip(self.objective.heads(), state["heads"], strict=True):
            head.load_state_dict(saved)
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.sampler.rng = np.random.default_rng([self.config.seed, self.rank, self.step])

    def averaged(self) -> Qwen2VLForConditionalGeneration:
        """A copy of the model with the averaged weights."""
        model = Qwen2VLForConditionalGeneration(self.model.config)
        model.load_state_dict(self.average)
        model.generation_config = self.model.generation_config
        return model.eval()

    # -- the loop ---------------------------------------------------------------------------------------------------------------
    def run(self) -> None:
        """Train to the last step; saves on the way, at the end, and when interrupted."""
        objective: nn.Module = self.objective
        if self.config.compile:
            objective = torch.compile(self.objective, dynamic=True)  # type: ignore[assignment]
        saved = time.monotonic()
        self.model.train()
        try:
            for batch in self._batches():
                loss = self._train_step(objective, batch)
                self._on_step(self.step, loss, self.sampler.loss)
                if time.monotonic() - saved > self.config.save_seconds:
                    self.save()
                    saved = time.monotonic()
        finally:
            self.model.eval()
            self.save()

    def _train_step(self, objective: nn.Module, batch: TrainBatch) -> float:
        c = self.config
        factor = c.lr_factor(self.step - c.heads_first)
        of_heads = 1.0 if self.step < c.heads_first else factor
        for optimizer, lr in zip(self.optimizers, (c.muon_lr * factor, c.adam_lr * factor, c.adam_lr * of_heads), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = lr
        with torch.autocast("cpu", torch.bfloat16, enabled=c.bf16):
            loss, rows = objective(batch, c.aux_at(self.step))
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._share_gradients()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        keep = min(c.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.average[name].lerp_(value, 1 - keep)
        self.sampler.update(batch.tasks, rows.tolist())
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(f"The training loss is {value} at step {self.step}.")
        return value

    def _share_gradients(self) -> None:
        """Average the gradients over the workers: one message."""
        if self.world == 1:
            return
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self._shared]
        flat = torch.cat([g.flatten() for g in grads])
        dist.all_reduce(flat)
        flat /= self.world
        for p, part in zip(self._shared, flat.split([g.numel() for g in grads]), strict=True):
            p.grad = part.view_as(p)

    def _batches(self) -> Iterator[TrainBatch]:
        """Batches up to the last step, made one ahead; examples of similar length share a batch."""
        image_token = self.model.config.image_token_id
        size = self.config.batch_size

        def groups() -> Iterator[list[Example]]:
            pools = self._pools()
            made = self.step
            while made < self.config.last:
                if made % self._refresh < 8:
                    pools = self._pools()
                drawn = self.sampler.draw(pools, 8 * size)
                drawn.sort(key=lambda e: sum(map(len, e.encoded(self.tokenizer))))
                order = self.sampler.rng.permutation(8)
                for i in order[: self.config.last - made].tolist():
                    yield drawn[i * size : (i + 1) * size]
                made += 8

        with ThreadPoolExecutor(1) as pool:
            ahead = None
            for group in groups():
                following = pool.submit(make_batch, group, self.tokenizer, image_token)
                if ahead is not None:
                    yield ahead.result()
                ahead = following
            if ahead is not None:
                yield ahead.result()

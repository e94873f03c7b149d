"""Reasoning suites: which questions, in which order, with which instances."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from envs.base import TaskSpec, TaskSuite
from envs.draws import draw
from envs.errors import UsageError, did_you_mean
from envs.reasoning import gym
from envs.reasoning.datasets import DATASETS, load
from envs.reasoning.items import Item, read_items

ENV_ID = "agentlab/reasoning-v0"
GYM_PARTS = {"gym": tuple(gym.FAMILIES), "numbers": gym.NUMERIC}
"""Families of each part that is made by seed."""


def spec_of(name: str, seed: int, item: Item, source: str) -> TaskSpec:
    """The task of a question."""
    options: dict[str, Any] = {"source": source, "kind": item.kind, "examples": [list(shot) for shot in item.shots]}
    if item.choices:
        options["choices"] = list(item.choices)
    return TaskSpec(ENV_ID, name, seed, max_steps=1, domain=item.family or source, options=options)


class GymSuite(TaskSuite):
    """Endless instances of procedural families, round after round, in one order drawn from the seed."""

    default_limit = 100
    default_attempts = 10  # the papers' T_max

    def __init__(self, part: str = "gym") -> None:
        self.name = "reasoning" if part == "gym" else f"reasoning-{part}"
        self._families = GYM_PARTS[part]

    def task_names(self) -> list[str]:
        return list(self._families)

    def instances(self, names: Sequence[str] | None, seed: int) -> Iterator[TaskSpec]:
        """Instances without end; seeds lie below :data:`envs.reasoning.gym.TRAIN_SEED_START`."""
        chosen = list(self._families) if names is None else list(dict.fromkeys(names))
        for name in chosen:
            if name not in gym.FAMILIES:
                raise UsageError(f"There is no family of questions {name!r}.", did_you_mean(name, gym.FAMILIES, what="family"))
        chosen.sort(key=lambda name: draw(seed, name, "order"))
        return self._rounds(chosen, seed)

    @staticmethod
    def _rounds(names: list[str], seed: int) -> Iterator[TaskSpec]:
        used: set[tuple[str, int]] = set()
        asked: set[str] = set()
        number = 0
        while names and len(used) < gym.TRAIN_SEED_START:
            for name in names:
                instance = draw(seed, name, str(number)) % gym.TRAIN_SEED_START
                if (name, instance) in used:
                    continue
                used.add((name, instance))
                one = gym.item(name, instance)
                if one.question in asked:  # small families draw the same question from several seeds
                    continue
                asked.add(one.question)
                yield spec_of(name, instance, one, "gym")
            number += 1


class FixedSuite(TaskSuite):
    """The questions of a file or a data set, in an order drawn from the seed: a limited run is a fair sample."""

    default_limit = 100_000
    default_attempts = 10

    def __init__(self, source: str) -> None:
        self.name, self.source = f"reasoning-{source}" if source in DATASETS else f"reasoning:{source}", source

    def task_names(self) -> list[str]:
        return [one.id for one in items_of(self.source)]

    def instances(self, names: Sequence[str] | None, seed: int) -> Iterator[TaskSpec]:
        known = {one.id: one for one in items_of(self.source)}
        for name in names or ():
            if name not in known:
                raise UsageError(f"There is no question {name!r} in {self.source}.", did_you_mean(name, known, what="question"))
        chosen = list(known) if names is None else list(dict.fromkeys(names))
        chosen.sort(key=lambda name: draw(seed, name, "order"))
        return (self._spec(known[name]) for name in chosen)

    def _spec(self, item: Item) -> TaskSpec:
        """The task of a question, which is known by its content: another one in its place, under its id, is another task."""
        spec = spec_of(item.id, 0, item, self.source)
        content = hashlib.sha256(item.model_dump_json().encode()).hexdigest()[:16]
        return dataclasses.replace(spec, options=spec.options | {"content": content})


def item_of(task: TaskSpec) -> Item:
    """The question of a task.

    Raises:
        UsageError: there is no such question.
        SetupError: it is not on this machine.
    """
    source = str(task.options.get("source", "gym"))
    if source == "gym":
        return gym.item(task.name, task.seed)
    found = next((one for one in items_of(source) if one.id == task.name), None)
    if found is None:
        raise UsageError(f"There is no question {task.name!r} in {source}.")
    return found


@functools.lru_cache(maxsize=8)
def items_of(source: str) -> tuple[Item, ...]:
    """All questions of a data set by name, or of a JSONL file."""
    if source in DATASETS:
        return tuple(load(source))
    return tuple(read_items(Path(source).expanduser()))

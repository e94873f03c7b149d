"""What ``agentlab run --dry-run`` shows: the resolved plan, without starting anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape

from agentlab.disk.files import check_output
from agentlab.disk.runs import read_rows
from agentlab.run.config import RunConfig
from agentlab.run.needs import WEIGHTS_GB, gpu_memory, policy_lacks
from agentlab.run.parts import check_cluster, check_parts, plan
from agentlab.run.presets import preset_named
from envs.base import TaskSpec
from envs.benchmark import Workload
from envs.errors import SetupError
from envs.suites import lacking, locate, remarks
from policies.registry import MODEL_FREE, hub_repository

SHOWN = 10
UNKNOWN_STEPS = 15
"""Steps assumed for tasks that are not on this machine yet."""
MODEL_REPLY_SECONDS = 3.0
"""Seconds per reply of a 7B model on one GPU, as the official runner estimates them."""
CRITIQUE_SECONDS, UPDATE_SECONDS = 30.0, 30.0
"""Assumed, of one failed attempt: words about it by a model of that size or over the network, and a step of its weights."""


def show(config: RunConfig, console: Console) -> None:
    """Print configuration, first instances, what it takes, what is missing, what is done already and what would be downloaded."""
    check_parts(config)
    check_output(config.folder)
    check_cluster(config)
    here = lacking(config.suite, config.env) if config.cluster is None else ()
    missing = [*here, *policy_lacks(config)]
    tasks, count = _planned(config, missing)
    fetched = list(downloads(config))  # what is refused is refused before anything is shown
    console.print(yaml.safe_dump(config.to_json(), sort_keys=False).rstrip(), markup=False, highlight=False)
    console.print(f"\nadapt {config.adapt.preset}: {preset_named(config.adapt.preset).summary}", highlight=False)
    console.print(f"{count} sessions, up to {config.attempts} attempts each, {_at_a_time(config)}", highlight=False)
    for task in tasks[:SHOWN]:
        console.print(f"  {escape(task.id)}  (at most {task.max_steps} steps)", highlight=False)
    if len(tasks) > SHOWN:
        console.print(f"  … and {len(tasks) - SHOWN} more", highlight=False)
    steps = max((task.max_steps for task in tasks), default=config.max_steps or UNKNOWN_STEPS)
    for line in (*estimates(config, count, steps), *remarks(config.suite, config.env, tasks)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for error in missing:
        console.print(f"Missing here: {error.message} {error.hint}", markup=False, highlight=False, soft_wrap=True)
    for line in fetched:
        console.print(f"Would be fetched: {line}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Run directory: {config.folder} ({_done(config.folder)})", markup=False, highlight=False, soft_wrap=True)


def _at_a_time(config: RunConfig) -> str:
    if config.cluster is None:
        return f"{config.parallel} at a time"
    many = config.workers or "as many as there is room for"
    return f"{many} at a time on the nodes of {config.cluster}; `agentlab cluster doctor` says what they lack"


def _planned(config: RunConfig, missing: Sequence[SetupError]) -> tuple[list[TaskSpec], int]:
    """The task instances and their number; only the number if the tasks themselves are missing here."""
    try:
        tasks = plan(config)
    except SetupError as error:
        if error.message not in {other.message for other in missing}:
            raise
        return [], (len(config.tasks) if config.tasks else config.limit) * config.repeats
    return tasks, len(tasks)


def estimates(config: RunConfig, sessions: int, steps: int) -> Iterator[str]:
    """Disk, memory, GPU memory and time, where they are known beforehand."""
    needed = gpu_memory(config.policy, config.parallel)
    if needed is not None:
        yield f"GPU memory: about {needed:.0f} GB, {WEIGHTS_GB[config.policy]:g} GB of them weights (without what adaptation adds)"
    benchmark, part = locate(config.suite)
    yield from benchmark.estimates(part, config.env, workload(config, sessions, steps))


def workload(config: RunConfig, sessions: int, steps: int) -> Workload:
    """What the run is going to do; a model on this machine answers all sessions, one that is asked over the network each by itself."""
    from policies.sampling import MAX_REDRAWS

    size: dict[str, Any] = {"sessions": sessions, "attempts": config.attempts, "steps": steps, "workers": config.parallel}
    size["retries"] = config.infra_retries
    if config.policy in MODEL_FREE:
        return Workload(**size)
    learning = (config.attempts - 1) / config.attempts  # nothing is learned after the last attempt
    critique = CRITIQUE_SECONDS if config.adapt.words.method != "none" else 0.0
    update = UPDATE_SECONDS if config.adapt.weights.method != "none" else 0.0
    replies, redraws = steps * MODEL_REPLY_SECONDS, MAX_REDRAWS * learning if config.sampling.no_repeat else 0.0
    return Workload(
        **size,
        model_seconds=replies + learning * (critique + update),
        most_model_seconds=replies * (1 + redraws) + learning * (critique + update),
        one_model=not config.policy.startswith("openai:"),
    )


def downloads(config: RunConfig) -> Iterator[str]:
    """What a real run would fetch first."""
    repository = hub_repository(config.policy)
    if repository is not None:
        from huggingface_hub import try_to_load_from_cache

        if not isinstance(try_to_load_from_cache(repository, "config.json"), str):
            yield f"the model {repository} from the Hugging Face hub"
    yield from locate(config.suite)[0].downloads(config.env)


def _done(folder: Path) -> str:
    if not (folder / "config.json").exists():
        return "new"
    over = sum(row.session_over for row in read_rows(folder))
    return f"{over} sessions done"

"""``agentlab pretrain``: screens -> phase 1 -> mistakes -> phase 2 -> checkpoint -> evaluation -> model card.

Every stage leaves its result in the work folder and is skipped when that is there, so the same command continues wherever it was
stopped; the training itself continues from its last save.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from agentlab.disk.files import check_output, write_atomic
from agentlab.pretrain.card import write_card
from agentlab.pretrain.collect import collect_in_parallel, plan
from agentlab.pretrain.config import PretrainConfig
from agentlab.pretrain.evaluate import Player, summary
from agentlab.pretrain.phases import (
    averaged,
    find_mistakes,
    join_mistakes,
    library,
    load_mistakes,
    mistakes_file,
    network_of,
    progress_file,
    reserved_episodes,
    screens_folder,
    tokenizer_of,
    train_config,
    train_phase_1,
    train_phase_2,
)  # fmt: skip
from policies.nano.build import save_checkpoint
from policies.nano.parallel import run_workers
from policies.nano.tokenizer import build_tokenizer, common_words


def run_pretrain(config: PretrainConfig, console: Console | None = None) -> Path:
    """Train the bundled policy as ``config`` says, or continue; returns the checkpoint folder.

    Raises:
        StoreError: the work folder belongs to another configuration or cannot be written.
        SetupError: no browser.
        InfrastructureError: the browser failed too often.
    """
    for folder in (config.out, config.work):
        check_output(folder)
    config.claim()
    console = console or Console(stderr=True)
    with _progress(console) as progress:
        _collect(config, progress)
        _tokenizer(config)
        _train(config, progress, "phase 1", "phase1.pt", config.steps, train_phase_1)
        _mistakes(config, progress)
        _train(config, progress, "phase 2", "phase2.pt", config.steps + config.guided_steps, train_phase_2)
        save_checkpoint(averaged(config, "phase2.pt"), tokenizer_of(config), config.out)
        results = _evaluate(config, progress)
    write_card(config, results, library(config), len(load_mistakes(config)))
    console.print(f"The checkpoint is in {config.out}; use it with `agentlab run miniwob --policy {config.out}`.")
    return config.out


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        yield progress


def _collect(config: PretrainConfig, progress: Progress) -> None:
    episodes = {task: config.episodes_of.get(task, config.episodes) for task in config.tasks}
    chunks = plan(episodes, config.reserved, config.held, config.skip)
    folder = screens_folder(config)
    there = sum(n for task, start, n in chunks if (folder / task / f"{start:07d}.npz").exists())
    total = sum(n for _, _, n in chunks)
    bar = progress.add_task("screens", total=total, completed=there, note="episodes")
    missed = collect_in_parallel(chunks, folder, config.workers, on_progress=lambda n: progress.advance(bar, n))
    if missed:
        path = config.work / "missed.json"
        write_atomic(path, json.dumps({task: dict(reasons) for task, reasons in missed.items()}, indent=2) + "\n")


def _tokenizer(config: PretrainConfig) -> None:
    folder = config.work / "tokenizer"
    if config.base is not None:
        return
    if not (folder / "tokenizer.json").exists():
        build_tokenizer(common_words(library(config).texts())).save_pretrained(folder)


def _step_of(path: Path) -> int:
    return int(torch.load(path, weights_only=True, mmap=True)["step"]) if path.exists() else 0


def _train(config: PretrainConfig, progress: Progress, name: str, state: str, last: int, job: Any) -> None:
    _watched(config, progress, name, last, _step_of(config.work / state), job)


def _watched(config: PretrainConfig, progress: Progress, name: str, last: int, done: int, job: Any) -> None:
    """Run ``job`` in the workers, under a bar that follows what they report, unless it is done."""
    bar = progress.add_task(name, total=last, completed=min(done, last), note="")
    if done >= last:
        return
    progress_file(config).unlink(missing_ok=True)
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(1.0):
            try:
                now = json.loads(progress_file(config).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            progress.update(bar, completed=min(now["step"], last), note=f"loss {now['loss']:.3f}" if now["loss"] else "")

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        run_workers(config.workers, job, config)
    finally:
        stop.set()
        watcher.join()
    progress.update(bar, completed=last)


def _mistakes(config: PretrainConfig, progress: Progress) -> None:
    total = len(reserved_episodes(config))
    there = mistakes_file(config).exists()
    _watched(config, progress, "mistakes", total, total if there else 0, find_mistakes)
    if not there:
        join_mistakes(config)


def _evaluate(config: PretrainConfig, progress: Progress) -> dict[str, Any]:
    path = config.work / "evaluation.json"
    if path.exists():
        saved: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if saved["instances"] == config.eval_instances:
            return saved
    bar = progress.add_task("evaluation", total=len(config.tasks) * config.eval_instances, note="instances")
    started = time.perf_counter()
    results: dict[str, Any] = {"instances": config.eval_instances, "tasks": {}}
    with Player(network_of(averaged(config, "phase2.pt")), tokenizer_of(config)) as player:
        for task in config.tasks if config.eval_instances else ():
            results["tasks"][task] = summary(player, task, config.eval_instances)
            progress.advance(bar, config.eval_instances)
    results["seconds"] = time.perf_counter() - started
    write_atomic(path, json.dumps(results, indent=2) + "\n")
    return results


__all__ = ["run_pretrain", "train_config"]

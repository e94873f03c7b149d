"""The data set: expert episodes of every task, collected in chunks that are files, so that it can stop and continue anywhere."""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from agentlab.pretrain.grid import Grid
from agentlab.pretrain.shards import Episode, write_shard
from envs.errors import InfrastructureError
from envs.miniwob.tasks import TRAIN_SEED_START

CHUNK = 25
"""Episodes per file."""

HELD_SEED_START = 10 * TRAIN_SEED_START
"""Instances from here on are never trained on: only their words go into the tokenizer (evaluation seeds are below TRAIN_SEED_START)."""

RESERVED_SEED_START = 5 * TRAIN_SEED_START
"""Instances from here on (below the held-out ones) are seen under guidance only: what the policy gets wrong there it gets wrong
because it does not know the answer, not by a slip, so that only the guidance can tell it otherwise."""

RESTARTS = 20


@dataclass
class _Chunk:
    task: str
    start: int
    left: deque[int]
    episodes: list[Episode] = field(default_factory=list)


def chunk_path(folder: Path, task: str, start: int) -> Path:
    return folder / task / f"{start:07d}.npz"


def plan(episodes: Mapping[str, int], reserved: int, held: int, skip: int = 0) -> list[tuple[str, int, int]]:
    """(task, first seed, count) of every chunk: the held-out ones, then the others in turn over the tasks, reserved ones last.

    ``skip``: instances left out at the beginning of each range.
    """
    chunks: list[tuple[int, str, int, int]] = []
    last = -(-max(episodes.values()) // CHUNK)
    for task, total in episodes.items():
        chunks.append((-1, task, HELD_SEED_START + skip, held))
        for first, count, begin in ((TRAIN_SEED_START, total, 0), (RESERVED_SEED_START, reserved, last)):
            for turn, start in enumerate(range(0, count, CHUNK), start=begin):
                chunks.append((turn, task, first + skip + start, min(CHUNK, count - start)))
    order = {task: i for i, task in enumerate(episodes)}
    return [(task, start, count) for _, task, start, count in sorted(chunks, key=lambda c: (c[0], order[c[1]]))]


def collect(
    chunks: Sequence[tuple[str, int, int]],
    folder: Path,
    *,
    rows: int = 4,
    columns: int = 6,
    on_progress: Callable[[int], None] = lambda n: None,
) -> dict[str, Counter[str]]:
    """Play the experts through all ``chunks`` that have no file yet.

    ``on_progress`` is told the number of episodes done since the last call.

    Returns:
        For each task, how often its expert did not solve an instance, by reason (those instances are left out).

    Raises:
        InfrastructureError: the browser failed ``RESTARTS`` times.
    """
    missed: dict[str, Counter[str]] = {}
    for attempt in range(RESTARTS):
        todo = deque(_Chunk(t, s, deque(range(s, s + n))) for t, s, n in chunks if not chunk_path(folder, t, s).exists())
        if not todo:
            break
        try:
            _collect(todo, folder, rows, columns, attempt, missed, on_progress)
        except InfrastructureError:
            if attempt == RESTARTS - 1:
                raise
    return missed


def collect_in_parallel(
    chunks: Sequence[tuple[str, int, int]], folder: Path, processes: int, on_progress: Callable[[int], None] = lambda n: None
) -> dict[str, Counter[str]]:
    """:func:`collect` in several processes, a browser each: a grid waits for its page much of the time."""
    todo = [chunk for chunk in chunks if not chunk_path(folder, chunk[0], chunk[1]).exists()]
    if processes == 1 or len(todo) < 2 * processes:
        return collect(todo, folder, on_progress=on_progress)
    context = multiprocessing.get_context("spawn")
    missed: dict[str, Counter[str]] = {}
    with context.Manager() as manager, ProcessPoolExecutor(processes, mp_context=context) as pool:
        news = manager.Queue()
        jobs = [pool.submit(_part, todo[i::processes], folder, news) for i in range(processes)]
        while not (all(job.done() for job in jobs) and news.empty()):
            with contextlib.suppress(queue.Empty):
                on_progress(news.get(timeout=0.5))
        for job in jobs:
            for task, reasons in job.result().items():
                missed.setdefault(task, Counter()).update(reasons)
    return missed


def _part(chunks: Sequence[tuple[str, int, int]], folder: Path, news: queue.Queue[int]) -> dict[str, Counter[str]]:
    return collect(chunks, folder, on_progress=news.put)


def _collect(
    todo: deque[_Chunk],
    folder: Path,
    rows: int,
    columns: int,
    seed: int,
    missed: dict[str, Counter[str]],
    on_progress: Callable[[int], None],
) -> None:
    current: dict[int, _Chunk] = {}

    def source(tile: int) -> tuple[str, int] | None:
        if tile not in current:
            if not todo:
                return None
            current[tile] = todo.popleft()
        return current[tile].task, current[tile].left.popleft()

    with Grid(folder, rows, columns, seed=seed) as grid:
        for tile, task, _, episode, reason in grid.play(source):
            chunk = current[tile]
            if reason:
                missed.setdefault(task, Counter())[reason] += 1
            else:
                chunk.episodes.append(episode)
            on_progress(1)
            if not chunk.left:
                write_shard(chunk_path(folder, chunk.task, chunk.start), chunk.episodes)
                del current[tile]

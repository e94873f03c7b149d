"""The data set: expert episodes of every task, collected in chunks that are files, so that it can stop and continue anywhere."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentlab.pretrain.grid import Grid
from agentlab.pretrain.shards import Episode, write_shard
from envs.errors import InfrastructureError
from envs.miniwob.tasks import TRAIN_SEED_START

CHUNK = 25
"""Episodes per file."""

HELD_SEED_START = 10 * TRAIN_SEED_START
"""Instances from here on are never trained on; their losses steer the training (evaluation seeds lie below TRAIN_SEED_START)."""

RESTARTS = 20


@dataclass
class _Chunk:
    task: str
    start: int
    left: deque[int]
    episodes: list[Episode] = field(default_factory=list)


def chunk_path(folder: Path, task: str, start: int) -> Path:
    return folder / task / f"{start:07d}.npz"


def plan(episodes: Mapping[str, int], held: int) -> list[tuple[str, int, int]]:
    """(task, first seed, count) of every chunk; the held-out chunk first, then one chunk of each task in turn."""
    chunks: list[tuple[int, str, int, int]] = []
    for task, total in episodes.items():
        chunks.append((-1, task, HELD_SEED_START, held))
        for turn, start in enumerate(range(0, total, CHUNK)):
            chunks.append((turn, task, TRAIN_SEED_START + start, min(CHUNK, total - start)))
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

"""Training on several cores: one process each with one thread, gradients averaged once per step.

Two threads of one process wait for each other several hundred times a step; beside any other load that costs more than half of the
speed.  Processes meet once.
"""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

MEETING_SECONDS = 600


def run_workers(workers: int, job: Callable[..., None], *args: object) -> None:
    """Call ``job(*args)`` in ``workers`` processes that can average tensors; in this process if it is only one.

    ``job`` and ``args`` must be picklable.

    Raises:
        RuntimeError: a worker failed; the message has its traceback.
    """
    if workers == 1:
        job(*args)
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        context = mp.spawn(_worker, (workers, meeting, job, args), nprocs=workers, join=False)
        try:
            while not context.join():
                pass
        except KeyboardInterrupt:  # the workers got it as well: let them save
            for process in context.processes:
                process.join(60)
            raise
        except mp.ProcessRaisedException as error:
            raise RuntimeError(f"A training process failed: {error}") from error


def _worker(rank: int, workers: int, meeting: str, job: Callable[..., None], args: tuple[object, ...]) -> None:
    torch.set_num_threads(1)
    timeout = datetime.timedelta(seconds=MEETING_SECONDS)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=workers, timeout=timeout)
    try:
        job(*args)
    finally:
        dist.destroy_process_group()


def barrier() -> None:
    """Wait for the other workers."""
    if dist.is_initialized():
        dist.barrier()


def rank() -> int:
    """This process's number among the workers; 0 when it is alone."""
    return dist.get_rank() if dist.is_initialized() else 0

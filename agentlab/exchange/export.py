"""Runs as data for others: ATIF trajectories, JSONL for training, a folder for Hugging Face ``datasets``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agentlab.disk.files import fresh_folder
from agentlab.disk.runs import Run, read_run
from agentlab.exchange import atif as export_atif
from agentlab.exchange import datasets as export_datasets
from agentlab.exchange import training as export_training
from agentlab.exchange import upstream as export_upstream
from agentlab.exchange.source import Exported
from envs.errors import UsageError

SHOWN = 5
"""Reasons given where nothing can be exported."""

WRITERS: dict[str, Callable[[Run, Path, bool], Exported]] = {
    "atif": export_atif.write,
    "sft": export_training.write_sft,
    "pairs": export_training.write_pairs,
    "datasets": export_datasets.write,
    "osworld": export_upstream.write_osworld,
    "androidworld": export_upstream.write_androidworld,
}
"""Formats by name."""


def export_run(run_dir: Path, form: str, folder: Path, *, guidance: bool = True) -> Exported:
    """Write a run in the format ``form`` into an empty folder.

    Args:
        guidance: Whether what the agent had been told between attempts is part of the instruction that is exported.

    Raises:
        UsageError: no such format, or nothing to export.
        StoreError: no run there, or the folder is not empty.
    """
    if form not in WRITERS:
        raise UsageError(f"There is no export format {form!r}.", f"Known: {', '.join(WRITERS)}.")
    run = read_run(run_dir)
    fresh_folder(folder)
    done = WRITERS[form](run, folder, guidance)
    if not done.count:
        reasons = "".join(f"\n{line}" for line in done.left_out[:SHOWN])
        raise UsageError(f"{run_dir} has no {done.what} to export.", f"`agentlab report` shows what it has.{reasons}")
    return done

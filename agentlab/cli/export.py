"""The verbs that carry runs to and from others: ``export`` and ``import``.  Thin, like :mod:`agentlab.cli.app`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentlab.cli.terminal import Terminal

app = typer.Typer()
out = Terminal()
err = Terminal(stderr=True)

SHOWN = 20
"""Lines about what was left out or odd."""


@app.command()
def export(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    form: Annotated[str, typer.Option("--format", help="atif, sft, pairs, datasets, osworld or androidworld.")],
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write to; must be empty.")],
    no_guidance: Annotated[
        bool, typer.Option("--no-guidance", help="Leave the guidance out of the instruction that is exported.")
    ] = False,
) -> None:
    """Write a run for other tools: ATIF trajectories, JSONL for training, a folder for Hugging Face datasets, upstream's results."""
    from agentlab.exchange.export import export_run

    done = export_run(run_dir, form, out_dir, guidance=not no_guidance)
    _say("left out", done.left_out)
    out.print(f"{done.count} {done.what} and {done.images} screens written to {out_dir}", soft_wrap=True, markup=False)


def _say(what: str, lines: list[str]) -> None:
    for line in lines[:SHOWN]:
        err.print(f"{what}: {line}", markup=False, soft_wrap=True)
    if len(lines) > SHOWN:
        err.print(f"… and {len(lines) - SHOWN} more", markup=False)


imports = typer.Typer(help="Make a run of results that others wrote.", no_args_is_help=True)
app.add_typer(imports, name="import")


@imports.command("osworld")
def import_osworld(
    results: Annotated[Path, typer.Argument(metavar="RESULTS_DIR", help="Result directory of OSWorld's own scripts.")],
    out_dir: Annotated[Path, typer.Option("--out", metavar="RUN", help="Run directory to make.")],
    examples: Annotated[
        Path | None, typer.Option(metavar="DIR", help="OSWorld's evaluation_examples, for the instructions of the tasks.")
    ] = None,
) -> None:
    """Make a run of OSWorld's own results, to view it and to compare others with it."""
    from agentlab.exchange.import_osworld import import_osworld as bring_in

    done = bring_in(results, out_dir, examples=examples)
    _say("note", done.remarks)
    out.print(f"{done.tasks} tasks, {done.graded} with a result, {done.solved} solved: {out_dir}", soft_wrap=True, markup=False)

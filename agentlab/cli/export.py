"""The verbs that carry runs to and from others: ``export`` and ``import``.  Thin, like :mod:`agentlab.cli.app`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from agentlab.cli.benchmarks import BenchmarkGroup
from agentlab.cli.terminal import Terminal
from envs.benchmark import Benchmark

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


def _import_command(benchmark: Benchmark) -> Callable[..., None]:
    """The benchmark's own importer; its further parameters are the options."""
    importer: Any = benchmark.importer
    if isinstance(importer, str):
        module, _, name = importer.partition(":")
        importer = getattr(importlib.import_module(module), name)

    def command(results: Path, out_dir: Path, **options: Any) -> None:
        done = importer(results, out_dir, **options)
        _say("note", done.remarks)
        out.print(f"{done.tasks} tasks, {done.graded} with a result, {done.solved} solved: {out_dir}", soft_wrap=True, markup=False)

    given = {
        "results": Annotated[
            Path, typer.Argument(metavar="RESULTS_DIR", help="Results as the benchmark's own scripts wrote them.")
        ],
        "out_dir": Annotated[Path, typer.Option("--out", metavar="RUN", help="Run directory to make.")],
    }
    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind) for name, kind in given.items()]
    parameters += list(inspect.signature(importer, eval_str=True).parameters.values())[2:]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = (inspect.getdoc(importer) or "").partition("\n\n")[0]
    return command


class ImportGroup(BenchmarkGroup):
    """``agentlab import NAME``."""

    ability, what, make = "importer", "import from", staticmethod(_import_command)


imports = typer.Typer(cls=ImportGroup, help="Make a run of results that others wrote.", no_args_is_help=True)
app.add_typer(imports, name="import")


@imports.callback()
def _group() -> None:
    pass

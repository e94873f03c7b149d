"""``agentlab fetch``: what benchmarks need from the internet, once, into a folder that all runs share."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from agentlab import fetch_android

app = typer.Typer(help="Fetch what a benchmark needs; the same command again continues.", no_args_is_help=True)
err = Console(stderr=True)


@app.callback()
def _group() -> None:
    pass


app.command("androidworld")(fetch_android.androidworld)


@app.command("osworld")
def osworld(
    suite: Annotated[str, typer.Option(help="test_all, test_nogdrive, test_small, light, or a path to tasks.")] = "test_all",
    limit: Annotated[int | None, typer.Option(help="Fetch the files of this many tasks only.", min=1)] = None,
    files: Annotated[
        bool, typer.Option("--files/--no-files", help="Fetch the files that tasks open and are compared with.")
    ] = True,
    vm: Annotated[bool, typer.Option("--vm", help="Also fetch the official virtual machine (12 GB, 24 GB unpacked).")] = False,
    ocr: Annotated[bool, typer.Option("--ocr", help="Also install easyocr, which grades three tasks (5 GB).")] = False,
) -> None:
    """OSWorld's pinned task set, the files its tasks use, and its grader in a virtual environment of its own (1.5 GB)."""
    from agentlab.fetch import OnBytes
    from agentlab.fetch_osworld import Watcher, fetch

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:

        def begin(what: str, size: int | None) -> OnBytes:
            bar = progress.add_task(what, total=size)
            return lambda count: progress.advance(bar, count)

        watch = Watcher(say=lambda line: err.print(escape(line), soft_wrap=True, highlight=False), begin=begin)
        fetch(suite, watch, limit=limit, files=files, disk=vm, ocr=ocr)

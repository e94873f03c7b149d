"""``agentlab experience``: what sessions have left for later ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from agentlab.cli.terminal import Terminal

app = typer.Typer(help="What sessions have left for later ones (`agentlab run … --experience DIR`).", no_args_is_help=True)
out = Terminal()

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Experience directory.")]


@app.command()
def ls(folder: Folder) -> None:
    """List it: sessions by task, and every lesson with what became of those that read it."""
    from agentlab.experience import listing
    from agentlab.experience.directory import Directory
    from agentlab.results.pages import Section
    from agentlab.results.tables import TerminalTable

    directory = Directory(folder)
    state = listing.read(directory)
    out.print(escape(listing.title(directory, state)), highlight=False, soft_wrap=True)
    for section in (
        Section("Tasks", listing.GROUP_HEADER, listing.group_rows(state)),
        Section("Lessons", listing.LESSON_HEADER, listing.lesson_rows(state)),
    ):
        if section.rows:
            out.print(TerminalTable(section))


@app.command()
def show(folder: Folder, what: Annotated[str, typer.Argument(help="A lesson, an example, a session or a round.")]) -> None:
    """Show one thing: where it comes from, and which sessions were shown it."""
    from agentlab.experience import listing
    from agentlab.experience.directory import Directory

    directory = Directory(folder)
    for line in listing.about(directory, listing.read(directory), what):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def forget(
    folder: Folder, what: Annotated[list[str], typer.Argument(help="Lessons or examples, or sessions with all they left.")]
) -> None:
    """Show something to no later run any more.  Runs that have begun are not changed by it, also where they are continued."""
    from agentlab.experience import listing
    from agentlab.experience.directory import Directory

    directory = Directory(folder)
    directory.source()
    directory.lock()
    try:
        directory.forget(what, listing.ids(listing.read(directory)))
    finally:
        directory.close()
    out.print(f"Forgotten: {', '.join(what)}.", markup=False, soft_wrap=True)

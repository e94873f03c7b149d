"""The verbs about model families: ``families``, ``parse`` and ``recipes``.  Thin, like :mod:`agentlab.cli.app`."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from agentlab.cli.terminal import Terminal

app = typer.Typer()
out = Terminal()
err = Terminal(stderr=True)

MOST_READ = 2_000_000
"""Characters of a reply that are read from standard input."""


@app.command()
def families() -> None:
    """List the model families: what each is for, where it runs, how its points count, and its official sources."""
    from policies.families.registry import families as known

    name = Column("family", min_width=max(map(len, known())))  # it is typed: never cut
    table = Table(name, "models", "devices", "weights", "points", "sources", show_lines=True)
    for family in known().values():
        weights = ", ".join(sorted(family.architectures)) or "served only"
        sources = "\n".join(f"{s.repository} {s.file}" for s in family.sources)
        cells = (family.name, family.title, ", ".join(family.platforms), weights, family.defaults.coordinates, sources)
        table.add_row(*(escape(cell) for cell in cells))
    out.print(table)


@app.command()
def parse(
    family: Annotated[str, typer.Argument(help="Family, or a policy's name (`agentlab families` lists them).")],
    size: Annotated[str, typer.Option(metavar="WxH", help="Size of the screenshot that the reply answers.")] = "1920x1080",
    platform: Annotated[
        str | None, typer.Option(help="computer or mobile.", show_default="the first that the family has a prompt for")
    ] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the family.")] = None,
) -> None:
    """Print the actions that a reply (from standard input) becomes, one a line as JSON; exit code 1 where it is not an action."""
    import json

    from envs import actions as act
    from envs.errors import UsageError
    from policies.checkpoint import settings_of
    from policies.families.registry import choose
    from policies.families.registry import families as known
    from policies.families.session import read_reply
    from policies.families.settings import seen_size
    from policies.registry import checked_platform

    chosen = known().get(family) or choose(family.removeprefix("openai:"))
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size.strip().lower())
    if match is None or not int(match[1]) or not int(match[2]):
        raise UsageError(f"{size!r} is not a size.", "Give WIDTHxHEIGHT in pixels, e.g. --size 1920x1080.")
    device = checked_platform({"platform": platform}) or chosen.platforms[0]
    given = dict(_setting(one) for one in sets or [])
    settings = settings_of(chosen, None, given)
    screen = int(match[1]), int(match[2])
    reply = read_reply(chosen, sys.stdin.read(MOST_READ), screen, seen_size(screen, settings, chosen.factor), settings, device)
    if not reply.parsable:
        (invalid,) = reply.actions
        err.print(f"not an action: {getattr(invalid, 'reason', '')}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1)
    for action in reply.actions:
        sys.stdout.write(json.dumps(act.to_json(action), ensure_ascii=False) + "\n")


def _setting(text: str) -> tuple[str, str]:
    from envs.errors import UsageError

    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{text!r} is not a setting.", "Write NAME=VALUE, e.g. --set model.max_pixels=1000000.")
    return name.strip().removeprefix("model."), value


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="One recipe, to see all of it.")] = None,
) -> None:
    """List the published scores and the settings they were made with; `agentlab run --recipe NAME` runs one."""
    from agentlab.run.recipes import lines_of, recipe_named
    from policies.families.registry import recipes as known

    if name is not None:
        for line in lines_of(recipe_named(name)):
            out.print(line, markup=False, highlight=False, soft_wrap=True)
        return
    table = Table(Column("recipe", min_width=max(map(len, known()))), "published", "steps", "source")
    for recipe in known().values():
        score = "-" if recipe.score is None else f"{recipe.score:g} %"
        steps = str(recipe.steps or "the tasks' own")
        table.add_row(*(escape(cell) for cell in (recipe.name, score, steps, str(recipe.source))))
    out.print(table)

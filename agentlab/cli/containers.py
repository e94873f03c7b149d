"""``agentlab containers``: what runs on the Docker engine for us, and getting rid of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from agentlab.cli.benchmarks import with_ability
from agentlab.cli.terminal import Terminal
from envs.errors import UsageError, did_you_mean
from envs.plugins import is_module_name
from envs.suites import find_benchmark

if TYPE_CHECKING:
    from envs.containers import Listing

app = typer.Typer(help="The emulator containers of this project: list, start, stop, clean up.", no_args_is_help=True)
out = Terminal()


DEFAULT = "osworld"
"""The benchmark whose machines are meant if none is named."""


@app.command("build")
def build(benchmark: Annotated[str, typer.Argument(help="Of which benchmark.")] = DEFAULT) -> None:
    """Build the image of a benchmark's machines (a light desktop: three minutes and 1.5 GB the first time)."""
    made = _able(benchmark, "build", "image to build")
    tag = made.build(lambda line: out.print(line, markup=False, highlight=False, soft_wrap=True))
    out.print(f"{tag} is ready.", highlight=False)


def _able(name: str, ability: str, what: str) -> Any:
    """The benchmark of that name, which can do this.

    Raises:
        UsageError: no benchmark has that name, or it cannot do this.
    """
    able = with_ability(ability)
    if is_module_name(name):
        able[name] = find_benchmark(name)
    if name not in able or getattr(able[name], ability) is None:
        raise UsageError(f"The benchmark {name!r} has no {what}.", did_you_mean(name, able, what="benchmark"))
    return able[name]


@app.command("ls")
def ls() -> None:
    """List all containers with our labels; only those in this user's ledger are ever touched."""
    from envs import containers

    rows = containers.ls()
    if not rows:
        out.print("No containers.")
        return
    table = Table("container", "run", "image", "state", "age", "owner", "ports", box=None)
    for row in rows:
        ports = " ".join(f"{inside}→{outside}" for inside, outside in sorted(row.container.ports.items()))
        table.add_row(row.name, escape(row.owner.run), row.image, row.state, _age(row.owner.created), _owner(row), ports)
    out.print(table)


def _owner(row: Listing) -> str:
    if not row.ours:
        return "somebody else"
    if row.leftover:
        return "leftover"
    return f"pid {row.owner.pid}" if row.owner.pid else "kept until stopped"


def _age(created: int) -> str:
    seconds = max(int(time.time()) - created, 0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


@app.command("up")
def up(
    benchmark: Annotated[str, typer.Argument(help="Of which benchmark.")] = DEFAULT,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many.")] = 1,
    run: Annotated[str, typer.Option(help="Name to stop them by.")] = "manual",
    hours: Annotated[float, typer.Option(help="Time to live, after which `gc` removes them.")] = 24.0,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the machine, e.g. osworld.ram=4G.")
    ] = None,
) -> None:
    """Start desktops or emulators that stay until they are stopped, and print their addresses."""
    starting = _able(benchmark, "start", "machines to start")
    for container in starting.start(count, run=run, ttl=int(hours * 3600), options=_options(benchmark, sets or [])):
        out.print(f"{container.name}  {starting.address(container)}", highlight=False)
    out.print(f"Use one with --provider ADDRESS; remove them with `agentlab containers stop {escape(run)}`.", soft_wrap=True)


def _options(benchmark: str, sets: list[str]) -> dict[str, Any]:
    """``ram=4G``, or as a run has it, ``osworld.ram=4G``: an option of the environment.

    Raises:
        UsageError: not of that form.
    """
    from agentlab.run.resolve import parse_set

    given: dict[str, Any] = {}
    for text in sets:
        (parsed,) = parse_set(f"env.{text.strip().removeprefix(f'{benchmark}.').removeprefix('env.')}").values()
        given |= parsed
    return given


@app.command("stop")
def stop(name: Annotated[str, typer.Argument(help="Name of a container or of a run.")]) -> None:
    """Remove a container, or all containers of a run, whether their owner lives or not."""
    from envs import containers

    for removed in containers.stop(name):
        out.print(f"removed {removed}", highlight=False)


@app.command("gc")
def gc() -> None:
    """Remove what dead runs of this user left behind, and nothing else."""
    from envs import containers

    removed = containers.gc()
    for name in removed:
        out.print(f"removed {name}", highlight=False)
    others = [row for row in containers.ls() if not row.ours]
    if others:
        out.print(f"Left alone: {len(others)} with our labels that this user's ledger does not know.")
    if not removed:
        out.print("Nothing to remove.")


@app.command("logs")
def logs(
    name: Annotated[str, typer.Argument(help="Name of a container or of a run.")],
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 100,
) -> None:
    """Print what containers wrote."""
    from envs import containers

    for row in containers.find(name):
        out.print(f"== {row.name}", highlight=False)
        out.print(row.container.logs(lines), markup=False, highlight=False, soft_wrap=True)

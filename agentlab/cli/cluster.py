"""``agentlab cluster``: what the nodes of a Ray cluster have and lack; and what this machine would bring as one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from agentlab.cli.doctor import Diagnosis, line_of
from agentlab.cli.terminal import Terminal
from envs.errors import LabError, SetupError

if TYPE_CHECKING:
    from agentlab.cluster.connection import Node, RayConnection

app = typer.Typer(help="The nodes of a Ray cluster, which `agentlab run --cluster` makes environments on.", no_args_is_help=True)
out = Terminal()

Address = Annotated[str, typer.Option("--cluster", help="ray: the one that this machine is a node of; or ray://HOST:10001.")]


@app.command("status")
def status(cluster: Address = "ray") -> None:
    """Say which nodes there are, what they have room for, and what of it is in use."""
    connection = _connected(cluster)
    try:
        nodes = connection.nodes()
        used = Counter(_node_of(name) for name in connection.actors())
        table = Table("node", "state", "processors", "room", "environments", box=None)
        for node in nodes:
            state = "[green]alive[/green]" if node.alive else "[red]dead[/red]"
            cores = f"{node.resources.get('CPU', 0):g}" if node.alive else ""
            table.add_row(escape(node.name), state, cores, _room(node), str(used[node.id]) if node.alive else "")
        out.print(table)
        living = [node for node in nodes if node.alive]
        totals = ", ".join(f"{sum(node.room(place) for node in living)} {place}" for place in _places(living))
        out.print(
            f"{len(living)} of {len(nodes)} nodes alive: {totals or 'no room for environments'}.", highlight=False, soft_wrap=True
        )
    finally:
        connection.close()


@app.command("doctor")
def doctor(
    benchmark: Annotated[str | None, typer.Argument(help="Only what this benchmark wants.")] = None, cluster: Address = "ray"
) -> None:
    """Examine every node: its versions, what benchmarks want there, its room, and what dead runs left."""
    from agentlab.cluster import node as on_node

    connection = _connected(cluster)
    try:
        nodes = [node for node in connection.nodes() if node.alive]
        missing = [_examined(node, found) for node, found in connection.ask(nodes, on_node.checkup, benchmark)]
    finally:
        connection.close()
    if any(missing):
        raise typer.Exit(SetupError.exit_code)


def _examined(node: Node, found: Any) -> bool:
    """Print what a node said; whether it lacks something that is needed."""
    from agentlab.cluster import node as on_node

    out.print(f"[bold]{escape(node.name)}[/bold]", highlight=False)
    lines: list[Diagnosis] = []
    if isinstance(found, LabError):
        lines.append(Diagnosis("answer", False, found.message, found.hint))
    else:
        same = found.code == on_node.code()
        lines.append(
            Diagnosis("agentlab", same, found.code + ("" if same else f", here {on_node.code()}"), "install the same everywhere")
        )
        lines.append(Diagnosis("Python", True, found.python))
        lines += [Diagnosis(line.what, line.ok, line.detail, line.mend, line.needed) for line in found.findings]
        lines += [_offer(node, place, *about) for place, about in found.room.items()]
        if found.leftovers:
            mend = "the next run removes them; `agentlab containers gc` there does at once"
            lines.append(Diagnosis("containers of dead runs", False, ", ".join(found.leftovers), mend, needed=False))
    for line in lines:
        out.print(f"  {line_of(line)}", highlight=False, soft_wrap=True)
    return any(line.needed and not line.ok for line in lines)


def _offer(node: Node, place: str, count: int, whose: str) -> Diagnosis:
    """What Ray was told that the node has room for, beside what it has."""
    told = node.room(place)
    if not count:
        return Diagnosis(
            place, not told, f"Ray was told {told}, and there is none ({whose})" if told else f"none ({whose})", needed=bool(told)
        )
    if told > count:
        return Diagnosis(
            place, False, f"Ray was told {told}; there is room for {count} at most", "start Ray there with fewer", needed=False
        )
    return Diagnosis(place, True, f"Ray was told {told}; there is room for {count}")


def say_room(as_json: bool) -> None:
    """``agentlab doctor --node``: what this machine has room for."""
    from agentlab.cluster.node import offered, room

    if as_json:
        out.print(json.dumps(offered()), markup=False, highlight=False, soft_wrap=True)
        return
    for place, (count, whose) in room().items():
        out.print(f"{place}: {count}  ({escape(whose)})", highlight=False, soft_wrap=True)
    out.print(f"ray start --address=HEAD:6379 --resources='{json.dumps(offered())}'", markup=False, highlight=False, soft_wrap=True)


def _connected(cluster: str) -> RayConnection:
    from agentlab.cluster.connection import RayConnection

    return RayConnection(cluster)


def _node_of(actor: str) -> str:
    """The node that an environment's actor is on, which its name says."""
    return actor.split(":")[-2] if actor.count(":") >= 2 else ""


def _places(nodes: Sequence[Node]) -> list[str]:
    """The resources that are ours: Ray's own begin otherwise."""
    from envs.suites import installed_benchmarks

    known = {benchmark.place for _, benchmark in installed_benchmarks() if not isinstance(benchmark, LabError) and benchmark.place}
    return sorted(place for place in known if any(node.resources.get(place) for node in nodes))


def _room(node: Node) -> str:
    return ", ".join(f"{node.room(place)} {place}" for place in _places([node])) if node.alive else ""

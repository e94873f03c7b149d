"""A run's cluster: the nodes that have room for its environments, checked, and one slot per session in flight."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from agentlab.cluster import node as on_node
from agentlab.cluster.connection import JOIN, NoAnswerError, Node, RayConnection, offering
from agentlab.cluster.placement import Places
from agentlab.cluster.slot import ClusterSlot
from envs.errors import LabError, SetupError, UsageError
from envs.suites import locate

Say = Callable[[str], None]
MOST_WORKERS = 256
"""Most sessions in flight of a run that names no number."""


class Cluster:
    """Connected for as long as it is open; :meth:`close` may be called twice.

    Args:
        address: ``ray`` or ``ray://HOST:PORT``.
        suite: Of the run.
        options: Of its environments.
        say: Gets lines for a person.

    Raises:
        UsageError: not an address, or the suite's environments cannot be made on nodes.
        SetupError: Ray or the cluster is missing, or no node has room for what the suite needs.
    """

    def __init__(self, address: str, suite: str, options: Mapping[str, Any], say: Say) -> None:
        benchmark, _ = locate(suite)
        refuse_unspreadable(suite, options)
        self.suite, self.options, self._say = suite, dict(options), say
        self.connection = RayConnection(address, start=on_node.offered)
        if self.connection.ours:
            say("No Ray cluster runs on this machine: one was started of this machine alone.")
        try:
            if not offering(self.connection.nodes(), benchmark.place):
                raise SetupError(
                    f"No node of the cluster offers {benchmark.place or 'a processor'}, which {suite} takes one of for each session.",
                    f"Start Ray on every node with what it has room for: `{JOIN}`.",
                )
            self._left_out: set[str] = set()
            self.places = Places(benchmark.place, self._nodes, say)
        except BaseException:
            self.connection.close()
            raise

    def _nodes(self) -> list[Node]:
        """The cluster's, without those that did not answer when all were made ready."""
        return [node for node in self.connection.nodes() if node.id not in self._left_out]

    def check(self) -> None:
        """Make every node ready: containers of dead runs are removed there, what can be brought is brought.

        A node that does not answer is left out of this run, as long as another one does.

        Raises:
            SetupError: a node that offers room lacks something, or has another version of agentlab; all of it is named.
        """
        nodes = offering(self.connection.nodes(), self.places.place)
        reports = list(self.connection.ask(nodes, on_node.report, self.suite, self.options))
        dead = [(node, found) for node, found in reports if isinstance(found, NoAnswerError)]
        if len(dead) < len(reports):
            reports = [(node, found) for node, found in reports if not isinstance(found, NoAnswerError)]
            for node, error in dead:
                self._left_out.add(node.id)
                self._say(f"{error.message} This run does without it.")
        for node, found in reports:
            for line in found.said if isinstance(found, on_node.Readiness) else ():
                self._say(f"{node.name}: {line}")
        problems = [problem for node, found in reports for problem in _problems(node, found)]
        if len(problems) == 1:
            raise problems[0]
        if problems:
            raise SetupError(
                "\n".join(["Nodes of the cluster are not ready.", *(f"- {p.message}" for p in problems)]),
                "\n".join(f"- {p.hint}" for p in problems),
            )
        for line in differences({node.name: found.traits for node, found in reports}):
            self._say(line)

    def workers(self, asked: int | None, usual: int, sessions: int) -> int:
        """How many sessions at a time: as many as asked for, else as there is room for; ``usual``, where no room is counted."""
        return min(asked or (min(self.places.room(), MOST_WORKERS) if self.places.place else usual), sessions)

    def slots(self, count: int, options: Mapping[str, Any], run: str, stop: threading.Event) -> list[ClusterSlot]:
        """One slot per session in flight; more than there is room for wait for each other.

        ``options``: of their environments, with those that the policy asks for.
        """
        return [ClusterSlot(self.connection, self.places, self.suite, options, run, stop) for _ in range(count)]

    def summary(self) -> str:
        """For the line of progress."""
        return self.places.summary()

    def close(self) -> None:
        """Release what sessions left on the nodes, and leave the cluster."""
        parked = self.places.parked()
        if parked:
            with ThreadPoolExecutor(len(parked)) as threads:
                list(threads.map(lambda on_node: on_node[1].leave(), parked))
        self.connection.close()


def refuse_unspreadable(suite: str, options: Mapping[str, Any]) -> None:
    """Refuse environments that cannot be made on nodes.

    Raises:
        UsageError: they cannot.
    """
    why = locate(suite)[0].unspreadable(options)
    if why:
        raise UsageError(f"--cluster makes environments on the nodes: {why}", "Leave out --cluster, or choose another --provider.")


def _problems(node: Node, found: on_node.Readiness | LabError) -> Sequence[SetupError]:
    """What is wrong with a node, in words that name it."""
    if isinstance(found, LabError):
        return [SetupError(f"{node.name}: {found.message}", f"On {node.name}: {found.hint}" if found.hint else "")]
    if found.code != on_node.code():
        return [
            SetupError(
                f"{node.name} has another version of agentlab, {found.code}; here it is {on_node.code()}.",
                "Install the same on all machines.",
            )
        ]
    return [problem for error in found.lacking for problem in _problems(node, error)]


def differences(traits: Mapping[str, Mapping[str, str]]) -> list[str]:
    """A line for each trait in which nodes differ: a result may then depend on which of them made it."""
    lines = []
    for trait in sorted({name for of_node in traits.values() for name in of_node}):
        values: dict[str, list[str]] = {}
        for node, of_node in traits.items():
            values.setdefault(of_node.get(trait, "none"), []).append(node)
        if len(values) > 1:
            told = "; ".join(f"{value} on {', '.join(nodes)}" for value, nodes in values.items())
            lines.append(f"note: the nodes differ in their {trait}, on which results may depend: {told}.")
    return lines

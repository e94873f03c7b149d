"""The one door to Ray: connecting, what the nodes are, and asking each of them something."""

from __future__ import annotations

import importlib
import os
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from envs.errors import LabError, SetupError, UsageError

EXTRA = "pip install '.[ray]'"
HERE = "ray"
ADDRESS = re.compile(r"ray://[^\s/@]+")
JOIN = 'ray start --address=HEAD:6379 --resources="$(agentlab doctor --node --json)"'
"""What makes a machine a node."""
NAMESPACE = "agentlab"
ASK_SECONDS = 900.0
"""How long a node may take to answer before a run: it may have a browser to install first."""
NODE_PLACES = 2**20
"""Environments that a node takes of a benchmark which counts none."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster.

    Attributes:
        id: Ray's.
        name: For people: its host's name, and the beginning of ``id``, as several may run on one host.
        alive: Whether Ray believes that it is.
        resources: What it offers: ``CPU``, ``desktops`` …
    """

    id: str
    name: str
    alive: bool
    resources: Mapping[str, float]

    def room(self, place: str) -> int:
        """How many environments it has room for that take one ``place`` each; "" is of those that take nothing worth counting."""
        if not place:
            return NODE_PLACES if self.resources.get("CPU", 0) > 0 else 0
        return int(self.resources.get(place, 0))


def check_address(cluster: str) -> None:
    """Refuse what is no address of a cluster, and any where Ray is not installed.

    Raises:
        UsageError: it is neither ``ray`` nor ``ray://HOST:PORT``.
        SetupError: Ray is not installed.
    """
    if cluster != HERE and not ADDRESS.fullmatch(cluster):
        raise UsageError(
            f"--cluster {cluster} is not the address of a cluster.",
            "`ray` is the cluster that this machine is a node of; `ray://HOST:10001` one that it reaches over the network.",
        )
    _ray()


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise SetupError("--cluster needs Ray, which is not installed here.", EXTRA) from error


class RayConnection:
    """A driver's connection to a cluster; there is one per process.

    Attributes:
        ours: The cluster was started by this process, and ends with it.
    """

    def __init__(self, cluster: str, *, start: Callable[[], Mapping[str, int]] | None = None) -> None:
        """Connect.

        Args:
            cluster: ``ray`` or ``ray://HOST:PORT``.
            start: What this machine has room for, where a cluster of it alone may be started if none runs here.

        Raises:
            UsageError, SetupError: not an address, no Ray, no such cluster, or one of another version.
        """
        check_address(cluster)
        self.ray = _ray()
        self.ours, self._users = False, bool(self.ray.is_initialized())
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options = {"namespace": NAMESPACE, "log_to_driver": False, "configure_logging": False}
        with _handlers_kept(), _connecting(cluster):
            if self._users:
                return
            if cluster != HERE:
                self.ray.init(cluster, namespace=NAMESPACE, log_to_driver=False)
                return
            try:
                self.ray.init("auto", **options)
            except ConnectionError as error:
                if start is None:
                    raise SetupError(
                        "No Ray cluster runs on this machine.", f"Start one: `ray start --head`; nodes: `{JOIN}`."
                    ) from error
                self.ray.init("local", resources=dict(start()), include_dashboard=False, **options)
                self.ours = True

    def nodes(self) -> list[Node]:
        """All nodes, those that died too; in the order of their names.

        Raises:
            SetupError: the cluster does not answer any more.
        """
        try:
            found = self.ray.nodes()
        except (ConnectionError, self.ray.exceptions.RayError) as error:
            raise SetupError(
                f"The cluster does not answer any more: {first_line(error)}.", "Start it; the same command continues the run."
            ) from error
        nodes = (
            Node(n["NodeID"], f"{n['NodeManagerHostname']}/{n['NodeID'][:6]}", bool(n["Alive"]), dict(n["Resources"]))
            for n in found
        )
        return sorted(nodes, key=lambda node: node.name)

    def on(self, node: Node, what: Any, **options: Any) -> Any:
        """A function or a class that Ray runs on this node and nowhere else."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node.id, soft=False)
        return self.ray.remote(what).options(num_cpus=0, scheduling_strategy=there, **options)

    def ask(self, nodes: Sequence[Node], function: Callable[..., Any], *arguments: Any) -> Iterator[tuple[Node, Any]]:
        """What ``function`` returns on each of the nodes, all at a time; of a node that cannot say, the error."""
        asked = [(node, self.on(node, function, max_retries=0).remote(*arguments)) for node in nodes]
        for node, answer in asked:
            try:
                yield node, self.ray.get(answer, timeout=ASK_SECONDS)
            except self.ray.exceptions.RayTaskError as error:
                yield node, _why(node, error)
            except self.ray.exceptions.RayError as error:
                yield node, NoAnswerError(f"{node.name} does not answer: {first_line(error)}.", "Look whether the machine is well.")

    def actors(self) -> list[str]:
        """The names of all environments of ours that are open in the cluster, of whatever run."""
        from ray.util import list_named_actors

        return [actor["name"] for actor in list_named_actors(all_namespaces=True) if actor["namespace"] == NAMESPACE]

    def close(self) -> None:
        """Leave the cluster, unless this process was connected before; one that was started for it ends.  May be called twice."""
        if self._users:
            return
        with _handlers_kept():
            self.ray.shutdown()


class NoAnswerError(SetupError):
    """A node cannot be asked: it has died, though the cluster may not have noticed yet."""


def _why(node: Node, error: Any) -> LabError:
    """What a node said that could not do what it was asked."""
    cause = getattr(error, "cause", error)
    if isinstance(cause, LabError):
        return cause
    if isinstance(cause, ModuleNotFoundError) or "ModuleNotFoundError" in str(error):
        return SetupError(
            f"agentlab is not installed on {node.name} for the Python that runs Ray there ({first_line(cause)}).",
            "Install it there.",
        )
    return SetupError(f"{node.name} failed: {type(cause).__name__}: {first_line(cause)}.", "Look whether the machine is well.")


def first_line(error: BaseException) -> str:
    """What an error says, without the rest of its page."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".")


@contextmanager
def _connecting(cluster: str) -> Iterator[None]:
    """Say in our words why Ray could not connect."""
    try:
        yield
    except LabError:
        raise
    except ImportError as error:
        raise SetupError(f"Ray cannot connect to {cluster}: {first_line(error)}.", EXTRA) from error
    except RuntimeError as error:
        if "ersion" not in str(error):
            raise
        raise SetupError(
            f"{cluster} runs another version of Ray or of Python: {' '.join(str(error).split())}",
            "Install the same on all machines.",
        ) from error
    except (ConnectionError, OSError, TimeoutError) as error:
        hint = (
            "10001 is the port of a cluster that other machines connect to (`ray start --head --ray-client-server-port=10001`). "
            "On a node of the cluster use --cluster ray."
        )
        raise SetupError(f"No cluster answers at {cluster}: {first_line(error)}.", hint) from error


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray installs a handler of SIGTERM; a run has its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def offering(nodes: Iterable[Node], place: str) -> list[Node]:
    """Those that live and have room for at least one environment."""
    return [node for node in nodes if node.alive and node.room(place)]

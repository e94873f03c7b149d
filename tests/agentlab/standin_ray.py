"""Stands in for Ray where it is not installed, or cannot be started in a test's time: what we call of it, and nothing else.

Actors are threads of this process.  Whatever passes between them and the driver is pickled, as on the way to another machine; a node can
be killed, after which nothing that runs on it answers and nothing of it is closed.  The same tests run against a real Ray
(``AGENTLAB_RAY=1``).
"""

from __future__ import annotations

import contextlib
import pickle
import threading
import types
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field

on = threading.local()
"""``on.node``: the node that this thread is on."""


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause):
        super().__init__(f"a task failed\n{cause}")
        self.cause = cause


class ActorDiedError(RayError):
    pass


class ActorUnschedulableError(RayError):
    pass


class GetTimeoutError(RayError, TimeoutError):
    pass


def _opened(travelled):
    return pickle.loads(travelled)  # noqa: S301 - this process pickled it


@dataclass
class NodeOfStandIn:
    name: str
    resources: dict
    alive: bool = True
    gone: bool = False  # dead, and still listed as alive
    used: dict = field(default_factory=dict)
    died: threading.Event = field(default_factory=threading.Event)


class Actor:
    def __init__(self, ray, node, make, name, resources):
        self.ray, self.node, self.name, self.wanted, self.resources = ray, node, name, resources, {}
        self.thread = ThreadPoolExecutor(1, f"on-{node.name}")
        self.dead = False
        self.object = None
        self.made = self.thread.submit(self._make, make)

    def _make(self, make):
        on.node = self.node.name
        while not self.ray.occupy(self):
            if self.dead or self.node.died.wait(0.01):
                return
        self.object = make()
        if (own := getattr(self.object, "_thread", None)) is not None:  # of its environment, which is on that node as well
            own.submit(setattr, on, "node", self.node.name)

    def __getattr__(self, method):
        return types.SimpleNamespace(remote=lambda *arguments: self._submit(method, pickle.dumps(arguments)))

    def _submit(self, method, arguments):
        answer = Future()

        def run():
            if self.dead or not self.node.alive:
                return
            try:
                value = None if method == "__ray_ready__" else getattr(self.object, method)(*_opened(arguments))
                value = pickle.dumps(value)
            except Exception as error:  # noqa: BLE001 - it travels, as any error of a task does
                self._settle(answer, error=RayTaskError(error))
            else:
                self._settle(answer, value=value)

        answer.actor = self
        if self.dead or not self.node.alive:
            answer.set_exception(ActorDiedError(f"The actor died: its node {self.node.name} has died."))
            return answer
        self.ray.pending.append(answer)
        self.thread.submit(run)
        return answer

    def _settle(self, answer, value=None, error=None):
        with self.ray.lock:
            if answer.done() or self.dead or not self.node.alive:
                return
            answer.set_exception(error) if error else answer.set_result(value)

    def die(self):
        self.dead = True
        self.ray.vacate(self)
        with self.ray.lock:
            for answer in [a for a in self.ray.pending if a.actor is self and not a.done()]:
                answer.set_exception(ActorDiedError(f"The actor died: its node {self.node.name} has died."))
        self.thread.shutdown(wait=False)


class StandInRay(types.ModuleType):
    """The module ``ray``, with a cluster of its own."""

    def __init__(self, nodes):
        super().__init__("ray")
        self.lock = threading.RLock()
        self.cluster = {f"{name}-id": NodeOfStandIn(name, dict(resources)) for name, resources in nodes.items()}
        self.pending, self.actors_alive, self.initialized, self.shutdowns = [], [], False, 0
        self.exceptions = types.SimpleNamespace(
            RayError=RayError, RayTaskError=RayTaskError, ActorDiedError=ActorDiedError, GetTimeoutError=GetTimeoutError,
            ActorUnschedulableError=ActorUnschedulableError,
        )  # fmt: skip

    # -- what we call --------------------------------------------------------------------------------------------------------------
    def init(self, address=None, **options):
        if address not in ("auto", "local", "ray://there:10001") or (address == "auto" and not self.cluster):
            raise ConnectionError(f"Could not find any running Ray instance at {address}.\nA page follows.")
        if address == "local":
            self.cluster = {"local-id": NodeOfStandIn("local", {"CPU": 2.0, **options["resources"]})}
        self.initialized = True

    def is_initialized(self):
        return self.initialized

    def shutdown(self):
        self.initialized = False
        self.shutdowns += 1

    def nodes(self):
        return [
            {"NodeID": key, "NodeManagerHostname": node.name, "Alive": node.alive, "Resources": node.resources}
            for key, node in self.cluster.items()
        ]

    def remote(self, what):
        def options(*, scheduling_strategy, resources=None, name="", **rest):
            node = self.cluster[scheduling_strategy.node_id]
            assert scheduling_strategy.soft is False

            def start(*arguments):
                travelled = pickle.dumps(arguments)
                if isinstance(what, type):
                    if not node.alive or node.gone:
                        raise ActorUnschedulableError("The node does not exist any more.")
                    actor = Actor(self, node, lambda: what(*_opened(travelled)), name, resources or {})
                    self.actors_alive.append(actor)
                    return actor
                if node.gone:
                    answer = Future()
                    answer.set_exception(
                        RayError("The task is not schedulable: the node does not exist any more.\nA page follows.")
                    )
                    return answer
                task = Actor(self, node, lambda: types.SimpleNamespace(run=lambda a: what(*_opened(a))), "", {})
                return task.run.remote(travelled)

            return types.SimpleNamespace(remote=start)

        return types.SimpleNamespace(options=options)

    def get(self, answer, timeout=None):
        try:
            value = answer.result(timeout)
        except FutureTimeout as error:
            raise GetTimeoutError("Get timed out: some object(s) not ready.") from error
        return _opened(value)

    def wait(self, answers, timeout=None):
        try:
            answers[0].exception(timeout)
        except FutureTimeout:
            return [], answers
        return answers, []

    def kill(self, actor, no_restart):
        assert no_restart
        actor.die()
        if actor in self.actors_alive:
            self.actors_alive.remove(actor)

    # -- the cluster ---------------------------------------------------------------------------------------------------------------
    def occupy(self, actor):
        with self.lock:
            used, there = actor.node.used, actor.node.resources
            if any(used.get(kind, 0) + amount > there.get(kind, 0) for kind, amount in actor.wanted.items()):
                return False
            actor.resources = actor.wanted
            for kind, amount in actor.resources.items():
                used[kind] = used.get(kind, 0) + amount
            return True

    def vacate(self, actor):
        with self.lock:
            for kind, amount in actor.resources.items():
                actor.node.used[kind] = actor.node.used.get(kind, 0) - amount
            actor.resources = {}

    def kill_node(self, name):
        with self.lock:
            node = self.cluster[f"{name}-id"]
            node.alive = False
        node.died.set()
        for actor in [a for a in self.actors_alive if a.node is node]:
            actor.die()
            with contextlib.suppress(ValueError):  # its own thread may have taken it out meanwhile
                self.actors_alive.remove(actor)

    def add_node(self, name, resources):
        self.cluster[f"{name}-id"] = NodeOfStandIn(name, dict(resources))

    def named_actors(self, all_namespaces):
        return [{"name": actor.name, "namespace": "agentlab"} for actor in self.actors_alive]


class NodeAffinitySchedulingStrategy:
    def __init__(self, node_id, soft):
        self.node_id, self.soft = node_id, soft


def install(monkeypatch, nodes):
    """Put a stand-in with these nodes (name -> resources) in the place of the module ``ray`` and return it."""
    ray = StandInRay(nodes)
    util, strategies = types.ModuleType("ray.util"), types.ModuleType("ray.util.scheduling_strategies")
    util.list_named_actors = ray.named_actors
    strategies.NodeAffinitySchedulingStrategy = NodeAffinitySchedulingStrategy
    for name, module in (("ray", ray), ("ray.util", util), ("ray.util.scheduling_strategies", strategies)):
        monkeypatch.setitem(__import__("sys").modules, name, module)
    return ray

"""The driver's side of an environment on a node: a :class:`~envs.slot.Slot` whose environment is elsewhere."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from agentlab.cluster.connection import Node, RayConnection, first_line
from agentlab.cluster.host import About, Host, HostReply, Moment
from agentlab.cluster.placement import Places
from envs.actions import Action
from envs.base import Modality, Observation, TaskSpec
from envs.errors import InfrastructureError, LabError, SetupError

CALL_SECONDS = 3600.0
"""Bound of one call.  What an environment does is bounded on its node, and a node that dies is noticed by Ray within a minute; this is
for a process that is neither dead nor alive."""
START_SECONDS = 300.0
"""How long a process on a node may take to start; it waits, too, while another run has the room."""
POLL_SECONDS = 0.5
CLOSE_SECONDS = 120.0
"""How long containers may take to be removed before their process is ended all the same; the node's next start removes them then."""

Call = Callable[..., Any]


class RemoteEnv:
    """An environment on a node, as the attempt loop and a policy use one (:class:`envs.base.Environment`)."""

    def __init__(self, call: Call, about: About, ended: Callable[[], None]) -> None:
        self._call, self._about, self._ended = call, about, ended
        self.action_space = about.action_space
        self.seconds = 0.0

    @property
    def shows(self) -> frozenset[Modality]:
        return self._about.shows

    @property
    def oracle_available(self) -> bool:
        return self._about.oracle_available

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        observation, info = self._moment(self._call("reset", seed, options))
        return _own(observation), info

    def step(self, action: Action | tuple[Action, ...]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self._moment(self._call("step", action))
        if terminated or truncated:
            self._ended()
        return _own(observation), reward, terminated, truncated, info

    def oracle(self) -> tuple[str, tuple[Action, ...]] | None:
        said: tuple[str, tuple[Action, ...]] | None = self._call("oracle")
        return said

    def reference(self) -> str | None:
        found: str | None = self._call("reference")
        return found

    def objection(self) -> str:
        return str(self._call("objection"))

    def close(self) -> None:
        """What it holds is released with its slot."""

    def _moment(self, moment: Moment) -> tuple[Any, ...]:
        self.seconds = moment.seconds
        if moment.action_space is not None:
            self.action_space = moment.action_space
        return moment.value


def _own(observation: Observation) -> Observation:
    """A picture out of Ray's shared memory cannot be written, and keeps that memory from being used again."""
    if "screenshot" in observation and not observation["screenshot"].flags.writeable:
        observation["screenshot"] = np.array(observation["screenshot"])
    return observation


class Seat:
    """A process on a node, with its environment; one session at a time has it.

    Args:
        worked: Called when an episode has ended.
        stop: Set when the run is being stopped.

    Attributes:
        node: Where it is.
        broken: Why it cannot be used any more; None while it can.
    """

    def __init__(
        self, connection: RayConnection, node: Node, actor: Any, worked: Callable[[], None], stop: threading.Event
    ) -> None:
        self.node = node
        self._connection, self._actor, self._worked, self._stop = connection, actor, worked, stop
        self.broken: LabError | None = None
        self._env: RemoteEnv | None = None
        self._env_id = ""

    def env(self, task: TaskSpec) -> RemoteEnv:
        """The environment of ``task``.

        Raises:
            InfrastructureError: it cannot be made here.
            UsageError: bad options.
        """
        if self._env is None or self._env_id != task.env_id:
            self._env = RemoteEnv(self.call, self.call("make", task), self._worked)
            self._env_id = task.env_id
        return self._env

    def call(self, method: str, *arguments: Any) -> Any:
        """Call the process on the node.

        Raises:
            InfrastructureError: the node or the process was lost, or lacks something, or what it did failed.
            LabError: as the environment raised it.
        """
        if self.broken is not None:
            raise InfrastructureError(self.broken.message, self.broken.hint, component="node")
        exceptions = self._connection.ray.exceptions
        try:
            reply = self._reply(CALL_SECONDS, method, *arguments)
        except exceptions.RayTaskError:
            raise  # a bug, there as here
        except (exceptions.RayError, ConnectionError) as error:
            self.broken = InfrastructureError(f"{self.node.name} was lost: {first_line(error)}.", component="node")
            raise self.broken from error
        if isinstance(reply.error, SetupError):
            self.broken = reply.error
            raise InfrastructureError(
                f"{self.node.name}: {reply.error.message}", reply.error.hint, component="node"
            ) from reply.error
        if reply.error is not None:
            raise reply.error
        return reply.value

    def _reply(self, seconds: float, method: str, *arguments: Any) -> HostReply:
        """What the process answers; while the run is being stopped it is told so, and is still waited for.

        Raises:
            RayError, ConnectionError: it was lost, or did not answer in ``seconds``.
        """
        ray, until = self._connection.ray, time.monotonic() + seconds
        reply: HostReply | None = ray.get(self._actor.call.remote(method, *arguments), timeout=seconds)
        while reply is None:
            if self._stop.is_set():  # again and again: what there is to give up may only just have come about
                ray.get(self._actor.interrupt.remote(), timeout=seconds)
            reply = ray.get(self._actor.more.remote(), timeout=max(until - time.monotonic(), 0.0))
        return reply

    def leave(self) -> None:
        """Have the process release what it holds, within bounds, and end it.  Never raises."""
        ray = self._connection.ray
        if not isinstance(self.broken, InfrastructureError):
            with contextlib.suppress(ray.exceptions.RayError, ConnectionError):
                self._reply(CLOSE_SECONDS, "close")
        end(self._connection, self._actor)
        self.broken = self.broken or InfrastructureError("This environment has been closed.", component="node")


def end(connection: RayConnection, actor: Any) -> None:
    """End a process on a node, whether it lives or not."""
    with contextlib.suppress(connection.ray.exceptions.RayError, ConnectionError, ValueError):
        connection.ray.kill(actor, no_restart=True)


class ClusterSlot:
    """One environment at a time, on whichever node has room.

    Args:
        connection: To the cluster.
        places: The run's account of the nodes' room.
        suite: Of the run.
        options: Of its environments.
        run: Its name.
        stop: Set when the run is being stopped.
    """

    def __init__(
        self, connection: RayConnection, places: Places, suite: str, options: Mapping[str, Any], run: str, stop: threading.Event
    ) -> None:
        self._connection, self._places, self._stop = connection, places, stop
        self._suite, self._options, self._run = suite, dict(options), run
        self._seat: Seat | None = None
        self._careful = False
        """Something failed in this session: it does not try its luck on a node that fails."""

    def get(self, task: TaskSpec) -> RemoteEnv:
        """The environment of ``task``; waits until a node has room for it.

        Raises:
            InfrastructureError: it cannot be made on the node that was chosen, or the run is being stopped.
            SetupError: no node can make one.
            UsageError: bad options.
        """
        if self._seat is not None and self._seat.broken is not None:
            self._give_up(None)
        while True:
            if self._seat is None:
                self._seat = self._taken()
            try:
                return self._seat.env(task)
            except InfrastructureError:
                if not isinstance(self._seat.broken, SetupError):
                    raise
                self._give_up(None)  # nothing has begun yet: another node may have what this one lacks

    def renew(self) -> None:
        """The machinery broke: the next one is made anew, on another node if one is free."""
        self._give_up(InfrastructureError("An attempt failed there.", component="node"))

    def idle(self) -> None:
        """A session has ended: whoever waits for room may go on with this one's process."""
        seat, self._seat, self._careful = self._seat, None, False
        if seat is not None:
            self._places.park(seat.node, seat)

    def close(self) -> None:
        """May be called twice."""
        self._give_up(None)

    def _give_up(self, error: LabError | None) -> None:
        seat, self._seat = self._seat, None
        if seat is not None:
            reason = seat.broken or error
            self._careful = reason is not None
            seat.leave()
            self._places.give_back(seat.node, reason)

    def _taken(self) -> Seat:
        """A process that another session has left, or a new one on a node that has room."""
        while True:
            node, parked = self._places.take(self._stop, careful=self._careful)
            if parked is not None:
                return parked
            seat = self._started(node)
            if seat is not None:
                return seat

    def _started(self, node: Node) -> Seat | None:
        """A process on ``node``; None if it did not come about, and the place has been given back."""
        actor: Any = None
        failed: LabError | None = None
        seat: Seat | None = None
        try:
            actor = self._start(node)
            if self._has_started(actor):
                seat = Seat(self._connection, node, actor, functools.partial(self._places.worked, node), self._stop)
            else:
                failed = SetupError(f"{node.name} has started no process for {START_SECONDS:.0f} s.", "Is another run using it?")
        except self._connection.ray.exceptions.RayError as error:
            failed = InfrastructureError(first_line(error), component="node")
        finally:
            if seat is None:
                if actor is not None:
                    end(self._connection, actor)
                self._places.give_back(node, failed)
        return seat

    def _start(self, node: Node) -> Any:
        name = f"{self._run}:{node.id}:{uuid.uuid4().hex[:8]}"
        resources = {self._places.place: 1} if self._places.place else {}
        made = self._connection.on(node, Host, name=name, resources=resources, max_restarts=0, max_task_retries=0)
        return made.remote(self._suite, self._options, self._run)

    def _has_started(self, actor: Any) -> bool:
        """Whether the process has started within its time.

        Raises:
            InfrastructureError: the run is being stopped.
        """
        ready = actor.__ray_ready__.remote()
        for _ in range(int(START_SECONDS / POLL_SECONDS)):
            done, _left = self._connection.ray.wait([ready], timeout=POLL_SECONDS)
            if done:
                self._connection.ray.get(done[0])
                return True
            if self._stop.is_set():
                raise InfrastructureError("The run is being stopped.", component="cluster")
        return False

"""Where the environments of a run are: in this process, a thread for each, or on the nodes of a cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from agentlab.run.config import RunConfig
from envs.benchmark import interrupt
from envs.slot import EnvSlot, Slot
from envs.suites import machinery

if TYPE_CHECKING:
    from agentlab.cluster.cluster import Cluster

LOOK_SECONDS = 0.2
"""Between two looks at whether what is shared is closed."""


def open_cluster(config: RunConfig, options: Mapping[str, Any], say: Callable[[str], None]) -> Cluster:
    """The run's cluster, whose nodes have been made ready for it.

    Raises:
        UsageError, SetupError: there is none, or it is not ready.
    """
    from agentlab.cluster.cluster import Cluster

    assert config.cluster is not None
    cluster = Cluster(config.cluster, config.suite, options, say)
    try:
        cluster.check()
    except BaseException:
        cluster.close()
        raise
    return cluster


@contextmanager
def slots(
    config: RunConfig, options: dict[str, Any], sessions: int, *, cluster: Cluster | None, stop: threading.Event
) -> Iterator[Sequence[Slot]]:
    """One slot per session in flight, of at most ``sessions``; what they share is closed at the end.

    Raises:
        SetupError, UsageError: it is unavailable.
    """
    if cluster is not None:
        count = cluster.workers(config.workers, config.parallel, sessions)
        yield cluster.slots(count, options, config.folder.name, stop)
        return
    workers = min(config.parallel, sessions)
    with machinery(config.suite, options, run=config.folder.name, workers=workers) as shared, interrupting(shared, stop):
        yield [EnvSlot(shared) for _ in range(workers)]


@contextmanager
def interrupting(shared: Mapping[str, Any], stop: threading.Event) -> Iterator[None]:
    """While this is open, ``stop`` also ends what workers wait for in what they share: a machine may boot for an hour."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if stop.wait(LOOK_SECONDS):
                interrupt(shared)
                return

    watcher = threading.Thread(target=watch, name="interrupting", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()

"""What the environments of a run share, and what it is told when the run stops."""

from __future__ import annotations

import threading

from agentlab.run.worker import interrupting


class Machines:
    def __init__(self) -> None:
        self.told = threading.Event()

    def interrupt(self) -> None:
        self.told.set()


def test_what_workers_wait_for_hears_that_the_run_stops():
    """Ctrl-C was not heard while a machine booted, which may take an hour."""
    machines, stop = Machines(), threading.Event()
    with interrupting({"provider": machines, "screen": (10, 10), "grader": object()}, stop):
        assert not machines.told.wait(0.5)
        stop.set()
        assert machines.told.wait(30.0)


def test_a_run_that_ends_by_itself_interrupts_nothing():
    machines, stop = Machines(), threading.Event()
    with interrupting({"provider": machines}, stop):
        pass
    stop.set()
    assert not machines.told.is_set()

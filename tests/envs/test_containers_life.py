"""How long containers live, and what becomes of those that boot when everything is to end.  Needs no Docker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from fake_engine import SPEC, FakeEngine, install, never_ready, ready

from envs.androidworld.providers import OurProvider
from envs.containers import Fleet, Ledger, Owner, gc
from envs.containers import fleet as fleet_module
from envs.errors import InfrastructureError
from envs.osworld.providers import LightProvider

PROMPT = 30.0
"""Seconds within which something ends that is not waited for: far below what a boot may take."""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> FakeEngine:
    return install(monkeypatch)


def later(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    """The clock goes on by so many days."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + days * 24 * 3600)


def test_the_containers_of_a_run_of_weeks_are_no_leftovers(fake, ledger, monkeypatch):
    """Their time to live was counted from the start of the run, so that another process removed the desktops of a working one."""
    with Fleet("long", ledger=ledger) as fleet:
        old = fleet.start(SPEC, ready, 5.0)
        later(monkeypatch, days=30)
        new = fleet.start(SPEC, ready, 5.0)
        assert gc(ledger) == [] and not ledger.has_leftovers
        assert set(fake.there) == {old.name, new.name}
        ages = [Owner.from_labels(made.labels).created for made in fake.made]
        assert ages[1] - ages[0] > 29 * 24 * 3600, "each says when it was itself created"
    assert fake.there == {}


def test_of_machines_that_stay_each_has_its_own_time_to_live(fake, ledger, monkeypatch):
    fleet = Fleet("manual", ledger=ledger, ttl=36 * 3600, detached=True)
    old = fleet.start(SPEC, ready, 5.0)
    later(monkeypatch, days=1)
    new = fleet.start(SPEC, ready, 5.0)
    later(monkeypatch, days=1)
    assert gc(ledger) == [old.name] and set(fake.there) == {new.name}


def in_background(work: Callable[[], Any]) -> tuple[threading.Thread, list[InfrastructureError]]:
    """``work`` in a thread, and how it failed."""
    raised: list[InfrastructureError] = []

    def run() -> None:
        try:
            work()
        except InfrastructureError as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, raised


def test_who_waits_for_a_container_that_boots_hears_that_it_is_given_up(fake, ledger):
    with Fleet("booting", ledger=ledger) as fleet:
        waits, raised = in_background(lambda: fleet.start(SPEC, never_ready, 600.0))
        assert fake.created.wait(PROMPT)
        fleet.interrupt()
        waits.join(PROMPT)
        assert not waits.is_alive() and "given up" in raised[0].message
        assert fake.there == {}
        with pytest.raises(InfrastructureError, match="was closed"):
            fleet.start(SPEC, ready, 5.0)
        assert len(fake.made) == 1, "none is even created"


class Emulators(OurProvider):
    """Ours, of an image that needs no virtualisation."""

    def spec(self) -> Any:
        return SPEC


@pytest.mark.parametrize(("provider", "probe"), [(LightProvider, "probe"), (Emulators, "_missing")])
def test_a_provider_whose_spare_boots_is_closed_at_once(fake, ledger, monkeypatch, provider, probe):
    """Ctrl-C was heard minutes later: the pool waited for its spare before the fleet was closed."""
    monkeypatch.setattr(provider, probe, staticmethod(never_ready))
    made = provider("booting", spares=1, ledger=ledger)
    assert fake.created.wait(PROMPT)
    closes, raised = in_background(made.close)
    closes.join(PROMPT)
    assert not closes.is_alive() and raised == [] and fake.there == {}
    made.close()


def test_an_interrupted_start_of_many_leaves_nothing(fake, ledger, monkeypatch):
    """Ctrl-C in `agentlab containers up`: its threads went on booting desktops that nobody knew of."""
    booted = threading.Event()

    def one_of_two(container: Any) -> str:
        if container.ports[5000] % 2:
            booted.set()
            return ""
        return "it boots"

    def interrupted(starts: Any) -> None:
        assert booted.wait(PROMPT) and fake.created.wait(PROMPT)
        raise KeyboardInterrupt

    monkeypatch.setattr(fleet_module, "wait", interrupted, raising=False)
    fleet = Fleet("manual", ledger=ledger, ttl=3600, detached=True, starts=3)
    with pytest.raises(KeyboardInterrupt):
        fleet.start_many(SPEC, 5, one_of_two, 20.0)
    assert fake.there == {} and ledger.names("fake") == {}

"""How long containers live, and what becomes of those that boot when everything is to end.  Needs no Docker."""

from __future__ import annotations

import time

import pytest
from fake_engine import SPEC, FakeEngine, install, ready

from envs.containers import Fleet, Ledger, Owner, gc


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

"""A disk that is full or may not be written: what is only kept for people is no reason to fail, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests
from fake_engine import SPEC, FakeContainer, FakeEngine, install, ready

from envs.androidworld.providers import OurProvider
from envs.containers import Fleet, Ledger
from envs.errors import InfrastructureError, SetupError
from envs.osworld.providers import LightProvider

FAILED = InfrastructureError("The guest does not answer.", component="guest")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> FakeEngine:
    return install(monkeypatch)


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    """A folder that cannot be made, whoever tries."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "logs"


def unreachable(container: Any) -> str:
    raise FAILED


def test_a_log_that_cannot_be_written_hides_no_failure_and_keeps_no_container(fake, ledger, nowhere):
    with Fleet("full", ledger=ledger, log_dir=nowhere) as fleet:
        with pytest.raises(InfrastructureError, match="does not answer") as caught:
            fleet.start(SPEC, unreachable, 5.0)
        assert "could not be kept" in caught.value.hint and str(nowhere) in caught.value.hint
        assert fake.there == {} and ledger.names("fake") == {}


def test_a_container_whose_log_the_engine_does_not_give_is_removed_too(fake, ledger, tmp_path, monkeypatch):
    def lost(self: FakeContainer, tail: Any = "all") -> bytes:
        raise requests.exceptions.ConnectionError("the engine is busy")

    monkeypatch.setattr(FakeContainer, "logs", lost)
    with Fleet("busy", ledger=ledger, log_dir=tmp_path) as fleet:
        with pytest.raises(InfrastructureError, match="does not answer"):
            fleet.start(SPEC, unreachable, 5.0)
        assert fake.there == {}


class Emulators(OurProvider):
    def spec(self) -> Any:
        return SPEC

    def _missing(self, container: Any) -> str:
        return ""


class Desktops(LightProvider):
    def probe(self, container: Any) -> str:
        return ""


@pytest.mark.parametrize("provider", [Desktops, Emulators])
def test_a_failure_is_explained_without_its_log(fake, ledger, nowhere, provider):
    """It became an OSError with a traceback, and the run ended instead of trying again."""
    made = provider("full", spares=0, ledger=ledger, log_dir=nowhere)
    try:
        guest = made.acquire()
        told = made.explain(guest, FAILED)
        assert told.message == FAILED.message and told.component == "guest" and "could not be kept" in told.hint
        fake.made[0].status = "exited"
        assert made.explain(guest, FAILED).component == "container"
    finally:
        made.close()


def test_a_container_that_cannot_be_noted_is_not_started(fake, nowhere):
    with Fleet("full", ledger=Ledger(nowhere)) as fleet, pytest.raises(SetupError, match="cannot be noted") as caught:
        fleet.start(SPEC, ready, 5.0)
    assert "AGENTLAB_STATE" in caught.value.hint and fake.made == []

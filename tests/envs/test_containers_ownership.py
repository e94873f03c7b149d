"""Whose container it is: labels, ledger, and owners that have died.  Needs no Docker."""

import subprocess
import sys
import time

import pytest

from envs.containers.engine import connect, refuse_remote
from envs.containers.ownership import FOREVER, Ledger, Owner
from envs.errors import SetupError


def owner(**changes):
    base = Owner.this_process("run", ttl=60)
    return Owner(**{**vars(base), **changes})


def test_this_process_is_alive_and_its_labels_name_it():
    mine = owner()
    assert mine.alive() and not mine.leftover()
    assert Owner.from_labels(mine.labels()) == mine
    assert Owner.from_labels(mine.labels() | {"another": "label"}) == mine


def test_incomplete_or_foreign_labels_name_nobody():
    labels = owner().labels()
    assert Owner.from_labels({}) is None
    assert Owner.from_labels(dict(list(labels.items())[1:])) is None
    assert Owner.from_labels(dict.fromkeys(labels, "x")) is None


def test_a_dead_process_leaves_leftovers():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert owner(pid=ended.pid).leftover()


def test_a_zombie_does_not_pass_for_its_successor():
    """The pid is taken again, by a process that started at another time."""
    assert owner(started=owner().started + 1).leftover()


def test_another_boot_or_machine_is_dead():
    assert owner(boot="another").leftover()
    assert owner(boot="another", pid=0).leftover()


def test_time_to_live():
    long_ago = int(time.time()) - 61
    assert owner(created=long_ago).leftover()
    assert not owner(created=long_ago, ttl=FOREVER).leftover()
    assert not owner(pid=0).leftover() and owner(pid=0, created=long_ago).leftover()


def test_ledger_remembers_per_engine_and_survives_rubbish(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.names("engine") == {}
    mine = owner()
    ledger.add("one", "engine", mine)
    ledger.add("two", "another engine", mine)
    (tmp_path / "ledger" / "torn.json").write_text('{"engine": "eng')
    assert ledger.names("engine") == {"one": mine}
    assert "one" in ledger and "three" not in ledger
    ledger.discard("one")
    ledger.discard("one")
    assert ledger.names("engine") == {}
    assert not list(tmp_path.glob("ledger/*.tmp"))


@pytest.mark.parametrize("address", ["tcp://10.0.0.5:2375", "ssh://user@farm", "tcp://farm:2376", "http://farm:2375"])
def test_the_engine_of_another_machine_is_refused_with_what_to_do(monkeypatch, address):
    """O14: containers were started there, and then asked here."""
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(SetupError, match="another machine") as caught:
        connect()
    assert "itself, or `unset DOCKER_HOST`" in caught.value.hint


@pytest.mark.parametrize(
    "address", ["", "unix:///var/run/docker.sock", "tcp://127.0.0.1:2375", "tcp://localhost:2375", "npipe:////./pipe/x"]
)
def test_this_machines_own_engine_is_not(address):
    refuse_remote(address)

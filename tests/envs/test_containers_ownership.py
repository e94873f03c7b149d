"""Whose container it is: labels, ledger, and owners that have died.  Needs no Docker."""

import hashlib
import json
import subprocess
import sys
import time

import pytest

from envs.containers.address import engine_address
from envs.containers.checks import engine_check
from envs.containers.engine import connect
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
    assert not owner(pid=0).leftover() and owner(pid=0, created=long_ago).leftover()
    assert not owner(pid=0, created=long_ago, ttl=FOREVER).leftover()
    assert not owner(created=long_ago).leftover(), "a process that lives still uses it"


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
    assert not ledger.has_leftovers
    ledger.add("old", "another engine", owner(boot="another"))
    assert ledger.has_leftovers


REMOTE = [
    "tcp://10.0.0.5:2375",
    "ssh://user@farm",
    "tcp://farm:2376",
    "http://farm:2375",
    "farm:2375",
    "ssh://farm:22/run/docker.sock",
]


def chosen(folder, monkeypatch, address, how):
    """Have the engine at ``address`` chosen, in one of the ways in which the command ``docker`` is told."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    if how == "DOCKER_HOST":
        monkeypatch.setenv("DOCKER_HOST", address)
        return
    meta = folder / "contexts" / "meta" / hashlib.sha256(b"mine").hexdigest() / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(
        json.dumps({"Name": "mine", "Metadata": {}, "Endpoints": {"docker": {"Host": address, "SkipTLSVerify": False}}})
    )
    if how == "DOCKER_CONTEXT":
        monkeypatch.setenv("DOCKER_CONTEXT", "mine")
        monkeypatch.setenv("DOCKER_HOST", "unix:///elsewhere.sock")  # the context goes before it
    else:
        (folder / "config.json").write_text('{"auths": {}, "currentContext": "mine"}')


@pytest.mark.parametrize("how", ["DOCKER_HOST", "DOCKER_CONTEXT", "docker context use"])
@pytest.mark.parametrize("address", REMOTE)
def test_the_engine_of_another_machine_is_refused_with_what_to_do(tmp_path, monkeypatch, address, how):
    """O14: containers were started there, and then asked here."""
    chosen(tmp_path, monkeypatch, address, how)
    for refuses in (connect, engine_check().probe):
        with pytest.raises(SetupError, match="another machine") as caught:
            refuses()
        assert "Ray cluster" in caught.value.message and "--cluster" in caught.value.message
        undo = {"docker context use": "docker context use default"}.get(how, f"unset {how}")
        assert f"itself, or `{undo}`" in caught.value.hint


@pytest.mark.parametrize("how", ["DOCKER_HOST", "DOCKER_CONTEXT", "docker context use"])
@pytest.mark.parametrize(
    "address",
    ["unix:///var/run/docker.sock", "tcp://127.0.0.1:2375", "tcp://localhost:2375", "tcp://[::1]:2375", "npipe:////./pipe/x"],
)
def test_this_machines_own_engine_is_not_and_is_the_one_that_is_used(tmp_path, monkeypatch, address, how):
    chosen(tmp_path, monkeypatch, address, how)
    assert engine_address().url == address


def test_without_any_of_them_it_is_the_machines_own_socket(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    for context in ("", "default"):
        monkeypatch.setenv("DOCKER_CONTEXT", context)
        assert engine_address().url == ""
    (tmp_path / "none").mkdir()
    for text in ('{"currentContext": "default"}', "{", "[]", '{"currentContext": 5}'):
        (tmp_path / "none" / "config.json").write_text(text)
        assert engine_address().url == ""


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("DOCKER_CONTEXT", "gone", "'gone' does not exist"),
        ("DOCKER_CONTEXT", "mine", "holds no address"),
        ("DOCKER_HOST", "tcp://[::1", "which is no address"),
        ("DOCKER_HOST", "ssh://localhost", "own engine by SSH"),
    ],
)
def test_what_leads_to_no_engine_is_refused_in_a_sentence(tmp_path, monkeypatch, variable, value, message):
    chosen(tmp_path, monkeypatch, "", "docker context use")
    next(tmp_path.glob("contexts/meta/*/meta.json")).write_text('{"Name": "mine", "Endpoints": {}}')
    (tmp_path / "config.json").unlink()
    monkeypatch.setenv(variable, value)
    with pytest.raises(SetupError, match=message) as caught:
        connect()
    assert f"unset {variable}" in caught.value.hint

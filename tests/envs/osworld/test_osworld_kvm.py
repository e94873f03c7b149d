"""Whether virtual machines run at full speed here is remembered; neither an engine that goes away nor a second process breaks it."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace

import pytest
import requests

from envs.osworld import kvm


@pytest.fixture
def state(tmp_path, monkeypatch):
    """A state directory of its own, an engine that has the image, and a guest that runs."""
    monkeypatch.setenv("AGENTLAB_STATE", str(tmp_path))
    engine = SimpleNamespace(info=lambda: {"ID": "engine"}, images=SimpleNamespace(list=lambda name: [SimpleNamespace(id="image")]))
    monkeypatch.setattr(kvm, "connect", lambda: engine)
    monkeypatch.setattr(kvm, "try_guest", lambda image: True)
    return tmp_path, engine


def test_an_engine_that_goes_away_is_a_failure_of_the_machinery(state):
    """The question for the image stood outside: what requests raised ended the program with a traceback."""

    def lost(name):
        raise requests.exceptions.ConnectionError("the engine ended")

    state[1].images.list = lost
    assert kvm.tried("image") is None, "nothing is known of the machine then"


def test_several_processes_may_find_it_out_at_once(state, monkeypatch):
    """All wrote one temporary file: who renamed it second found none."""
    both = threading.Barrier(4)

    def slowly(image):
        both.wait(30)
        return True

    monkeypatch.setattr(kvm, "try_guest", slowly)
    replace, meet = type(state[0]).replace, threading.Barrier(4)

    def together(self, target):
        meet.wait(30)
        return replace(self, target)

    monkeypatch.setattr(type(state[0]), "replace", together)
    found: list[bool | None] = []
    threads = [threading.Thread(target=lambda: found.append(kvm.tried("image")), daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [True] * 4
    assert list(json.loads((state[0] / "kvm.json").read_text()).values()) == [True]
    assert [path.name for path in state[0].iterdir()] == ["kvm.json"]


def test_what_cannot_be_remembered_is_known_all_the_same(state, monkeypatch):
    (state[0] / "file").touch()
    monkeypatch.setenv("AGENTLAB_STATE", str(state[0] / "file" / "state"))
    assert kvm.tried("image") is True

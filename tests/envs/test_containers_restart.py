"""An engine that goes away for a while: waited for within bounds, and nothing that it created unheard is left behind."""

import socket
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import docker
import pytest
import requests
from docker.models.containers import ContainerCollection

from envs.containers import ContainerSpec, Fleet, Ledger, SparePool, await_engine
from envs.containers.fleet import LOOPBACK
from envs.errors import InfrastructureError
from envs.osworld.providers import LIGHT_IMAGE

SPEC = ContainerSpec(image=LIGHT_IMAGE, mend="make it", ports=(5000,), command=("sleep", "1000"))


class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"OK")

    def log_message(self, *_):
        pass


def test_an_engine_that_comes_back_is_waited_for_and_one_that_does_not_is_told():
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        port = free.getsockname()[1]
    client = docker.DockerClient(base_url=f"tcp://{LOOPBACK}:{port}", version="1.41")
    with pytest.raises(InfrastructureError, match="has not answered") as caught:
        await_engine(client, 0.1)
    assert caught.value.component == "docker" and caught.value.hint
    closing = threading.Event()
    threading.Timer(0.3, closing.set).start()
    began = time.monotonic()
    with pytest.raises(InfrastructureError, match="not waited for any longer"):  # a run that is being stopped, in a worker's thread
        await_engine(client, 60.0, closing.is_set)
    assert time.monotonic() - began < 30.0
    servers = []

    def come_back():
        servers.append(ThreadingHTTPServer((LOOPBACK, port), Answers))
        servers[0].serve_forever()

    later = threading.Timer(1.0, come_back)
    later.start()
    try:
        await_engine(client, 60.0)
        assert servers, "it had come back"
    finally:
        later.join(0)
        servers[0].shutdown()
        servers[0].server_close()
        client.close()


class Booted:
    """A container that wakes at once."""

    name = "booted"
    refresh = staticmethod(lambda: "running")
    pause = unpause = staticmethod(lambda: None)


class Flaky:
    """A fleet whose first starts fail, as they do while the engine is away."""

    def __init__(self, failures):
        self.failures, self.started = failures, 0

    def start(self, spec, probe, timeout):
        self.started += 1
        if self.started <= self.failures:
            raise InfrastructureError("Docker could not.", component="docker")
        return Booted()

    def stop(self, container):
        pass


def test_spares_that_did_not_boot_cost_the_next_attempts_nothing():
    fleet = Flaky(failures=2)
    pool = SparePool(fleet, SPEC, lambda container: "", size=2, boot_timeout=1.0)
    try:
        pool.fill()
        assert pool.take().name == "booted"
        assert fleet.started >= 3
    finally:
        pool.close()


@pytest.mark.docker
def test_a_container_whose_creation_was_not_heard_of_is_removed_with_the_rest(engine, ledger, monkeypatch):
    create, get = ContainerCollection.create, ContainerCollection.get
    made = []

    def lost(self, *args, **kwargs):
        made.append(create(self, *args, **kwargs))
        raise requests.exceptions.ConnectionError("the engine ended")

    def away(self, name):
        if not made:  # creating asks for what it has created, too
            return get(self, name)
        raise requests.exceptions.ConnectionError("the engine is away")

    with Fleet(f"test-{uuid.uuid4().hex[:6]}", ledger=ledger) as fleet:
        monkeypatch.setattr(ContainerCollection, "create", lost)
        monkeypatch.setattr(ContainerCollection, "get", away)
        with pytest.raises(InfrastructureError, match="the engine ended"):
            fleet.start(SPEC, lambda container: "", 5.0)
        monkeypatch.setattr(ContainerCollection, "create", create)
        monkeypatch.setattr(ContainerCollection, "get", get)
        assert engine.containers.get(made[0].id), "it is there"
        assert made[0].name in Ledger(ledger.folder)
        fleet.start(SPEC, lambda container: "", 30.0)
        with pytest.raises(docker.errors.NotFound):
            engine.containers.get(made[0].id)
        assert made[0].name not in ledger

        monkeypatch.setattr(ContainerCollection, "create", lost)
        made.clear()
        monkeypatch.setattr(ContainerCollection, "get", away)
        with pytest.raises(InfrastructureError, match="the engine ended"):
            fleet.start(SPEC, lambda container: "", 5.0)
        monkeypatch.setattr(ContainerCollection, "get", get)
    with pytest.raises(docker.errors.NotFound):
        engine.containers.get(made[0].id)
    assert made[0].name not in ledger

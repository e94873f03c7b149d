"""Containers against a real engine: started, ready, failed, killed, left behind, and nobody else's touched."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
import uuid
from pathlib import Path

import pytest

from agentlab.run.parts import prepare
from agentlab.run.resolve import resolve
from envs import containers
from envs.containers import ContainerSpec, Fleet, Ledger, Owner, SparePool, run_once
from envs.containers.fleet import LOOPBACK
from envs.errors import InfrastructureError, SetupError, UsageError
from envs.osworld.providers import LIGHT_IMAGE

pytestmark = pytest.mark.docker

SERVE = ("python3", "-u", "-m", "http.server", "5000", "--directory", "/home/user")
START_SECONDS = 60.0


def spec(*command, image=LIGHT_IMAGE, ports=(5000,)):
    return ContainerSpec(image=image, mend="make it", ports=ports, command=command or SERVE)


def answers(container) -> str:
    try:
        urllib.request.urlopen(f"http://{LOOPBACK}:{container.ports[5000]}/", timeout=5).read()
    except OSError as error:
        return f"no answer ({error})"
    return ""


@pytest.fixture
def fleet(engine, ledger):
    with Fleet(f"test-{uuid.uuid4().hex[:6]}", ledger=ledger) as made:
        yield made


def names(ledger):
    return {row.name for row in containers.ls(ledger) if row.ours}


def test_started_in_parallel_on_loopback_without_rights_and_gone_after_close(engine, ledger):
    with Fleet("parallel run!", ledger=ledger) as fleet:
        started = fleet.start_many(spec(), 3, answers, START_SECONDS)
        assert len({c.ports[5000] for c in started}) == 3
        assert names(ledger) == {c.name for c in started}
        for container in started:
            raw = engine.containers.get(container.name).attrs
            assert {b["HostIp"] for b in raw["NetworkSettings"]["Ports"]["5000/tcp"]} == {"127.0.0.1"}
            assert raw["HostConfig"]["CapDrop"] == ["ALL"] and not raw["HostConfig"]["CapAdd"]
            assert "no-new-privileges" in raw["HostConfig"]["SecurityOpt"]
            assert raw["Config"]["User"] == "user"
        fleet.close()
        with pytest.raises(InfrastructureError, match="closed"):
            fleet.start(spec(), answers, START_SECONDS)
    assert names(ledger) == set() and ledger.names(engine.info()["ID"]) == {}


def test_a_container_that_ends_says_why_and_its_log_is_kept(fleet, ledger, tmp_path):
    with pytest.raises(InfrastructureError, match="the last words") as caught:
        fleet.start(spec("sh", "-c", "echo the last words >&2; exit 3"), answers, START_SECONDS)
    assert caught.value.component == "container" and "kept in" in caught.value.hint
    (log,) = (tmp_path / "state" / "logs").glob("*.log")
    assert "the last words" in log.read_text() and str(log) in caught.value.hint
    assert names(ledger) == set()


def test_one_that_is_never_ready_is_removed_in_time(fleet, ledger):
    with pytest.raises(InfrastructureError, match="not ready in 2 s: no answer"):
        fleet.start(spec("sleep", "1000"), answers, 2.0)
    assert names(ledger) == set()


def test_all_or_none(fleet, ledger):
    def content_with_one(container):
        return answers(container) if len(names(ledger)) < 2 else "a second one is too much"

    with pytest.raises(InfrastructureError, match="too much"):
        fleet.start_many(spec(), 2, content_with_one, 5.0)
    assert names(ledger) == set()


def test_a_missing_image_names_the_command_that_brings_it(fleet, ledger):
    with pytest.raises(SetupError) as caught:
        fleet.start(spec(image="agentlab/never-built"), answers, START_SECONDS)
    assert caught.value.hint == "make it" and names(ledger) == set()


def test_a_program_that_is_not_in_the_image_leaves_nothing(fleet, ledger, engine):
    with pytest.raises(InfrastructureError) as caught:
        fleet.start(spec("no-such-program"), answers, START_SECONDS)
    assert caught.value.component == "docker"
    assert names(ledger) == set() and ledger.names(engine.info()["ID"]) == {}


def test_removed_and_restarted_behind_our_back(fleet, engine):
    one, two = fleet.start_many(spec(), 2, answers, START_SECONDS)
    engine.containers.get(one.name).remove(force=True)
    assert one.refresh() == "gone" and one.logs() == ""
    fleet.stop(one)
    fleet.stop(one)
    engine.containers.get(two.name).restart(timeout=0)
    containers.wait_ready(two, answers, START_SECONDS)  # on another port by now, perhaps
    two.pause()
    assert two.refresh() == "paused"
    fleet.stop(two)
    assert two.refresh() == "gone"


KILLED_RUN = """
    import sys, time
    from envs.containers import Fleet
    from test_containers_engine import answers, spec
    fleet = Fleet("killed")
    started = fleet.start_many(spec(), 2, answers, 60.0)
    started[1].pause()
    print(*(c.name for c in started), flush=True)
    time.sleep(600)
"""


def test_after_kill_9_gc_removes_exactly_what_the_run_left(engine, ledger, fleet):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    run = subprocess.Popen([sys.executable, "-c", textwrap.dedent(KILLED_RUN)], stdout=subprocess.PIPE, text=True, env=environment)
    left = set(run.stdout.readline().split())
    assert len(left) == 2
    living = fleet.start(spec(), answers, START_SECONDS)
    dead = Owner(run="killed", pid=2**22 - 1, started=1, boot="", created=0, ttl=1)
    foreign = {
        engine.containers.create(LIGHT_IMAGE, name=f"somebody-{uuid.uuid4().hex[:8]}"),
        engine.containers.create(LIGHT_IMAGE, name=f"agentlab-killed-{uuid.uuid4().hex[:8]}", labels=dead.labels()),
    }
    try:
        assert not left & set(containers.gc(ledger)), "their owner lives"
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        ledger.add("agentlab-killed-before-it-was-created", engine.info()["ID"], dead)
        assert {row.name for row in containers.ls(ledger) if row.leftover} == left
        assert set(containers.gc(ledger)) == left
        assert containers.gc(ledger) == []
        assert names(ledger) == {living.name} and living.refresh() == "running"
        assert set(ledger.names(engine.info()["ID"])) == {living.name}
        assert all(engine.containers.get(container.id) for container in foreign)
    finally:
        for container in foreign:
            container.remove(force=True)


def test_stop_by_run_or_name_and_only_ours(engine, ledger):
    fleet = Fleet("kept", ledger=ledger, detached=True)
    one, two, three = fleet.start_many(spec(), 3, answers, START_SECONDS)
    try:
        assert containers.gc(ledger) == []
        assert containers.stop(one.name, ledger) == [one.name]
        with pytest.raises(UsageError, match="No container or run"):
            containers.stop("kept", Ledger(ledger.folder / "of-somebody-else"))
        assert set(containers.stop("kept", ledger)) == {two.name, three.name}
        with pytest.raises(UsageError):
            containers.stop("kept", ledger)
    finally:
        fleet.close()


def test_a_spare_is_booted_clean_and_replaced(fleet, engine):
    pool = SparePool(fleet, spec(), answers, size=1, boot_timeout=START_SECONDS)
    pool.fill()
    first = pool.take()
    engine.containers.get(first.name).exec_run(["sh", "-c", "echo dirt > ~/dirt"])
    second = pool.take()
    pool.give_back(first)
    body = urllib.request.urlopen(f"http://{LOOPBACK}:{second.ports[5000]}/", timeout=5).read()
    assert second.name != first.name and b"dirt" not in body
    third = pool._spares[0].result()
    third.remove()  # somebody removes the waiting spare
    fourth = pool.take()
    assert fourth.name != third.name and answers(fourth) == ""
    pool.close()
    pool.close()
    left = {row.name for row in containers.ls(fleet.ledger) if row.owner.run == fleet.run}
    assert left == {second.name, fourth.name}


def test_no_engine_is_a_setup_error_with_a_way_out(monkeypatch):
    with socket.socket() as closed:
        closed.bind((LOOPBACK, 0))
        monkeypatch.setenv("DOCKER_HOST", f"tcp://{LOOPBACK}:{closed.getsockname()[1]}")
        containers.engine._client.cache_clear()
        try:
            with pytest.raises(SetupError, match="No Docker Engine") as caught:
                containers.connect()
            assert "dockerd" in caught.value.hint or "docker.io" in caught.value.hint
        finally:
            containers.engine._client.cache_clear()


@pytest.mark.parametrize("started", ["containers", "a run without any"])
def test_the_next_start_removes_what_a_killed_run_left(engine, ledger, started, tmp_path):
    """O13: it stayed until somebody typed `gc`."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    run = subprocess.Popen([sys.executable, "-c", textwrap.dedent(KILLED_RUN)], stdout=subprocess.PIPE, text=True, env=environment)
    left = set(run.stdout.readline().split())
    foreign = engine.containers.create(LIGHT_IMAGE, name=f"somebody-{uuid.uuid4().hex[:8]}")
    try:
        with Fleet("while-it-lives", ledger=ledger):
            assert names(ledger) == left, "their owner lives"
        run.kill()
        run.wait()
        assert ledger.has_leftovers
        if started == "containers":
            Fleet("afterwards", ledger=ledger).close()
        else:  # it had just finished its last attempt: the same command starts no containers
            prepare(resolve({"suite": "reasoning", "policy": "random", "out": tmp_path / "run"}), print)
        assert names(ledger) == set() and not ledger.has_leftovers
        assert engine.containers.get(foreign.id)
    finally:
        foreign.remove(force=True)


def test_containers_reach_the_outside_and_not_each_other(fleet, engine):
    """R13: whoever reaches a guest's server runs commands in it."""
    one, two = fleet.start_many(spec(), 2, answers, START_SECONDS)
    assert answers(two) == "", "from here"
    address = engine.containers.get(two.name).attrs["NetworkSettings"]["Networks"]["agentlab-guests"]["IPAddress"]
    ask = "import socket, sys; socket.create_connection((sys.argv[1], 5000), 3)"
    status, _, error = one.execute(["python3", "-c", ask, address], 10)
    assert status != 0 and b"Error" in error
    own = engine.containers.get(one.name).attrs["NetworkSettings"]["Networks"]["agentlab-guests"]["IPAddress"]
    assert one.execute(["python3", "-c", ask, own], 10)[0] == 0


def test_memory_processors_and_processes_have_limits(fleet, engine):
    limited = dataclasses.replace(spec(), memory="64m", swap=False, cpus=0.5, pids=40)
    container = fleet.start(limited, answers, START_SECONDS)
    host = engine.containers.get(container.name).attrs["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (64 << 20, 64 << 20, 5 * 10**8, 40)
    eat = "import os; x = bytearray(200 << 20); x[::4096] = b'x' * len(x[::4096])"
    assert container.execute(["python3", "-c", eat], 20)[0] == 137
    fork = "import subprocess; [subprocess.Popen(['sleep', '9']) for _ in range(60)]"
    assert b"BlockingIOError" in container.execute(["python3", "-c", fork], 20)[2]
    assert answers(container) == ""


def test_one_that_does_one_thing_leaves_nothing(engine, ledger):
    assert run_once(spec("sh", "-c", "echo said; exit 7"), 20, run="once", ledger=ledger) == (7, "said\n")
    assert run_once(spec("sleep", "100"), 1, run="once", ledger=ledger)[0] is None
    with pytest.raises(InfrastructureError):
        run_once(spec("no-such-program"), 20, run="once", ledger=ledger)
    assert names(ledger) == set() and ledger.names(engine.info()["ID"]) == {}

"""Environments on the nodes of a cluster: what a run on one is, beside one in threads; on a stand-in for Ray (standin_ray.py)."""

import json
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "own"))

import placed
import standin_ray
from placed_runs import agentlab, files, lived

from agentlab.cluster import connection, host, node, placement, slot
from agentlab.cluster.connection import Node
from agentlab.disk.runs import read_rows
from agentlab.run.parts import prepare
from agentlab.run.resolve import resolve
from agentlab.run.runner import Runner
from envs.benchmark import Check
from envs.errors import InfrastructureError, LabError, SetupError
from envs.room import _limits, room

FOUR = {f"node-{n}": {"CPU": 1.0, "desktops": 1.0} for n in range(1, 5)}


@pytest.fixture
def ray(monkeypatch):
    """A cluster of four nodes with room for one desktop each."""
    monkeypatch.setattr(placed, "HERE", [lambda: getattr(standin_ray.on, "node", "")])
    monkeypatch.setattr(slot, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(placement, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(placement, "WAIT_SECONDS", 0.02)
    monkeypatch.setattr(placement, "REST_SECONDS", 0.05)
    return standin_ray.install(monkeypatch, FOUR)


def config_of(out, cluster="ray", **more):
    env = {key: more.pop(key) for key in ("journal", "seconds", "broken", "flaky", "boots") if key in more}
    flags = {"suite": "placed:Placed", "policy": "guessing:Guesser", "limit": 8, "attempts": 5, "adapt": {"preset": "textgrad"}}
    return resolve(flags | {"out": out, "cluster": cluster, "env": env} | more)


def run(out, cluster="ray", on_row=lambda row: None, **more):
    """(the rows, lines that were said)."""
    said = []
    runner = Runner(config_of(out, cluster, **more), on_row=on_row, say=said.append)
    return runner.run(), said


@pytest.mark.parametrize("workers", [None, 7])
def test_four_nodes_and_threads_make_the_same_rows_and_files(ray, tmp_path, workers):
    """Of seven sessions in flight three wait for room."""
    threads, _ = run(tmp_path / "threads", None, workers=4)
    nodes, said = run(tmp_path / "nodes", workers=workers)
    assert lived(nodes) == lived(threads) and len(nodes) > 8
    assert files(tmp_path / "nodes") == files(tmp_path / "threads")
    assert not any(row.infrastructure for row in nodes)
    assert ray.actors_alive == [] and not ray.initialized  # everything was given back
    assert [line for line in said if "differ in their table" in line and "round on node-2" in line]


def test_what_a_policy_asks_of_its_environments_is_there_on_nodes_too(ray, tmp_path):
    """The follower of an expert needs one."""
    rows, _ = run(tmp_path / "nodes", policy="scripted", adapt={"preset": "none"}, attempts=1)
    assert len(rows) == 8 and all(row.success for row in rows)


def test_a_node_that_dies_voids_what_it_was_doing_which_is_done_again_elsewhere(ray, tmp_path):
    threads, _ = run(tmp_path / "threads", None, workers=4)
    killed = threading.Event()
    journal = tmp_path / "journal"

    def kill():
        while not killed.is_set():  # in the midst of an episode, and not between two
            lines = journal.read_text().splitlines() if journal.exists() else []
            if [line.split()[0] for line in lines if line.endswith("node-3")].count("begin") >= 2 and lines[-1].startswith("begin"):
                ray.kill_node("node-3")
                killed.set()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    nodes, said = run(tmp_path / "nodes", journal=str(journal), seconds=0.02)
    assert killed.is_set() and lived(nodes) == lived(threads)
    lost = [breakage for row in nodes for breakage in row.infrastructure]
    assert lost and all(b.component == "node" and "node-3" in b.message for b in lost)
    assert any("node-3" in line and "is gone" in line and "3 of 4 nodes left" in line for line in said)
    assert list((tmp_path / "nodes").glob("sessions/*/attempt_*/void_01"))


def test_a_node_that_joins_is_used(ray, tmp_path):
    for name in ("node-2", "node-3", "node-4"):
        del ray.cluster[f"{name}-id"]
    seen = []

    def on_row(row):
        if not seen:
            ray.add_node("node-9", {"CPU": 1.0, "desktops": 2.0})
        seen.append(row)

    journal = tmp_path / "journal"
    _, said = run(tmp_path / "nodes", on_row=on_row, workers=3, journal=str(journal), seconds=0.02, limit=6)
    assert any("node-9" in line and "joined" in line for line in said)
    assert any(line.endswith("node-9") for line in journal.read_text().splitlines())


@pytest.mark.parametrize("fault", ["broken", "flaky"])
def test_a_node_on_which_nothing_works_does_not_draw_all_sessions_to_itself(ray, tmp_path, fault):
    threads, _ = run(tmp_path / "threads", None, workers=4)
    nodes, _ = run(tmp_path / "nodes", **{fault: "node-1"})
    assert lived(nodes) == lived(threads)
    lost = {breakage.component for row in nodes for breakage in row.infrastructure}
    assert lost == ({"table"} if fault == "flaky" else set())  # what lacks something is found out before an attempt begins


def test_where_no_node_can_make_one_the_run_stops_with_what_they_lack(ray, tmp_path):
    for name in ("node-2", "node-3", "node-4"):
        del ray.cluster[f"{name}-id"]
    with pytest.raises(SetupError, match="There is no table here") as error:
        run(tmp_path / "nodes", broken="node-1", infra_retries=5)
    assert error.value.hint == "buy one"


def test_a_run_whose_nodes_are_all_gone_stops_and_is_continued_in_threads(ray, tmp_path, monkeypatch):
    monkeypatch.setattr(placement, "GONE_SECONDS", 0.1)
    threads, _ = run(tmp_path / "threads", None, workers=4)

    def on_row(row):
        for name in FOUR:
            ray.kill_node(name)

    with pytest.raises(SetupError, match="No node of the cluster with desktops") as error:
        run(tmp_path / "nodes", on_row=on_row)
    assert "ray start" in error.value.hint
    done = read_rows(tmp_path / "nodes")
    assert done and all(row in lived(threads) for row in lived(done))
    rows, _ = run(tmp_path / "nodes", None, workers=2)
    assert lived(rows) == lived(threads)


def test_what_an_environment_says_of_a_failure_is_the_same_there_and_here(ray, tmp_path):
    rows, _ = run(tmp_path / "nodes", flaky="node-1", limit=1, workers=1, infra_retries=0, attempts=1)
    assert [(b.component, b.message) for b in rows[0].infrastructure] == [("table", "The table broke.")] and not rows[0].graded


def test_stopping_does_not_wait_for_room(ray, tmp_path):
    runner = Runner(config_of(tmp_path / "nodes", workers=6))
    runner.on_row = lambda row: runner.stop.set()
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    assert ray.actors_alive == []


def test_stopping_does_not_wait_for_a_machine_that_boots_on_a_node(ray, tmp_path):
    """The process there is told, releases what it holds, and ends; what it was doing is done again when the run is continued."""
    runner = Runner(config_of(tmp_path / "nodes", workers=3, boots=90.0, journal=str(tmp_path / "journal")))
    threading.Timer(1.0, runner.stop.set).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    assert time.monotonic() - began < 60.0 and ray.actors_alive == []
    assert (tmp_path / "journal").read_text().count("begin") == 3  # once for each: stopping is no failure that is tried again
    assert read_rows(tmp_path / "nodes") == []
    rows, _ = run(tmp_path / "nodes", workers=3, boots=0.0, journal=str(tmp_path / "journal"))
    assert len({row.task for row in rows}) == 8 and not any(row.infrastructure for row in rows)


def test_a_step_that_takes_longer_than_a_node_is_asked_for_is_waited_for(ray, tmp_path, monkeypatch):
    monkeypatch.setattr(host, "ANSWER_SECONDS", 0.01)
    threads, _ = run(tmp_path / "threads", None, limit=2, workers=1)
    nodes, _ = run(tmp_path / "nodes", limit=2, workers=1, seconds=0.05)
    assert [(r.task, r.attempt, r.success, r.infrastructure) for r in nodes] == [
        (r.task, r.attempt, r.success, r.infrastructure) for r in threads
    ]


# -- before a run ------------------------------------------------------------------------------------------------------------------
def test_nodes_that_are_not_ready_are_named_with_what_brings_what_they_lack(ray, tmp_path, monkeypatch):
    monkeypatch.setattr(placed.Placed, "lacks", {"node-1": "chair", "node-4": "lamp"})
    with pytest.raises(SetupError) as error:
        run(tmp_path / "nodes")
    assert all(text in error.value.message for text in ("node-1", "no chair", "node-4", "no lamp"))
    assert "node-2" not in error.value.message and "agentlab setup placed" in error.value.hint


def test_a_node_that_has_died_unnoticed_is_left_out(ray, tmp_path):
    """The cluster still lists it; nothing is tried on it, since nobody knows what it has."""
    third = ray.cluster["node-3-id"]
    third.gone = True
    threads, _ = run(tmp_path / "threads", None)
    back = lambda row: setattr(third, "gone", False)  # noqa: E731 - it answers again, but was not made ready
    rows, said = run(tmp_path / "nodes", on_row=back, journal=str(tmp_path / "journal"))
    assert lived(rows) == lived(threads) and not any(row.infrastructure for row in rows)
    assert any("node-3 does not answer" in line and "This run does without it" in line for line in said)
    assert "node-3" not in (tmp_path / "journal").read_text()
    for one in ray.cluster.values():
        one.gone = True
    with pytest.raises(SetupError, match="does not answer") as problem:
        run(tmp_path / "none")
    assert all(f"node-{n}" in problem.value.message for n in range(1, 5))


def test_a_node_with_another_version_of_the_code_is_refused(ray, tmp_path, monkeypatch):
    def there(suite, options):
        return node.Readiness("0.0.1 (abc)" if standin_ray.on.node == "node-2" else node.code(), {})

    monkeypatch.setattr(node, "report", there)
    with pytest.raises(SetupError, match=r"node-2.* has another version of agentlab, 0\.0\.1") as error:
        run(tmp_path / "nodes")
    assert "same" in error.value.hint


@pytest.mark.parametrize(
    ("nodes", "message", "hint"),
    [
        ({"node-1": {"CPU": 4.0}}, "No node of the cluster offers desktops", "ray start --address"),
        ({"node-1": {"desktops": 0.0}}, "No node of the cluster offers desktops", "agentlab doctor --node --json"),
    ],
)
def test_a_cluster_without_room_is_refused(monkeypatch, tmp_path, nodes, message, hint):
    standin_ray.install(monkeypatch, nodes)
    with pytest.raises(SetupError, match=message) as error:
        run(tmp_path / "nodes")
    assert hint in error.value.hint


def test_without_a_cluster_one_of_this_machine_alone_is_started(monkeypatch, tmp_path):
    ray = standin_ray.install(monkeypatch, {})
    monkeypatch.setattr(node, "offered", lambda: {"desktops": 2})
    rows, said = run(tmp_path / "nodes", limit=3)
    assert all(row.graded for row in rows) and any("this machine alone" in line for line in said)
    assert ray.shutdowns == 1


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("cluster", "installed", "code", "text"),
    [
        ("ray", False, 3, "--cluster needs Ray, which is not installed here. pip install '.[ray]'"),
        ("slurm", True, 2, "slurm is not the address of a cluster"),
        ("ray://", True, 2, "not the address"),
        ("ray://a b", True, 2, "not the address"),
        ("ray://user@host:1", True, 2, "not the address"),
    ],
)
def test_what_is_no_cluster_is_refused_before_anything_begins(monkeypatch, tmp_path, cluster, installed, code, text, more):
    standin_ray.install(monkeypatch, FOUR)
    if not installed:
        monkeypatch.setitem(sys.modules, "ray", None)
    command = ["run", "placed:Placed", "--policy", "guessing:Guesser", "--out", tmp_path / "run", "--cluster", cluster, *more]
    assert agentlab(*command)[0] == code and text in agentlab(*command)[1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("suite", "env"),
    [
        ("osworld-light", {"provider": "127.0.0.1:5000:9222"}),
        ("osworld-light", {"provider": "address:10.0.0.1:5000"}),
        ("androidworld", {"provider": "10.0.0.1:5000"}),
        ("placed:Placed", {"journal": "hall"}),
    ],
)
def test_guests_that_run_already_are_not_for_a_cluster(ray, tmp_path, suite, env):
    config = resolve({"suite": suite, "policy": "noop", "cluster": "ray", "env": env, "out": tmp_path / "run"})
    with pytest.raises(LabError, match="--cluster makes environments on the nodes") as error:
        prepare(config, print)
    assert error.value.exit_code == 2


def test_where_no_cluster_answers_it_is_said_without_a_page_of_ray(ray):
    with pytest.raises(SetupError) as error:
        connection.RayConnection("ray://elsewhere:10001")
    assert "No cluster answers at ray://elsewhere:10001: Could not find any running Ray instance" in error.value.message
    assert "A page follows" not in str(error.value) and "--cluster ray" in error.value.hint


# -- what nodes say ----------------------------------------------------------------------------------------------------------------
def test_status_shows_nodes_their_room_and_what_is_in_use(ray):
    ray.cluster["node-1-id"].resources["desktops"] = 3.0
    ray.kill_node("node-2")
    actor = ray.remote(dict).options(
        scheduling_strategy=standin_ray.NodeAffinitySchedulingStrategy("node-1-id", False), resources={"desktops": 1},
        name="a:run:node-1-id:12345678",
    )  # fmt: skip
    actor.remote()
    code, text = agentlab("cluster", "status")
    line = next(line for line in text.splitlines() if line.strip().startswith("node-1/"))
    assert code == 0 and "3 desktops" in line and line.split()[-1] == "1"
    assert "dead" in next(line for line in text.splitlines() if line.strip().startswith("node-2/"))
    assert "3 of 4 nodes alive: 5 desktops." in text


def test_a_node_gives_the_hint_of_what_is_wrong_where_a_check_has_no_one_command(monkeypatch):
    def wrong():
        raise SetupError("/dev/kvm cannot be opened.", "chmod it")

    checks = [Check("/dev/kvm", wrong), Check("image", wrong, "fetch it"), Check("disk", lambda: "80 GB")]
    monkeypatch.setattr(node, "find_benchmark", lambda name: SimpleNamespace(checks=lambda: checks))
    found = node.checkup("placed:Placed").findings
    assert [(one.ok, one.mend) for one in found] == [(False, "chmod it"), (False, "fetch it"), (True, "")]


def test_doctor_says_of_every_node_what_it_lacks_and_whether_its_room_is_true(ray, monkeypatch):
    def there(benchmark):
        lacks = standin_ray.on.node == "node-2"
        found = node.Line("Docker", not lacks, "no Docker Engine answers" if lacks else "Engine 20", "install it", needed=True)
        code = "0.0.1 (abc)" if standin_ray.on.node == "node-4" else node.code()
        room = {"desktops": (0 if lacks else 2, "osworld"), "phones": (0, "androidworld: no /dev/kvm")}
        return node.Checkup(code, "3.11.7", (found,), room, ("agentlab-x-1",) if lacks else ())

    monkeypatch.setattr(node, "checkup", there)
    code, text = agentlab("cluster", "doctor")
    one, two, _three, four = (text.split(f"node-{n}/")[1].split("\nnode-")[0] for n in range(1, 5))
    assert code == 3
    assert "ok  Docker: Engine 20" in one and "missing" not in one and "ok  phones: none" in one
    assert "missing  Docker: no Docker Engine answers  →  install it" in two and "Ray was told 1, and there is none" in two
    assert "containers of dead runs: agentlab-x-1" in two and "missing  agentlab: 0.0.1" in four


def test_a_node_is_told_how_much_room_it_has(monkeypatch):
    counts = {"osworld": 2, "miniwob": 5}
    from envs.suites import find_benchmark

    for name, count in counts.items():
        monkeypatch.setattr(type(find_benchmark(name)), "places", lambda self, count=count: count)

    def none(self):
        raise SetupError("There is no /dev/kvm.")

    monkeypatch.setattr(type(find_benchmark("androidworld")), "places", none)
    assert json.loads(agentlab("doctor", "--node", "--json")[1]) == {"browsers": 5, "desktops": 2}
    code, text = agentlab("doctor", "--node")
    assert code == 0 and "desktops: 2" in text and "phones: 0  (androidworld: There is no /dev/kvm.)" in text
    assert """ray start --address=HEAD:6379 --resources='{"browsers": 5, "desktops": 2}'""" in text


def test_room_is_what_the_job_may_use_and_not_what_the_machine_has(tmp_path, monkeypatch):
    """A batch system's job of 3 processors and 4 GB on a machine of many."""
    (tmp_path / "own").write_text("0::/slurm/job_1/step\n")
    job = tmp_path / "root/slurm/job_1"
    (job / "step").mkdir(parents=True)
    (job / "memory.max").write_text("4000000000\n")
    (job / "step/memory.max").write_text("max\n")
    (job / "cpu.max").write_text("300000 100000\n")
    monkeypatch.setattr("envs.room._limits", lambda name: _limits(name, tmp_path / "root", tmp_path / "own"))
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("M", (), {"total": 256e9})())
    assert room(1.0, 1.0) == 3  # 3 processors, memory for 3.2
    assert room(0.1, 0.5) == 6
    assert room(2.0, 1.0) == 1
    assert room(8.0, 4.0) == 0


def places_of(nodes, clock):
    said = []
    return placement.Places("desktops", lambda: list(nodes.values()), said.append, lambda: clock[0]), said


def test_room_goes_to_the_emptiest_node_and_away_from_those_that_fail():
    clock, stop = [0.0], threading.Event()
    nodes = {name: Node(name, name, True, {"desktops": size}) for name, size in (("a", 2), ("b", 4))}
    places, _ = places_of(nodes, clock)
    assert places.room() == 6 and [places.take(stop)[0].name for _ in range(6)] == ["a", "b", "b", "a", "b", "b"]
    lost = InfrastructureError("lost")
    places.give_back(nodes["a"], lost)
    places.give_back(nodes["b"])
    assert places.take(stop)[0].name == "b"  # though `a` is emptier
    assert places.take(stop)[0].name == "a"  # where else
    places.give_back(nodes["a"], lost)
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(InfrastructureError, match="being stopped"):
        places.take(stop)  # it failed twice: it rests
    stop.clear()
    clock[0] += placement.REST_SECONDS + 1
    assert places.take(stop)[0].name == "a"
    places.worked(nodes["a"])
    places.give_back(nodes["a"], lost)
    assert places.take(stop)[0].name == "a"  # once, after it worked, is nothing

"""Runs on a real Ray of several nodes on this machine: on demand (``AGENTLAB_RAY=1``), where ``pip install '.[ray]'`` was run.

What is done to a run here is done to it in test_cluster.py too, on a stand-in, in every test run.
"""

import os
import threading
import time

import psutil
import pytest
from placed_runs import OWN, agentlab, files, lived
from real_ray import RealRay

from agentlab.run.resolve import resolve
from agentlab.run.runner import Runner

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("AGENTLAB_RAY") != "1", reason="AGENTLAB_RAY=1 runs it; pip install '.[ray]' brings what it needs"
    ),
    pytest.mark.timeout(3600),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Three nodes with room for one desktop and one browser each."""
    made = RealRay(tmp_path_factory.mktemp("ray"), OWN)
    try:
        for name in ("node-1", "node-2", "node-3"):
            made.add(name, {"desktops": 1, "browsers": 1})
        made.wait()
        yield made
    finally:
        made.close()


def run(out, cluster, **flags):
    said = []
    config = resolve({"attempts": 5, "out": out, "cluster": cluster} | flags)
    return Runner(config, say=said.append).run(), said


def guessing(out, cluster, env=None, **more):
    game = {"suite": "placed:Placed", "policy": "guessing:Guesser", "limit": 8, "adapt": {"preset": "textgrad"}, "env": env or {}}
    return run(out, cluster, **game, **more)


def test_nodes_and_threads_make_the_same_rows_and_files(cluster, tmp_path):
    threads, _ = guessing(tmp_path / "threads", None, workers=3)
    nodes, said = guessing(tmp_path / "nodes", "ray")
    assert lived(nodes) == lived(threads) and files(tmp_path / "nodes") == files(tmp_path / "threads")
    assert not any(row.infrastructure for row in nodes), said


def test_stopping_does_not_wait_for_a_machine_that_boots_on_a_node(cluster, tmp_path):
    journal = tmp_path / "journal"
    game = {"suite": "placed:Placed", "policy": "guessing:Guesser", "limit": 3, "adapt": {"preset": "textgrad"}}
    runner = Runner(resolve(game | {"out": tmp_path / "run", "cluster": "ray", "env": {"boots": 900.0, "journal": str(journal)}}))

    def stop_when_all_boot():
        while not journal.exists() or journal.read_text().count("begin") < 3:
            time.sleep(0.1)
        runner.stop.set()

    threading.Thread(target=stop_when_all_boot, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    assert journal.read_text().count("begin") == 3 and not (tmp_path / "run/results.jsonl").read_text().strip()
    assert time.time() - journal.stat().st_mtime < 300.0  # seconds on an idle machine: far from booted, and from being cut off


@pytest.mark.browser
def test_miniwob_by_the_bundled_policy_is_the_same_on_nodes(cluster, tmp_path):
    """Screens, actions, updates: one session at a time, so that not even the rounding of batched products differs."""
    pages = {"suite": "miniwob", "limit": 4, "attempts": 3, "adapt": {"preset": "rosa2"}, "workers": 1}
    threads, _ = run(tmp_path / "threads", None, **pages)
    nodes, _ = run(tmp_path / "nodes", "ray", **pages)
    assert lived(nodes) == lived(threads) and files(tmp_path / "nodes") == files(tmp_path / "threads")
    for screen in (tmp_path / "threads").glob("sessions/*/attempt_*/screens/*"):
        assert screen.read_bytes() == (tmp_path / "nodes" / screen.relative_to(tmp_path / "threads")).read_bytes()


def test_status_and_doctor_ask_the_nodes(cluster):
    code, text = agentlab("cluster", "status")
    assert code == 0 and "3 desktops" in text and text.count("alive") == 5  # the head, three nodes, the sum
    code, text = agentlab("cluster", "doctor", "placed:Placed")
    assert text.count("ok  agentlab: 0") == 4


def test_a_node_that_is_killed_voids_its_attempts_and_leaves_no_process(cluster, tmp_path):
    threads, _ = guessing(tmp_path / "threads", None, workers=3)
    journal = tmp_path / "journal"
    before = {process.pid for process in psutil.process_iter()}

    def kill():
        until = time.monotonic() + 600
        while time.monotonic() < until:
            lines = journal.read_text().splitlines() if journal.exists() else []
            if [line for line in lines if line.endswith("node-3")][-1:] and lines[-1].startswith("begin"):
                cluster.kill("node-3")
                return
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    nodes, said = guessing(tmp_path / "nodes", "ray", {"journal": str(journal), "seconds": 0.3})
    killer.join()
    assert lived(nodes) == lived(threads) and any("is gone" in line for line in said)
    lost = [breakage for row in nodes for breakage in row.infrastructure]
    assert lost and all(breakage.component == "node" for breakage in lost)
    until = time.monotonic() + 60
    while _hosts(before) and time.monotonic() < until:
        time.sleep(0.5)
    assert not _hosts(before)


def _hosts(before):
    """Processes of environments that began since, and are still there."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if process.info["pid"] not in before and "ray::Host" in line:
            found.append(line)
    return found

"""A whole run on real light desktops, from the settings to the rows: containers, the official grader, recorded solutions."""

import pytest

from agentlab.run.parts import prepare
from agentlab.run.resolve import resolve
from agentlab.run.runner import Runner
from envs import containers
from envs.errors import SetupError
from envs.osworld.upstream import grader_python

pytestmark = pytest.mark.docker

TASKS = ("os/files-new-folder", "settings/settings-fingerprint")


@pytest.fixture
def config(engine, ledger, tmp_path):
    try:
        grader_python()
    except SetupError as error:
        pytest.skip(str(error))

    def make(policy: str, attempts: int):
        flags = {"suite": "osworld-light", "policy": policy, "attempts": attempts, "workers": 2, "tasks": list(TASKS)}
        flags |= {"max_steps": 2} if policy == "noop" else {}
        return resolve(flags | {"out": tmp_path / policy, "env": {"provider": "light"}})

    return make


def test_recorded_solutions_solve_and_doing_nothing_does_not(config, ledger):
    rows = {}
    for policy in ("scripted", "noop"):
        wanted = config(policy, attempts=2 if policy == "scripted" else 1)
        prepare(wanted, print)
        rows[policy] = Runner(wanted).run()
    # The recordings are played blindly.  Where a busy machine makes one miss its dialog, the next attempt has a fresh desktop.
    assert {row.name: row.score for row in rows["scripted"] if row.session_over} == dict.fromkeys(TASKS, 1.0)
    assert {row.name: row.score for row in rows["noop"]} == dict.fromkeys(TASKS, 0.0)
    assert {row.name for row in rows["noop"] if not row.feasible} == {"settings/settings-fingerprint"}
    assert not any(row.infrastructure for made in rows.values() for row in made)
    assert [row.name for row in containers.ls(ledger) if row.ours] == [], "no container is left"

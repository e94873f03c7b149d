"""Tasks, instances, goals, parameters and applications as upstream's own package has them, or as it was recorded to."""

from __future__ import annotations

import itertools
import json
import subprocess

import digests
import httpx
import pytest
import servers
import transcript
from digests import timeless

from envs.androidworld import tasks
from envs.androidworld.apps import APPS
from envs.androidworld.suite import AndroidWorldSuite

DIGESTS = json.loads((servers.HERE / "digests.json").read_text())
"""What ``digests.py`` got from upstream's package."""


# -- what is recorded --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", digests.SEEDS)
def test_every_instance_has_upstreams_seed_and_budget(seed):
    recorded = DIGESTS[str(seed)]
    specs = list(itertools.islice(AndroidWorldSuite().instances(None, seed), digests.INDICES * 116))
    assert [spec.options["index"] for spec in specs] == [0] * 116 + [1] * 116 and {spec.name for spec in specs} == set(recorded)
    for spec in specs:
        assert [spec.seed, spec.max_steps] == recorded[spec.name][spec.options["index"]][:2]
    assert sum(spec.max_steps for spec in specs[:116]) == 2349 == sum(entries[0][1] for entries in recorded.values())


def test_goals_that_a_server_was_recorded_to_give_have_the_recorded_digests():
    goals = {
        one.target: json.loads(one.answer)["goal"] for one in transcript.read() if one.route == "/task/goal" and one.status == 200
    }
    for name, index in (("ContactsAddContact", 0), ("ContactsAddContact", 1), ("SystemBrightnessMax", 0)):
        goal = goals[f"/task/goal?task_type={name}&task_idx={index}"]
        assert digests.digest(goal) == DIGESTS["42"][name][index][2], goal


# -- upstream's package ------------------------------------------------------------------------------------------------------------
@pytest.mark.android
def test_goals_and_parameters_have_the_recorded_digests():
    command = [servers.python(), str(servers.HERE / "digests.py")]
    made = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    assert json.loads(made[made.index("{\n") :]) == DIGESTS


DUMP = """
import json
from android_world import registry, suite_utils
from android_world.env import adb_utils
reg = registry.TaskRegistry()
families = {f: sorted(reg.get_registry(f)) for f in registry.get_families()}
suites = {}
for seed in (30, 42):
    made = suite_utils.create_suite(reg.get_registry("android_world"), n_task_combinations=1, seed=seed)
    show = lambda t: {"goal": t.goal, "seed": t.params["seed"], "complexity": t.complexity,
                      "params": {k: repr(v) for k, v in t.params.items()}}
    suites[seed] = {n: [show(t) for t in ts] for n, ts in made.items()}
apps = {name: adb_utils.get_adb_activity(name) for name in APPS}
print(json.dumps({"families": families, "suites": suites, "apps": apps,
                  "wallet": adb_utils.get_adb_activity("Wallet"), "calendar": adb_utils.get_adb_activity("Calendar")}))
"""


@pytest.fixture(scope="module")
def package():
    """What upstream's package itself says, in its own environment."""
    done = subprocess.run(
        [servers.python(), "-c", DUMP.replace("APPS", repr(APPS))], capture_output=True, text=True, timeout=300, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.android
def test_every_family_is_upstreams(package):
    assert {name: sorted(tasks.family(name)) for name in tasks.FAMILIES} == package["families"]


@pytest.mark.android
@pytest.mark.parametrize("seed", [30, 42])
def test_every_goal_and_parameter_that_the_servers_give_is_upstreams(package, ours, upstream, seed):
    with httpx.Client(timeout=120, trust_env=False) as http:
        http.get(f"{upstream.url}/suite/reinitialize", params={"n_task_combinations": 1, "seed": seed})
        for name, instances in package["suites"][str(seed)].items():
            expected = instances[0]
            found = http.get(f"{ours.url}/task", params={"family": "android_world", "task": name, "seed": seed, "index": 0}).json()
            assert (timeless(found["goal"]), found["instance_seed"], found["budget"]) == (
                timeless(expected["goal"]), expected["seed"], int(10 * expected["complexity"]),
            )  # fmt: skip
            for key, value in found["params"].items():
                assert timeless(shown(value)) == timeless(expected["params"][key]), (name, key)
            assert found["params"].keys() == expected["params"].keys()
            theirs = http.get(f"{upstream.url}/task/goal", params={"task_type": name, "task_idx": 0}).json()
            assert timeless(theirs["goal"]) == timeless(expected["goal"])


def shown(value):
    """A parameter as Python writes it; objects that are not JSON come as their own ``repr``."""
    if isinstance(value, dict) and set(value) == {"type", "repr"}:
        return value["repr"]
    if isinstance(value, list):
        return f"[{', '.join(shown(one) for one in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {shown(one)}" for key, one in value.items()) + "}"
    return repr(value)


@pytest.mark.android
def test_applications_are_those_that_upstreams_matcher_opens(package):
    assert all(package["apps"].values()) and len(set(package["apps"].values())) == len(APPS)
    wanted = {
        "files": "documentsui",
        "dialer": "dialer",
        "messages": "apps.messaging",
        "google photos": "apps.photos",
        "clock": "deskclock",
        "pro expense": "arduia",
        "simple calendar pro": "calendar.pro",
    }
    for name, part in wanted.items():
        assert part in package["apps"][name]
    assert "whatsapp" in package["wallet"] and package["calendar"] is None, "the traps that the table closes"

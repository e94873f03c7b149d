"""The browser's debugging channel, for real: Chromium in a desktop, OSWorld's own getter, and a proxy between them that fails on demand.

``benchmarks/osworld_faults.py`` does it for hours, and with every other channel.
"""

import sys
from pathlib import Path

import pytest

from envs import actions as act
from envs.errors import InfrastructureError, SetupError
from envs.osworld.env import OSWorldEnv
from envs.osworld.grading import OfficialGrader
from envs.osworld.suite import OSWorldSuite

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
from channel_faults import BROWSER_FAULTS, Faults, tapped

pytestmark = [pytest.mark.docker, pytest.mark.grader]

TASK = OSWorldSuite("light").spec("chrome/browser-opening-hours")


@pytest.fixture(scope="module")
def grader():
    try:
        made = OfficialGrader()
    except SetupError as error:
        pytest.skip(str(error))
    yield made
    made.close()


@pytest.fixture
def solved(provider, grader, tmp_path):
    """An episode whose task is solved and not graded yet, and the faults that can hit its grading."""
    with tapped(tmp_path / "faults"):
        env = OSWorldEnv(provider=provider, grader=grader, oracle=True)
        env.reset(options={"task": TASK})
        env.step(env.oracle()[1])
        yield env, Faults(tmp_path / "faults")
        env.close()


def test_a_browser_that_is_reached_is_graded_and_one_that_the_agent_closed_scores_0(solved):
    env, _ = solved
    assert env.step(act.Finished())[1] == 1.0
    env.reset(options={"task": TASK})
    env.step(env.oracle()[1])
    env.guest.client.execute(["sh", "-c", "pkill chrome; pkill socat; sleep 1"])
    assert env.step(act.Finished())[1] == 0.0


@pytest.mark.parametrize("fault", BROWSER_FAULTS)
def test_a_channel_that_fails_while_it_is_graded_is_no_score(solved, fault):
    env, faults = solved
    faults.want(fault)
    with pytest.raises(InfrastructureError):
        env.step(act.Finished())
    assert not faults.wanted(fault), "it was done"

"""One light desktop for the tests of a module, and a clean one where a test needs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from standin import Standin, standin

from envs.base import TaskSpec
from envs.osworld.client import GuestClient
from envs.osworld.env import OSWorldEnv, Timing
from envs.osworld.providers import Guest, LightProvider

QUICK = Timing(after_reset=60.0, after_action=15.0, before_grading=0.0, until_rest=True, wait=1.0)


@pytest.fixture(scope="module")
def provider(engine, module_ledger, tmp_path_factory) -> Iterator[LightProvider]:
    made = LightProvider("tests", spares=0, ledger=module_ledger, log_dir=tmp_path_factory.mktemp("logs"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def env(provider) -> Iterator[OSWorldEnv]:
    """An environment whose episode runs; tests of the module share its desktop."""
    made = OSWorldEnv(provider=provider, timing=QUICK)
    options = {"instruction": "Try everything."}
    made.reset(options={"task": TaskSpec("agentlab/osworld-v0", "everything", 0, max_steps=10_000, options=options)})
    yield made
    made.close()


@pytest.fixture
def guest(env) -> Guest:
    assert env.guest is not None
    return env.guest


@pytest.fixture
def client(guest) -> GuestClient:
    return guest.client


@pytest.fixture
def running() -> Iterator[Standin]:
    """A guest's server without a desktop."""
    with standin() as made:
        yield made

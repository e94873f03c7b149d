"""A real Docker Engine for the tests that are marked ``docker``."""

from __future__ import annotations

import os
from collections.abc import Iterator

import docker
import pytest

from envs import containers
from envs.containers import Ledger
from envs.osworld.providers import LIGHT_DOCKERFILE, LIGHT_IMAGE


@pytest.fixture(scope="session")
def engine() -> docker.DockerClient:
    """The engine, with the light desktop's image of this source tree on it; ``AGENTLAB_PREBUILT`` takes the one that is there."""
    if not os.environ.get("AGENTLAB_DOCKER"):
        pytest.skip("drives a real Docker Engine and builds a desktop image of 1.5 GB: set AGENTLAB_DOCKER=1 to run it")
    client = containers.connect()
    if not os.environ.get("AGENTLAB_PREBUILT"):
        containers.build_image(LIGHT_DOCKERFILE, LIGHT_IMAGE, lambda line: None)
    return client


@pytest.fixture
def ledger(tmp_path, monkeypatch) -> Ledger:
    """A ledger of its own: nothing that the test's user really runs is in it."""
    monkeypatch.setenv("AGENTLAB_STATE", str(tmp_path / "state"))
    return Ledger()


@pytest.fixture(scope="module")
def module_ledger(tmp_path_factory) -> Iterator[Ledger]:
    yield Ledger(tmp_path_factory.mktemp("state") / "containers")

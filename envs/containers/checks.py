"""What every benchmark in containers wants of a machine, for ``agentlab doctor``."""

from __future__ import annotations

import os

import docker
from docker.errors import DockerException

from envs.benchmark import Check
from envs.containers.address import engine_address
from envs.errors import SetupError

SECONDS = 5
"""How long the engine may take to answer."""


def engine_check() -> Check:
    """A Docker Engine that answers."""
    return Check("Docker", _engine, "install Docker Engine and start it")


def _engine() -> str:
    url = engine_address().url
    try:
        client = docker.from_env(timeout=SECONDS, environment={**os.environ, "DOCKER_HOST": url})
        try:
            return f"Engine {client.version()['Version']}"
        finally:
            client.close()
    except DockerException as error:
        raise SetupError(f"no Docker Engine answers ({error})") from error
